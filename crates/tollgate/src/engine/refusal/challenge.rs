//! The `WWW-Authenticate` header of a refusal.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use tollgate_core::denial::Denial;

use super::RequestContext;
use crate::oauth::ProtectedResource;

/// The authentication schemes that challenges offer.
#[derive(Debug)]
pub(crate) struct Schemes(Vec<&'static str>);

const BEARER: &str = "Bearer";

impl Schemes {
    /// The schemes of a layer's sources, each once. `None` for the default, which is `Bearer`, also where no source is in
    /// `Authorization`: a 401 must carry a challenge (RFC 9110 section 15.5.2).
    pub(crate) fn new(of_sources: impl Iterator<Item = &'static str>) -> Option<Arc<Self>> {
        let mut schemes: Vec<&str> = Vec::new();
        for scheme in of_sources {
            if !schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
                schemes.push(scheme);
            }
        }
        let is_default = schemes.is_empty() || schemes == [BEARER];
        (!is_default).then(|| Arc::new(Self(schemes)))
    }
}

/// Adds a challenge for each scheme, each on a line of its own: many clients read one challenge per line.
pub(super) fn add_challenges(
    headers: &mut HeaderMap,
    denial: &Denial,
    status: StatusCode,
    context: &RequestContext,
) {
    let realm = context.realm();
    for scheme in context.schemes.as_ref().map_or(&[BEARER][..], |schemes| &schemes.0) {
        let challenge = match *scheme {
            BEARER => bearer(denial, status, realm, context.protected_resource()),
            // Other schemes have no parameter for an error: their challenges belong only into a 401.
            other => (status == StatusCode::UNAUTHORIZED).then(|| written(other, realm, &[])),
        };
        if let Some(challenge) = challenge {
            // A full map has no place for it.
            let _ = headers.try_append(WWW_AUTHENTICATE, challenge);
        }
    }
}

