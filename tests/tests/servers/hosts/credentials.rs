//! Where a key is in a request: programs that wait for a challenge, and a key in the query behind axum's router.

use axum::{Router, extract::OriginalUri, routing::get};
use http::{StatusCode, Uri};
use tests::{
    hosts::{Connection, serve, within},
    suite::Directory,
};
use tokio::process::Command;
use tollgate::{CredentialLayer, Principal, Tollgate, verify::CredentialSource};
use tollgate_axum::original_uri;

const KEY: &str = "s3cr3t-of-ada";

fn stack(credential: CredentialLayer) -> Tollgate {
    let keys = Directory::default().with(KEY, Principal::new("ada"));
    Tollgate::builder().credential(credential).verify(keys).build().unwrap()
}

fn reading(sources: impl IntoIterator<Item = CredentialSource>) -> CredentialLayer {
    CredentialLayer::from_sources(sources).unwrap()
}

/// curl with `--anyauth` sends its user name and password only after a challenge of a scheme that it knows, as wget and browsers do.
/// It never sent a key, because the challenge was always `Bearer`.
#[tokio::test]
async fn curl_sends_a_basic_credential_after_the_challenge() {
    let by_password = CredentialSource::BasicPassword { user: None };
    for (source, user) in
        [(CredentialSource::BasicUser, format!("{KEY}:")), (by_password, format!("anyone:{KEY}"))]
    {
        let credential = reading([CredentialSource::Bearer, source]);
        let router = Router::new().route("/jobs", get(async || "jobs")).layer(stack(credential));
        let url = format!("http://{}/jobs", serve(router).await);
        let curl = async |options: &[&str]| {
            let command = &mut Command::new("curl");
            let command = command.args(["--silent", "--show-error", "--write-out", " %{http_code}"]);
            let output = within(command.args(options).arg(&url).output()).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(curl(&["--anyauth", "--user", &user]).await, "jobs 200");
        assert_eq!(curl(&["--oauth2-bearer", KEY]).await, "jobs 200");
        assert!(curl(&["--anyauth", "--user", "ada:guess"]).await.ends_with(" 401"));
        let challenges = curl(&["--output", "/dev/null", "--dump-header", "-"]).await;
        let challenges: Vec<_> =
            challenges.lines().filter(|line| line.starts_with("www-authenticate")).collect();
        let expected = [r#"www-authenticate: Bearer realm="api""#, r#"www-authenticate: Basic realm="api""#];
        assert_eq!(challenges, expected);
    }
}

/// A handler read a key that was removed, in the copy of the target that axum's router makes before it calls a layer.
#[tokio::test]
async fn removal_leaves_no_key_in_the_original_uri() {
    let seen = async |uri: Uri, OriginalUri(original): OriginalUri| format!("{uri} {original}");
    let inner = || Router::new().route("/jobs", get(seen)).fallback(seen);
    let credential = || reading([CredentialSource::DangerousQuery("key")]);
    let layer = || stack(credential().with_removal_from(original_uri));

    for (app, prefix) in [
        (inner().layer(layer()), ""),
        (Router::new().nest("/v1", inner().layer(layer())), "/v1"),
        (Router::new().nest("/v1", inner()).layer(layer()), "/v1"),
        // Around the whole router there is no copy yet.
        (Router::new().fallback_service(tower::Layer::layer(&layer(), inner())), ""),
    ] {
        let mut caller = Connection::http1(serve(app).await).await;
        for query in
            [format!("a=b&key={KEY}"), format!("k%65y={KEY}&a=b"), "key=%733cr3t-of-ada&a=b".to_owned()]
        {
            for path in ["/jobs", "/unknown"] {
                let response = caller.get(&format!("{prefix}{path}?{query}"), None).await;
                let expected = format!("{path}?a=b {prefix}{path}?a=b");
                assert_eq!(response.status(), StatusCode::OK, "{prefix}{path}?{query}");
                assert_eq!(String::from_utf8_lossy(response.body()), expected, "{query}");
            }
        }
    }
}
