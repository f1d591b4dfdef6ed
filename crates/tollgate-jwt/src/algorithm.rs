//! The algorithms by which tokens are signed.

use jsonwebtoken::Algorithm as Name;

/// An algorithm with a key pair (RFC 7518 section 3.1, RFC 8037, RFC 9864). HS256, whose key is a secret, is a mode of its own:
/// [`Issuer::hs256`](crate::Issuer::hs256).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519. Its name in tokens is `EdDSA` or `Ed25519`.
    EdDsa,
}

impl Algorithm {
    /// The algorithms that an issuer may use unless it has a list of its own.
    pub(crate) const DEFAULT: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    pub(crate) fn name(self) -> Name {
        match self {
            Self::Rs256 => Name::RS256,
            Self::Rs384 => Name::RS384,
            Self::Rs512 => Name::RS512,
            Self::Ps256 => Name::PS256,
            Self::Ps384 => Name::PS384,
            Self::Ps512 => Name::PS512,
            Self::Es256 => Name::ES256,
            Self::Es384 => Name::ES384,
            Self::EdDsa => Name::EdDSA,
        }
    }
}

/// The algorithm with this name in a token or key; `None` for one that is not supported, such as `none`.
pub(crate) fn named(name: &str) -> Option<Name> {
    // RFC 9864 section 2.2 names the curve. Keys and tokens with either name are in use.
    if name == "Ed25519" { Some(Name::EdDSA) } else { name.parse().ok() }
}
