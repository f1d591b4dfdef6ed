//! `skannr`: accounts, and the tokens of their sessions.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    client::Answer,
    service::Service,
    skannr::{Api, LOGIN, NOW, REFRESH, TARGETS},
};

const REGISTER: &str = "/auth/register";
const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "correct horse";

const ACCESS_TOKEN_LIFETIME: i64 = 15 * 60;
const REFRESH_TOKEN_LIFETIME: i64 = 7 * 24 * 60 * 60;

#[tokio::test]
async fn a_new_account_signs_in_and_uses_the_api() {
    let service = Service::start("skannr").await;
    let mut api = Api::connect(&service).await;
    let account = json!({ "name": "Ada", "email": " Ada@Example.org", "password": PASSWORD });
    let created = api.post(REGISTER, &account).await;
    assert_eq!(created.status, 201);
    assert_eq!((&created.json()["name"], &created.json()["email"]), (&json!("Ada"), &json!(EMAIL)));
    assert!(!created.body.contains(PASSWORD));

    for email in [EMAIL, "ADA@example.org"] {
        let answer = api.login(email, PASSWORD).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let tokens = answer.json();
        assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(900)));
        assert!(tokens["refresh_token"].is_string());
        api.token = Some(token(&answer, "access_token"));
        assert_eq!(api.get(TARGETS).await.json(), json!({ "targets": [] }));
    }
    service.end().await;
}

#[tokio::test]
async fn registration_needs_a_name_an_email_and_eight_characters_of_password() {
    let service = Service::start("skannr").await;
    let mut api = Api::connect(&service).await;
    let long = "x".repeat(255);
    let invalid = [
        json!({ "email": EMAIL, "password": PASSWORD }),
        json!({ "name": "Ada", "password": PASSWORD }),
        json!({ "name": "Ada", "email": EMAIL }),
        json!({ "name": " ", "email": EMAIL, "password": PASSWORD }),
        json!({ "name": long, "email": EMAIL, "password": PASSWORD }),
        json!({ "name": "Ada", "email": "ada", "password": PASSWORD }),
        json!({ "name": "Ada", "email": "@example.org", "password": PASSWORD }),
        json!({ "name": "Ada", "email": "ada@", "password": PASSWORD }),
        json!({ "name": "Ada", "email": "a da@example.org", "password": PASSWORD }),
        json!({ "name": "Ada", "email": format!("{long}@example.org"), "password": PASSWORD }),
        json!({ "name": "Ada", "email": EMAIL, "password": "seven77" }),
        json!({ "name": "Ada", "email": EMAIL, "password": "ääääää7" }),
        json!({ "name": "Ada", "email": EMAIL, "password": 12_345_678 }),
        json!({ "name": "Ada", "email": EMAIL, "password": null }),
    ];
    for account in invalid {
        assert_eq!(api.post(REGISTER, &account).await.status, 400, "{account}");
    }
    // Any eight characters will do.
    for (number, password) in
        ["password", "        ", "ääääääää", "\0\0\0\0\0\0\0\0", &"long ".repeat(1_000)].iter().enumerate()
    {
        let email = format!("{number}@example.org");
        let account = json!({ "name": "Ada", "email": email, "password": password });
        assert_eq!(api.post(REGISTER, &account).await.status, 201, "{password}");
        assert_eq!(api.login(&email, password).await.status, 200, "{password}");
    }
    // An e-mail has one account, however it is written.
    let account = json!({ "name": "Eve", "email": "0@EXAMPLE.org", "password": "another password" });
    let taken = api.post(REGISTER, &account).await;
    assert_eq!(taken.status, 400);
    assert!(taken.json()["message"].as_str().unwrap().contains("already"), "{taken:?}");
    assert_eq!(api.login("0@example.org", "another password").await.status, 401);
    service.end().await;
}

#[tokio::test]
async fn an_access_token_expires_after_15_minutes() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let mut seeded = Api::with_token(&service, service.key("free")).await;
    let mut expired = Api::with_token(&service, service.key("expired")).await;
    for (step, status) in [(0, 200), (ACCESS_TOKEN_LIFETIME - 1, 200), (1, 401), (-1, 200), (60, 401)] {
        api.advance(step).await;
        assert_eq!(api.get(TARGETS).await.status, status, "after a step of {step} s");
        assert_eq!(seeded.get(TARGETS).await.status, status, "after a step of {step} s");
        assert_eq!(expired.get(TARGETS).await.status, 401);
    }
    service.end().await;
}