// The usual ones are constants: `from_static` reads every byte.
const MISSING: HeaderValue = HeaderValue::from_static(r#"Bearer realm="api""#);
const INVALID: HeaderValue = HeaderValue::from_static(r#"Bearer realm="api",error="invalid_token""#);

/// The challenge of RFC 6750 section 3, with the parameter of RFC 9728 section 5.1.
fn bearer(
    denial: &Denial,
    status: StatusCode,
    realm: &str,
    resource: Option<&ProtectedResource>,
) -> Option<HeaderValue> {
    let error = denial.kind().challenge_error();
    let is_unauthorized = status == StatusCode::UNAUTHORIZED;
    if error.is_none() && !is_unauthorized {
        return None;
    }
    // Which scopes to ask for: a 401 comes before the layer that knows the requirement of the route.
    let needed = || resource.filter(|_| is_unauthorized).and_then(ProtectedResource::needed_scope);
    let scope = denial.scope().or_else(needed);
    Some(match (realm, error, scope, resource) {
        ("api", None, None, None) => MISSING,
        ("api", Some("invalid_token"), None, None) => INVALID,
        _ => {
            let metadata = resource.map(ProtectedResource::metadata_url);
            let parameters = [("error", error), ("scope", scope), ("resource_metadata", metadata)];
            written(BEARER, realm, &parameters)
        }
    })
}

/// A challenge with a realm, and those of the other parameters that have a value.
fn written(scheme: &str, realm: &str, others: &[(&str, Option<&str>)]) -> HeaderValue {
    let lengths = others.iter().map(|(name, text)| text.map_or(0, |text| name.len() + text.len() + 4));
    let length = scheme.len() + realm.len() + r#" realm="""#.len() + lengths.sum::<usize>();
    let mut challenge = String::with_capacity(length);
    challenge.push_str(scheme);
    challenge.push_str(r#" realm=""#);
    push_quoted(&mut challenge, realm);
    for (name, text) in others {
        let Some(text) = text else { continue };
        challenge.push_str(r#"","#);
        challenge.push_str(name);
        challenge.push_str(r#"=""#);
        push_quoted(&mut challenge, text);
    }
    challenge.push('"');
    // Only a realm or a scope of the application's own can make it invalid; the bare scheme still says what to do.
    let bare = || HeaderValue::try_from(scheme).unwrap_or(HeaderValue::from_static(BEARER));
    HeaderValue::try_from(challenge).unwrap_or_else(|_| bare())
}

/// Adds what stands between quotation marks (RFC 9110 section 5.6.4).
fn push_quoted(header: &mut String, text: &str) {
    if !text.contains(['"', '\\']) {
        return header.push_str(text);
    }
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            header.push('\\');
        }
        header.push(character);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_core::denial::DenialKind;

    use super::*;

    /// Reads the parameters of a challenge back, as RFC 9110 sections 5.6.4 and 11.2 say.
    fn parameters(challenge: &str) -> Vec<(String, String)> {
        let mut read = Vec::new();
        let mut characters = challenge.strip_prefix("Bearer ").unwrap().chars().peekable();
        while characters.peek().is_some() {
            let name = characters.by_ref().take_while(|&character| character != '=').collect();
            assert_eq!(characters.next(), Some('"'));
            let mut value = String::new();
            loop {
                match characters.next().unwrap() {
                    '"' => break,
                    '\\' => value.push(characters.next().unwrap()),
                    character => value.push(character),
                }
            }
            read.push((name, value));
            assert!(matches!(characters.next(), None | Some(',')));
        }
        read
    }

    proptest! {
        #[test]
        fn a_challenge_says_what_it_was_given(
            realm in "api|[ -~]{0,20}|[a\"\\\\]{0,8}",
            scope in proptest::option::of("[ -~]{1,20}|[a\"\\\\]{1,8}"),
            kind in proptest::sample::select(vec![
                DenialKind::CredentialMissing,
                DenialKind::CredentialRepeated,
                DenialKind::KeyUnknown,
                DenialKind::ScopeMissing,
            ]),
            path in proptest::option::of("(/[a-z0-9]{1,5}){0,3}"),
            needed in proptest::option::of("[!#-Z]{1,8}"),
        ) {
            let mut expected = vec![("realm", realm.clone())];
            expected.extend(kind.challenge_error().map(|error| ("error", error.to_owned())));
            let denial = match &scope {
                Some(scope) if kind == DenialKind::ScopeMissing => Denial::scope_missing(scope.clone()),
                _ => Denial::new(kind),
            };
            let resource = path.as_ref().map(|path| {
                let resource = format!("https://api.example.com{path}");
                let resource = ProtectedResource::new(&resource, ["https://auth.example.com"]).unwrap();
                resource.with_needed_scopes(needed.clone()).unwrap()
            });
            let needed = needed.filter(|_| resource.is_some() && denial.status() == 401);
            expected.extend(denial.scope().map(str::to_owned).or(needed).map(|scope| ("scope", scope)));
            expected.extend(path.map(|path| {
                let url = format!("https://api.example.com/.well-known/oauth-protected-resource{path}");
                ("resource_metadata", url)
            }));
            let challenge = bearer(&denial, denial.status(), &realm, resource.as_ref()).unwrap();
            let expected: Vec<_> = expected.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
            prop_assert_eq!(parameters(challenge.to_str().unwrap()), expected);
        }
    }

    #[test]
    fn what_no_header_can_hold_is_left_out_of_a_challenge() {
        let denial = Denial::new(DenialKind::KeyUnknown);
        assert_eq!(bearer(&denial, denial.status(), "two\nlines", None).unwrap(), "Bearer");
        assert_eq!(written("Token", "two\nlines", &[]), "Token");
    }

    #[test]
    fn a_403_that_no_scope_can_change_has_no_challenge() {
        let resource =
            ProtectedResource::new("https://api.example.com", ["https://auth.example.com"]).unwrap();
        let denial = Denial::new(DenialKind::TenantSuspended);
        assert_eq!(bearer(&denial, denial.status(), "api", Some(&resource)), None);
    }
}
