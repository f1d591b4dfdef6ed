//! Sample data: score, streak and achievements, the same for every account.

use axum::Json;
use serde_json::{Value, json};

pub(crate) async fn score() -> Json<Value> {
    let categories = json!({ "exposure": 90, "encryption": 84, "freshness": 72 });
    Json(json!({ "score": 82, "level": 3, "xp": 1_240, "categories": categories }))
}

pub(crate) async fn streak() -> Json<Value> {
    Json(json!({ "current_days": 4, "best_days": 19 }))
}

pub(crate) async fn achievements() -> Json<Value> {
    let achievement = |id: &str, earned_at: Option<&str>| json!({ "id": id, "earned": earned_at.is_some(), "earned_at": earned_at });
    let achievements =
        [achievement("first_scan", Some("2026-02-11T09:14:02Z")), achievement("all_ports_closed", None)];
    Json(json!({ "achievements": achievements }))
}