#[tokio::test]
async fn a_refresh_token_expires_after_7_days() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let first = token(&api.login(EMAIL, PASSWORD).await, "refresh_token");
    let other = token(&api.login(EMAIL, PASSWORD).await, "refresh_token");
    api.advance(REFRESH_TOKEN_LIFETIME - 1).await;
    let refreshed = api.refresh(&first).await;
    assert_eq!(refreshed.status, 200);
    api.advance(1).await;
    assert_eq!(api.refresh(&other).await.status, 401);
    // The new one has 7 days of its own.
    api.advance(REFRESH_TOKEN_LIFETIME - 2).await;
    assert_eq!(api.refresh(&token(&refreshed, "refresh_token")).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn a_refresh_token_is_replaced_by_each_use() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let mut answer = api.login(EMAIL, PASSWORD).await;
    for _ in 0..5 {
        let (access, refresh) = (token(&answer, "access_token"), token(&answer, "refresh_token"));
        answer = api.refresh(&refresh).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_ne!(token(&answer, "refresh_token"), refresh);
        assert_ne!(token(&answer, "access_token"), access);
        // The earlier access token is valid until it expires.
        for access in [access, token(&answer, "access_token")] {
            api.token = Some(access);
            assert_eq!(api.get(TARGETS).await.status, 200);
        }
    }
    service.end().await;
}

