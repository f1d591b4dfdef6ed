//! How key sets come over HTTP and HTTPS.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::AbortHandle,
    time::{Duration, Instant, sleep},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};
use tollgate_core::denial::DenialKind;
use tollgate_jwt::{HttpKeys, Issuer, JwtVerifier};
use tollgate_testing::{KeySetAnswer, TestAuthority, midnight};

use crate::{
    openssl::{ROOT_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY},
    support::{Setup, authority, verify},
};

/// Ends the server when it is dropped.
struct Server {
    port: u16,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the head of a request.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await?);
    }
    Ok(())
}

/// An HTTPS server of `localhost` that answers with this text.
async fn https(text: String) -> Server {
    let certificate = CertificateDer::from(STANDARD.decode(SERVER_CERTIFICATE).unwrap());
    let key = PrivatePkcs8KeyDer::from(STANDARD.decode(SERVER_KEY).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    let (tls, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate hangs up.
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
            if read_request(&mut stream).await.is_ok() {
                let _ = stream.write_all((head + &text).as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    Server { port, task: task.abort_handle() }
}

fn verifier(authority: &TestAuthority, keys: HttpKeys) -> JwtVerifier {
    JwtVerifier::new(Issuer::from_source(authority.issuer(), authority.audience(), keys))
}

#[tokio::test]
async fn a_private_certificate_authority_is_trusted_for_its_hosts_only() {
    let (authority, _) = authority().await;
    let server = https(authority.jwks()).await;
    let keys = |host: &str| HttpKeys::new(format!("https://{host}:{}/jwks", server.port)).unwrap();
    let with_root = |host| keys(host).with_root_certificate(ROOT_CERTIFICATE).unwrap();
    let token = authority.mint(json!({"sub": "u"}));
    assert!(verify(&verifier(&authority, with_root("localhost")), &token, midnight()).await.is_ok());
    for (keys, reason) in
        [(keys("localhost"), "UnknownIssuer"), (with_root("127.0.0.1"), "not valid for name")]
    {
        let error = verifier(&authority, keys).connect_at(midnight()).await.unwrap_err().to_string();
        assert!(error.contains("https://") && error.contains(reason), "{error}");
    }
    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"] {
        assert!(keys("localhost").with_root_certificate(text).is_err(), "{text}");
    }
}

/// Sends a byte now and then, so that no single read takes long.
async fn drip(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    read_request(stream).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
    loop {
        stream.write_all(b" ").await?;
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_body_that_drips_is_cut_by_the_deadline() {
    let (authority, _) = authority().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drip(&mut stream).await.expect_err("the verifier closes the connection");
    });
    let keys = HttpKeys::new(format!("http://127.0.0.1:{port}/jwks")).unwrap();
    let issuer = Issuer::from_source(authority.issuer(), authority.audience(), keys)
        .with_key_deadline(Duration::from_millis(100));
    let began = Instant::now();
    let token = authority.mint(json!({"sub": "u"}));
    let denial = verify(&JwtVerifier::new(issuer), &token, midnight()).await.unwrap_err();
    assert!(
        denial.kind() == DenialKind::Unavailable && denial.log_detail().contains("within 100ms"),
        "{}",
        denial.log_detail()
    );
    assert!(began.elapsed() < Duration::from_secs(4), "far more than the deadline");
    task.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_named() {
    let setup = Setup::new().await;
    setup.authority.answer_with(KeySetAnswer::Text(" ".repeat(10_000_000)));
    let error = setup.verifier.connect_at(midnight()).await.unwrap_err().to_string();
    assert!(error.contains("longer than 256 KiB"), "{error}");
}

#[tokio::test]
async fn errors_do_not_show_the_query_of_the_url() {
    let (authority, _) = authority().await;
    authority.answer_with(KeySetAnswer::Status(500));
    let url = authority.jwks_url();
    let keys = HttpKeys::new(format!("{url}?apikey=hush")).unwrap();
    let shown = format!("{keys:?}");
    let error = verifier(&authority, keys).connect_at(midnight()).await.unwrap_err();
    let error = format!("{error} {error:?}");
    for text in [shown, error] {
        assert!(text.contains(&url) && !text.contains("hush"), "{text}");
    }
}
