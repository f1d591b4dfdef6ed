//! `sly`: a key replaces itself, and ends at the moment the new one is issued.

use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    client::Answer,
    scanr::{NOW, advance, numbers},
    service::Service,
    sly::{BALANCE, Caller, INVALID_KEY, ROTATE, SCAN, assert_answer},
};

#[tokio::test]
async fn rotation_ends_the_old_key_and_keeps_everything_else() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    for (name, prefix) in [("live", "psk_live_"), ("test", "psk_test_"), ("read_only", "psk_live_")] {
        let mut old = Caller::connect(&service, name).await;
        let before = old.post(SCAN, "{}").await;
        let rotated = old.post(ROTATE, "").await;
        assert_eq!(rotated.header("cache-control"), Some("no-store"));
        let key = new_key(&rotated);
        assert!(key.starts_with(prefix) && key != service.key(name));
        for _ in 0..3 {
            for path in [BALANCE, "/nowhere"] {
                assert_answer(&old.get(path).await, 401, INVALID_KEY, name);
            }
            assert_answer(&old.post(ROTATE, "").await, 401, INVALID_KEY, name);
        }
        let mut new = Caller::with_credential(&service, &key).await;
        // The scopes, the environment and the limit.
        let after = new.post(SCAN, "{}").await;
        assert_eq!((after.status, &after.json()["corpus"]), (before.status, &before.json()["corpus"]));
        assert_eq!(numbers(&after).1, numbers(&before).1 - 2, "a new key is no new limit");
        let again = new_key(&new.post(ROTATE, "").await);
        assert_eq!(new.get(BALANCE).await.status, 401);
        assert_eq!(Caller::with_credential(&service, &again).await.get(BALANCE).await.status, 200);
    }
    // Other keys of the organization are not affected.
    assert_eq!(Caller::connect(&service, "fast").await.get(BALANCE).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn of_concurrent_rotations_one_wins() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut key = service.key("live").to_owned();
    for round in 0..10 {
        let mut rotations = JoinSet::new();
        for _ in 0..8 {
            let mut caller = Caller::with_credential(&service, &key).await;
            rotations.spawn(async move { caller.post(ROTATE, "").await });
        }
        let answers = rotations.join_all().await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        for lost in answers.iter().filter(|answer| answer.status != 200) {
            assert_answer(lost, 401, INVALID_KEY, "lost");
        }
        assert_eq!(Caller::with_credential(&service, &key).await.get(BALANCE).await.status, 401);
        key = new_key(won[0]);
        let mut new = Caller::with_credential(&service, &key).await;
        assert_eq!(new.get(BALANCE).await.status, 200, "the key that was shown works");
        advance(&mut new.client, 60).await;
    }
    service.end().await;
}

#[tokio::test]
async fn only_a_key_can_be_rotated() {
    let service = Service::start("sly").await;
    let mut jwt = Caller::connect(&service, "jwt").await;
    for environments in [&[][..], &["live"], &["test"]] {
        let answer = jwt.send_in(environments, &http::Method::POST, ROTATE, "{}").await;
        let body = r#"{"error":"A session has no key to rotate: send the API key itself"}"#;
        assert_answer(&answer, 403, body, "a session");
    }
    assert_answer(
        &Caller::connect(&service, "revoked").await.post(ROTATE, "").await,
        401,
        INVALID_KEY,
        "revoked",
    );
    service.end().await;
}

fn new_key(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let Value::Object(body) = answer.json() else { panic!("{answer:?}") };
    assert_eq!(
        body.keys().collect::<Vec<_>>(),
        ["id", "key"],
        "the key is shown, and nothing else that is secret"
    );
    body["key"].as_str().unwrap().to_owned()
}
