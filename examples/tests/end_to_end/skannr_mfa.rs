//! `skannr`: sign-in with the codes of an authenticator app.

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{
    client::Answer,
    service::Service,
    skannr::{Api, LOGIN, NOW},
};

/// [`NOW`] in seconds since the Unix epoch. A time step of 30 seconds begins then.
const NOW_S: u64 = 1_772_405_910;
const STEP: i64 = 30;

const SETUP: &str = "/auth/mfa/setup";
const ENABLE: &str = "/auth/mfa/enable";
const MFA: &str = "/auth/mfa";
const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "correct horse";

#[tokio::test]
async fn setup_returns_a_secret_and_a_qr_code() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut user = User::new(&service).await;
    let first = user.setup().await;
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let (first, second) = (first.json(), user.setup().await.json());
    assert_ne!(first["secret"], second["secret"]);
    for setup in [&first, &second] {
        let secret = setup["secret"].as_str().unwrap();
        assert_eq!(decoded(secret).len(), 20);
        let url = format!("otpauth://totp/Skannr:ada%40example.org?secret={secret}&issuer=Skannr");
        assert_eq!(setup["otpauth_url"], url);
        assert!(setup["qr_code"].as_str().unwrap().starts_with("data:image/svg+xml;base64,"));
    }
    // Only the latest secret counts.
    assert_eq!(user.enable(&code(&first, 0)).await.status, 400);
    assert_eq!(user.enable(&code(&second, 0)).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn login_needs_a_code_from_when_mfa_is_enabled_until_it_is_disabled() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut user = User::new(&service).await;
    assert_eq!(user.enable("123456").await.status, 400, "there is no secret yet");
    let setup = user.setup().await.json();
    assert_eq!(user.login(None).await.status, 200, "a secret alone changes nothing");
    assert_eq!(user.enable("not a code").await.status, 400);
    assert_eq!(user.login(None).await.status, 200);
    assert_eq!(user.enable(&code(&setup, 0)).await.json(), json!({ "mfa_enabled": true }));

    user.api.advance(STEP).await;
    assert_eq!(user.login(None).await.status, 401);
    assert_eq!(user.login(Some("")).await.status, 401);
    assert_eq!(user.login(Some("not a code")).await.status, 401);
    let wrong = json!({ "email": EMAIL, "password": "wrong horse", "code": code(&setup, STEP) });
    assert_eq!(user.api.post(LOGIN, &wrong).await.status, 401, "a code does not replace the password");
    assert_eq!(user.login(Some(&code(&setup, STEP))).await.status, 200);

    // Neither setup nor enable weakens what is enabled.
    assert_eq!(user.setup().await.status, 400);
    assert_eq!(user.enable(&code(&setup, STEP)).await.status, 400);
    assert_eq!(user.login(None).await.status, 401);

    assert_eq!(user.disable(&json!({})).await.status, 400);
    assert_eq!(user.disable(&json!({ "password": "wrong horse" })).await.status, 403);
    user.api.advance(60).await;
    assert_eq!(user.login(None).await.status, 401);
    let disabled = user.disable(&json!({ "password": PASSWORD })).await;
    assert_eq!((disabled.status.as_u16(), disabled.json()), (200, json!({ "mfa_enabled": false })));
    assert_eq!(user.login(None).await.status, 200);
    assert_eq!(user.disable(&json!({ "password": PASSWORD })).await.status, 400, "it is not enabled");
    service.end().await;
}

