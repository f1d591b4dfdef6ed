//! What the history tells of a change besides what it was. Never a secret, and of metadata only that it is another.

use tollgate_core::{KeyDetails, Plan};

use crate::instant::Told;

pub(super) fn issued(key: &KeyDetails) -> String {
    format!("name: {}", key.name)
}

pub(super) fn deleted(key: &KeyDetails) -> String {
    format!("name: {}", key.name)
}

pub(super) fn rotated(key: &KeyDetails) -> String {
    match key.former_until {
        Some(_) => format!("the former secret is good until {}", Told(key.former_until)),
        None => "the former secret has ended".to_owned(),
    }
}

pub(super) fn updated(before: &KeyDetails, after: &KeyDetails) -> String {
    let plan = |plan: &Option<Plan>| match plan {
        None => "none".to_owned(),
        Some(plan) if plan.is_active() => plan.tier().to_owned(),
        Some(plan) => format!("{} (lapsed)", plan.tier()),
    };
    let quotas = |key: &KeyDetails| {
        let quotas = key.quotas.iter().map(|(policy, quota)| format!("{policy} {quota}"));
        if key.quotas.is_empty() { "none".to_owned() } else { quotas.collect::<Vec<_>>().join("; ") }
    };
    let told = [
        ("name", before.name.to_string(), after.name.to_string()),
        ("scopes", before.scopes.to_string(), after.scopes.to_string()),
        ("plan", plan(&before.plan), plan(&after.plan)),
        ("expiry", Told(before.expires_at).to_string(), Told(after.expires_at).to_string()),
        ("quotas", quotas(before), quotas(after)),
    ];
    let mut changes: Vec<_> = told
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| format!("{what}: {before} -> {after}"))
        .collect();
    if before.metadata != after.metadata {
        changes.push("metadata: changed".to_owned());
    }
    changes.join(", ")
}
