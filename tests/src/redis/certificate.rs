//! The certificate of a server with TLS, and the authority that has issued it.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A certificate, and what belongs to it, in PEM.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) root: String,
    pub(super) own: String,
    pub(super) key: String,
}

impl Certificate {
    /// A certificate for `127.0.0.1` and `localhost`, by a new authority.
    pub(super) fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Authority of a test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(authority, new_key()).expect("a certificate");

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = new_key();
        let own = CertificateParams::new(names).expect("valid names").signed_by(&key, &authority);
        Self { root: authority.pem(), own: own.expect("a certificate").pem(), key: key.serialize_pem() }
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
