//! A token as it was sent: its form and its header. Nothing of it is trusted yet.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use tollgate_core::denial::Denial;

use crate::{algorithm, claims::invalid, json};

/// The longest `kid`, in bytes.
const MAX_KID_BYTES: usize = 256;

/// A token that is not verified.
pub(crate) struct Token {
    /// What is signed: the header, a dot and the claims, as they were sent.
    pub(crate) message: Box<[u8]>,
    pub(crate) signature: Vec<u8>,
    pub(crate) header: Header,
    pub(crate) claims: Map<String, Value>,
}

/// What a header (RFC 7515 section 4) says, if it says nothing that is refused.
#[derive(Clone)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<Box<str>>,
    /// In lower case, without `application/`.
    pub(crate) token_type: Option<Box<str>>,
}

impl Token {
    /// The parts of a token in compact form (RFC 7515 section 3.1).
    pub(crate) fn parse(token: &[u8]) -> Result<Self, Denial> {
        let mut parts = token.splitn(4, |byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid("the token does not have three parts: it is no signed JWT"));
        };
        let decode =
            |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| invalid("a part of the token is not base64url"));
        let object = |part| json::object(&decode(part)?).map_err(|_| invalid(NO_OBJECT));
        let message_length = header.len() + 1 + claims.len();
        let header = Header::of(&object(header)?)?;
        Ok(Self {
            message: token.get(..message_length).unwrap_or_default().into(),
            signature: decode(signature)?,
            header,
            claims: object(claims)?,
        })
    }
}

const NO_OBJECT: &str = "the token's header or claims are not a JSON object, or a member is repeated";

impl Header {
    fn of(members: &Map<String, Value>) -> Result<Self, Denial> {
        let text = |name| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(invalid("`alg`, `kid` or `typ` in the token's header is not a text")),
        };
        let refused = |name: &str| members.contains_key(name);
        // Critical extensions must be refused if they are not understood (RFC 7515 section 4.1.11), and none is.
        if refused("crit") {
            return Err(invalid("the token's header has `crit`: no extension is supported"));
        }
        if members.get("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
            return Err(invalid("the token's header has `b64`: an unencoded payload is not supported"));
        }
        // A caller must not choose the key by which its token is verified (RFC 8725 section 3.10).
        if ["jku", "jwk", "x5u", "x5c"].into_iter().any(refused) {
            return Err(invalid("the token's header names a key of its own (`jku`, `jwk`, `x5u` or `x5c`)"));
        }
        if refused("enc") || refused("zip") {
            return Err(invalid("the token's header has `enc` or `zip`: encrypted tokens are not supported"));
        }
        let algorithm = text("alg")?.and_then(algorithm::named);
        let kid = text("kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(invalid("`kid` in the token's header is longer than 256 bytes"));
        }
        let token_type = text("typ")?.map(|name| {
            let name = name.to_ascii_lowercase();
            name.strip_prefix("application/").unwrap_or(&name).into()
        });
        Ok(Self {
            algorithm: algorithm.ok_or_else(|| invalid("`alg` in the token's header is not supported"))?,
            kid: kid.map(Into::into),
            token_type,
        })
    }
}