#[tokio::test]
async fn a_refresh_token_that_is_used_again_ends_its_session() {
    let service = Service::start("skannr").await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let other_session = api.login(EMAIL, PASSWORD).await;
    let first = api.login(EMAIL, PASSWORD).await;
    let second = api.refresh(&token(&first, "refresh_token")).await;
    let third = api.refresh(&token(&second, "refresh_token")).await;
    assert_eq!(third.status, 200);

    assert_eq!(api.refresh(&token(&first, "refresh_token")).await.status, 401);

    for answer in [&first, &second, &third] {
        assert_eq!(api.refresh(&token(answer, "refresh_token")).await.status, 401);
        api.token = Some(token(answer, "access_token"));
        assert_eq!(api.get(TARGETS).await.status, 401, "the access tokens of the session end, too");
    }
    // Other sessions of the account go on.
    api.token = Some(token(&other_session, "access_token"));
    assert_eq!(api.get(TARGETS).await.status, 200);
    assert_eq!(api.refresh(&token(&other_session, "refresh_token")).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn of_concurrent_uses_of_a_refresh_token_one_succeeds_and_the_others_end_the_session() {
    let service = Service::start("skannr").await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    for _ in 0..3 {
        let refresh = token(&api.login(EMAIL, PASSWORD).await, "refresh_token");
        let mut uses = JoinSet::new();
        for _ in 0..6 {
            let mut client = Api::connect(&service).await;
            let refresh = refresh.clone();
            uses.spawn(async move { client.refresh(&refresh).await });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            uses.join_all().await.into_iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 5));
        assert!(lost.iter().all(|answer| answer.status == 401), "{lost:?}");
        assert_eq!(api.refresh(&token(&won[0], "refresh_token")).await.status, 401);
        api.token = Some(token(&won[0], "access_token"));
        assert_eq!(api.get(TARGETS).await.status, 401);
    }
    service.end().await;
}

#[tokio::test]
async fn refuses_what_is_not_a_refresh_token() {
    let service = Service::start("skannr").await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let tokens = api.login(EMAIL, PASSWORD).await;
    let (access, refresh) = (token(&tokens, "access_token"), token(&tokens, "refresh_token"));
    for invalid in ["", ".", "nonsense", "a.b", &access, &format!("x{refresh}")] {
        assert_eq!(api.refresh(invalid).await.status, 401, "{invalid}");
    }
    for body in [json!({}), json!({ "refresh_token": 7 }), json!({ "token": refresh })] {
        assert_eq!(api.post(REFRESH, &body).await.status, 400, "{body}");
    }
    // A refresh token is not an access token.
    api.token = Some(refresh.clone());
    assert_eq!(api.get(TARGETS).await.status, 401);
    api.token = Some(access);
    assert_eq!(api.get(TARGETS).await.status, 200);
    let next = api.refresh(&refresh).await;
    assert_eq!(next.status, 200, "none of this has ended the session");
    // Only a client that had a token of the session knows its family.
    let forged = format!("{}x", token(&next, "refresh_token"));
    assert_eq!(api.refresh(&forged).await.status, 401);
    assert_eq!(api.refresh(&token(&next, "refresh_token")).await.status, 401, "the session was ended");
    service.end().await;
}

#[tokio::test]
async fn an_account_has_at_most_100_sessions() {
    let service = Service::start("skannr").await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let second = token(&api.login(EMAIL, PASSWORD).await, "access_token");
    for _ in 2..100 {
        assert_eq!(api.login(EMAIL, PASSWORD).await.status, 200);
    }
    assert_eq!(api.get(TARGETS).await.status, 200);
    assert_eq!(api.login(EMAIL, PASSWORD).await.status, 200);
    assert_eq!(api.get(TARGETS).await.status, 401, "the oldest session was ended");
    api.token = Some(second);
    assert_eq!(api.get(TARGETS).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_email_get_the_same_answer_after_the_same_work() {
    let mut service = Service::start_logging("skannr", &["--now", NOW], "skannr=debug").await;
    let log = service.log();
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await; // two hashes
    let mut answers = Vec::new();
    for email in [EMAIL, "eve@example.org", "free@example.com"] {
        answers.push(api.login(email, "wrong horse").await); // one hash each
    }
    let seen: Vec<_> = answers.iter().map(seen).collect();
    assert_eq!(seen[0].0, 401);
    assert!(seen.iter().all(|other| *other == seen[0]), "{answers:?}");
    service.end().await;
    let log = log.await.unwrap();
    assert_eq!(log.matches("password hash computed").count(), 2 + 3, "{log}");
}

#[tokio::test]
async fn refuses_forged_access_tokens() {
    let service = Service::start("skannr").await;
    let mut api = Api::connect(&service).await;
    let (free, pro) = (service.key("free"), service.key("pro"));
    let parts = |token: &str| -> [String; 3] {
        token.split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap()
    };
    let ([header, claims, signature], [_, other_claims, _]) = (parts(free), parts(pro));
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    for forged in [
        format!("{header}.{other_claims}.{signature}"),
        format!("{none}.{claims}.{signature}"),
        format!("{none}.{claims}."),
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        format!("{claims}.{signature}"),
        format!("{free}.{signature}"),
    ] {
        api.token = Some(forged);
        assert_eq!(api.get(TARGETS).await.status, 401, "{:?}", api.token);
    }
    // Another process has another secret.
    let other = Service::start("skannr").await;
    api.token = Some(other.key("free").to_owned());
    assert_eq!(api.get(TARGETS).await.status, 401);
    other.end().await;
    service.end().await;
}

#[tokio::test]
async fn the_log_has_no_secret() {
    let mut service = Service::start_logging("skannr", &[], "trace").await;
    let log = service.log();
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let wrong = "battery staple";
    let mut secrets = vec![PASSWORD.to_owned(), wrong.to_owned(), api.token.clone().unwrap()];
    assert_eq!(api.login(EMAIL, wrong).await.status, 401);
    let setup = api.post("/auth/mfa/setup", &json!({})).await;
    secrets.push(token(&setup, "secret"));
    assert_eq!(api.post("/auth/mfa/enable", &json!({ "code": "424242" })).await.status, 400);
    assert_eq!(
        api.send(Method::DELETE, "/auth/mfa", &json!({ "password": wrong }).to_string()).await.status,
        403
    );
    let first = api.login(EMAIL, PASSWORD).await;
    let second = api.refresh(&token(&first, "refresh_token")).await;
    assert_eq!(api.refresh(&token(&first, "refresh_token")).await.status, 401);
    for answer in [first, second] {
        secrets.extend([token(&answer, "access_token"), token(&answer, "refresh_token")]);
    }
    secrets.extend(["free", "pro", "lapsed", "expired"].map(|name| service.key(name).to_owned()));
    service.end().await;
    let log = log.await.unwrap();
    assert!(log.contains("refresh token used again"), "the log is complete: {log}");
    for secret in secrets {
        // Also not the parts of a token.
        for part in secret.split('.').filter(|part| !part.starts_with("eyJhbGci")) {
            assert!(!log.contains(part), "{part} is in the log");
        }
    }
    assert!(!log.contains("424242"));
}

fn token(answer: &Answer, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer:?}")).to_owned()
}

/// What a client can see of an answer, but for the headers that differ in each one.
fn seen(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let headers =
        answer.headers.iter().filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status.as_u16(), headers.collect(), answer.json())
}

#[tokio::test]
async fn other_fields_of_the_bodies_are_ignored() {
    let service = Service::start("skannr").await;
    let mut api = Api::connect(&service).await;
    let account =
        json!({ "name": "Ada", "email": EMAIL, "password": PASSWORD, "plan": "pro", "is_paid": true });
    assert_eq!(api.post(REGISTER, &account).await.status, 201);
    let login = json!({ "email": EMAIL, "password": PASSWORD, "remember": true });
    let answer = api.post(LOGIN, &login).await;
    api.token = Some(token(&answer, "access_token"));
    assert_eq!(api.get("/billing/status").await.json()["plan"], "free");
    service.end().await;
}