#[tokio::test]
async fn a_code_is_accepted_once_and_one_step_early_or_late() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut user = User::new(&service).await;
    let setup = user.setup().await.json();
    assert_eq!(user.enable(&code(&setup, 0)).await.status, 200);
    assert_eq!(user.login(Some(&code(&setup, 0))).await.status, 200, "the code that has enabled it");
    assert_eq!(user.login(Some(&code(&setup, 0))).await.status, 401, "again");
    user.api.advance(10 * STEP).await;
    for (step, status) in [
        (8, 401),
        (9, 200),  // one step late
        (9, 401),  // again
        (11, 200), // one step early
        (10, 401), // an earlier one than the last that was used
        (12, 401),
    ] {
        assert_eq!(user.login(Some(&code(&setup, step * STEP))).await.status, status, "step {step}");
    }
    user.api.advance(STEP).await;
    // Other names of the field, and a number.
    let login = json!({ "email": EMAIL, "password": PASSWORD, "totp_code": code(&setup, 12 * STEP) });
    assert_eq!(user.api.post(LOGIN, &login).await.status, 200);
    user.api.advance(STEP).await;
    let number: u64 = code(&setup, 13 * STEP).parse().unwrap();
    let login = json!({ "email": EMAIL, "password": PASSWORD, "token": "wrong", "code": number });
    assert_eq!(user.api.post(LOGIN, &login).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn concurrent_logins_with_one_code_succeed_once() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut user = User::new(&service).await;
    let setup = user.setup().await.json();
    assert_eq!(user.enable(&code(&setup, 0)).await.status, 200);
    let login = json!({ "email": EMAIL, "password": PASSWORD, "code": code(&setup, STEP) });
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut api = Api::connect(&service).await;
        let login = login.clone();
        logins.spawn(async move { api.post(LOGIN, &login).await.status.as_u16() });
    }
    let mut statuses = logins.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401, 401, 401]);
    service.end().await;
}

#[tokio::test]
async fn codes_and_the_password_that_disables_mfa_cannot_be_guessed_quickly() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut user = User::new(&service).await;
    let setup = user.setup().await.json();
    assert_eq!(user.enable(&code(&setup, 0)).await.status, 200);
    user.api.advance(60).await;
    for _ in 0..5 {
        assert_eq!(user.login(Some("not a code")).await.status, 401);
        assert_eq!(user.disable(&json!({ "password": "wrong horse" })).await.status, 403);
    }
    // Also the right ones, from any address.
    let late = user.login(Some(&code(&setup, 60))).await;
    assert_eq!((late.status.as_u16(), late.header("retry-after")), (429, Some("30")));
    assert_eq!(user.disable(&json!({ "password": PASSWORD })).await.status, 429);
    user.api.advance(30).await;
    assert_eq!(user.login(Some(&code(&setup, 90))).await.status, 200);
    service.end().await;
}

struct User {
    api: Api,
}

impl User {
    async fn new(service: &Service) -> Self {
        Self { api: Api::of_new_account(service, EMAIL, PASSWORD).await }
    }

    async fn setup(&mut self) -> Answer {
        self.api.post(SETUP, &json!({})).await
    }

    async fn enable(&mut self, code: &str) -> Answer {
        self.api.post(ENABLE, &json!({ "code": code })).await
    }

    async fn disable(&mut self, body: &Value) -> Answer {
        self.api.send(Method::DELETE, MFA, &body.to_string()).await
    }

    async fn login(&mut self, code: Option<&str>) -> Answer {
        self.api.post(LOGIN, &json!({ "email": EMAIL, "password": PASSWORD, "code": code })).await
    }
}

/// What an authenticator app shows some seconds after [`NOW`] (RFC 6238 section 4, RFC 4226 section 5.3).
fn code(setup: &Value, after: i64) -> String {
    let step = NOW_S.checked_add_signed(after).unwrap() / 30;
    let mut mac = Hmac::<Sha1>::new_from_slice(&decoded(setup["secret"].as_str().unwrap())).unwrap();
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let offset = usize::from(hash[19] & 0xf);
    let number = u32::from_be_bytes(hash[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// Base32 without padding (RFC 4648 section 6).
fn decoded(text: &str) -> Vec<u8> {
    let value =
        |digit: u8| "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".bytes().position(|known| known == digit).unwrap();
    let bits: Vec<_> =
        text.bytes().map(value).flat_map(|value| (0..5).rev().map(move |bit| value >> bit & 1)).collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::try_from(*bit).unwrap()))
        .collect()
}
