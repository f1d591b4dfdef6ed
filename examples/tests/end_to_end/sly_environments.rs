//! `sly`: a test key reaches the sandbox and a live key production, whatever a request says; a session names one of them.

use http::Method;

use crate::{
    service::Service,
    sly::{BALANCE, BATCH, Caller, SCAN, TESTS, assert_answer},
};

const PRODUCTION: &str = "production";
const SANDBOX: &str = "sandbox";
const INVALID: &str = r#"{"error":"X-Environment must be test or live"}"#;

/// Values of `X-Environment` that no session may have.
const OTHERS: [&[&str]; 9] = [
    &[""],
    &["Live"],
    &["TEST"],
    &["production"],
    &["sandbox"],
    &["live, test"],
    &["live", "live"],
    &["test", "live"],
    &["live;q=1"],
];

#[tokio::test]
async fn a_key_reaches_its_own_corpus_whatever_x_environment_says() {
    let service = Service::start("sly").await;
    for (name, corpus) in [("live", PRODUCTION), ("fast", PRODUCTION), ("test", SANDBOX)] {
        let mut caller = Caller::connect(&service, name).await;
        let header: [&[&str]; 3] = [&[], &["live"], &["test"]];
        for environments in header.into_iter().chain(OTHERS) {
            let answer = caller.send_in(environments, &Method::POST, SCAN, "{}").await;
            assert_eq!(answer.status, 200, "{name} {environments:?}: {answer:?}");
            assert_eq!(answer.json()["corpus"], corpus, "{name} {environments:?}");
        }
        for path in [BATCH, TESTS] {
            assert_eq!(caller.post(path, "{}").await.json()["corpus"], corpus, "{name}");
        }
    }
    service.end().await;
}

#[tokio::test]
async fn a_session_reaches_the_corpus_that_x_environment_names() {
    let service = Service::start("sly").await;
    let mut jwt = Caller::connect(&service, "jwt").await;
    let cases: [(&[&str], _); 3] = [(&[], PRODUCTION), (&["live"], PRODUCTION), (&["test"], SANDBOX)];
    // Three times, since the token is cached.
    for (environments, corpus) in [cases, cases, cases].concat() {
        for path in [SCAN, BATCH, TESTS] {
            let answer = jwt.send_in(environments, &Method::POST, path, "{}").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["corpus"], corpus, "{environments:?}");
        }
    }
    service.end().await;
}

#[tokio::test]
async fn a_session_with_another_environment_is_answered_with_400() {
    let service = Service::start("sly").await;
    let mut jwt = Caller::connect(&service, "jwt").await;
    // Before and after the token is cached.
    for _ in 0..2 {
        for environments in OTHERS {
            for (method, path) in [(Method::POST, SCAN), (Method::GET, BALANCE), (Method::GET, "/nowhere")] {
                let answer = jwt.send_in(environments, &method, path, "{}").await;
                assert_answer(&answer, 400, INVALID, &format!("{environments:?}"));
            }
        }
        assert_eq!(jwt.balance().await, 1_000, "a refused request costs nothing");
    }
    // Only the owner of a valid token learns what is wrong with the header.
    for name in ["jwt_expired", "jwt_forged"] {
        let mut caller = Caller::connect(&service, name).await;
        assert_eq!(caller.send_in(&["other"], &Method::POST, SCAN, "{}").await.status, 401, "{name}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_scan_is_found_in_its_own_corpus_only() {
    let service = Service::start("sly").await;
    // All of globex.
    let mut live_key = Caller::connect(&service, "fast").await;
    let mut test_key = Caller::connect(&service, "test").await;
    let mut session = Caller::connect(&service, "jwt").await;
    let mut ids = Vec::new();
    for path in [SCAN, BATCH, TESTS] {
        ids.push((PRODUCTION, live_key.create(path).await));
        ids.push((SANDBOX, test_key.create(path).await));
        for (environment, corpus) in [("live", PRODUCTION), ("test", SANDBOX)] {
            let created = session.send_in(&[environment], &Method::POST, path, "{}").await.json();
            ids.push((corpus, created["id"].as_str().unwrap().to_owned()));
        }
    }
    for (corpus, id) in ids {
        let path = format!("/v1/scanner/scans/{id}");
        let get = Method::GET;
        for (answer, reached) in [
            (live_key.get(&path).await, PRODUCTION),
            (live_key.send_in(&["test"], &get, &path, "").await, PRODUCTION),
            (test_key.get(&path).await, SANDBOX),
            (test_key.send_in(&["live"], &get, &path, "").await, SANDBOX),
            (session.get(&path).await, PRODUCTION),
            (session.send_in(&["live"], &get, &path, "").await, PRODUCTION),
            (session.send_in(&["test"], &get, &path, "").await, SANDBOX),
        ] {
            if corpus == reached {
                assert_eq!((answer.status.as_u16(), &answer.json()["corpus"]), (200, &corpus.into()));
            } else {
                assert_answer(&answer, 404, r#"{"error":"Not found"}"#, &id);
            }
        }
    }
    service.end().await;
}
