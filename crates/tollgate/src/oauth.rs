//! OAuth: what clients find out about a protected resource (RFC 9728).

use std::{fmt, net::IpAddr};

use http::Uri;
use serde_json::{Map, Value};

use crate::ConfigurationError;

/// Where the metadata of a resource is: the path of the resource follows (RFC 9728 section 3.1).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata of an OAuth protected resource (RFC 9728): which authorization servers issue tokens for an API. Clients of MCP servers
/// depend on it.
///
/// A client sends a request without a token, and gets a 401 whose challenge has the [URL of the metadata](Self::metadata_url). It
/// fetches the metadata without a credential, and learns where to get a token. The challenge is a setting of the layers:
///
/// ```
/// use tollgate::{Tollgate, oauth::ProtectedResource};
///
/// let resource = ProtectedResource::new("https://api.example.com/mcp", ["https://auth.example.com"])?;
/// assert_eq!(resource.metadata_url(), "https://api.example.com/.well-known/oauth-protected-resource/mcp");
///
/// let builder = Tollgate::builder().protected_resource(&resource); // .verify(..)
/// # let _ = builder;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
///
/// Serve [the document](Self::to_json) outside the layers, as JSON, at the [path of the metadata](Self::metadata_path).
/// `tollgate_axum::protected_resource` does that. With everything that a client can use:
///
/// ```
/// use tollgate::oauth::ProtectedResource;
///
/// let resource = ProtectedResource::new("https://api.example.com/mcp", ["https://auth.example.com"])?
///     .with_name("Jobs of Example")
///     .with_scopes(["jobs:read", "jobs:create"])?
///     .with_needed_scopes(["jobs:read"])?
///     .with_member("resource_documentation", "https://docs.example.com/jobs")?;
/// assert!(resource.to_json().contains(r#""scopes_supported":["jobs:read","jobs:create"]"#));
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
///
/// # URLs
///
/// They use `https`. For development, `http` is accepted for `localhost` and for loopback addresses. A client compares the resource
/// with the URL that it used, and does not use metadata that differ (RFC 9728 section 3.3): write it as clients do, without a final
/// slash if their URL has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    document: Map<String, Value>,
    metadata_url: String,
    // The offset of the path in the URL.
    metadata_path: usize,
    needed_scope: Option<String>,
}

impl ProtectedResource {
    /// The resource with this URL, and the authorization servers that issue tokens for it, by their issuer identifiers (RFC 8414
    /// section 2). The credential is sent in a header.
    ///
    /// # Errors
    /// If a URL does not use `https`, or has a user, a query or a fragment; if the resource's path cannot be a route of axum; or if there is
    /// no authorization server, of which the authorization of MCP requires one.
    pub fn new(
        resource: &str,
        authorization_servers: impl IntoIterator<Item: AsRef<str>>,
    ) -> Result<Self, ConfigurationError> {
        let uri = bare_url("the resource", resource)?;
        let path = if uri.path() == "/" { "" } else { uri.path() };
        if path.split('/').any(|segment| segment.starts_with([':', '*'])) {
            return Err(error(format_args!(
                "the path of {resource} has a segment that begins with : or *: use another one"
            )));
        }
        // A URL that was parsed has both.
        let (scheme, host) =
            (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |host| host.as_str()));
        let origin = format!("{scheme}://{host}");
        let mut servers = Vec::new();
        for server in authorization_servers {
            bare_url("the authorization server", server.as_ref())?;
            servers.push(server.as_ref().to_owned());
        }
        if servers.is_empty() {
            return Err(error(format_args!(
                "{resource} has no authorization server: name one that issues tokens for it"
            )));
        }
        let mut document = Map::new();
        document.insert("resource".to_owned(), resource.into());
        document.insert("authorization_servers".to_owned(), servers.into());
        document.insert("bearer_methods_supported".to_owned(), vec!["header"].into());
        let metadata_path = origin.len();
        Ok(Self {
            document,
            metadata_url: format!("{origin}{WELL_KNOWN}{path}"),
            metadata_path,
            needed_scope: None,
        })
    }

    /// The name of the resource, for people (`resource_name`).
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.document.insert("resource_name".to_owned(), Value::String(name.into()));
        self
    }

    /// The scopes that a client may ask for (`scopes_supported`).
    ///
    /// # Errors
    /// If one of them is not a scope (RFC 6749 section 3.3).
    pub fn with_scopes(
        self,
        scopes: impl IntoIterator<Item: AsRef<str>>,
    ) -> Result<Self, ConfigurationError> {
        let scopes: Vec<_> = scopes.into_iter().map(|scope| Value::from(scope.as_ref())).collect();
        self.with_member("scopes_supported", scopes)
    }

    /// The scopes that a client should ask for first: the challenge of each 401 names them. Default: none, and clients ask for all that are
    /// supported. The challenge of a 403 names the scopes that the route requires, if a `ScopeLayer` has refused the request.
    ///
    /// # Errors
    /// If one of them is not a scope (RFC 6749 section 3.3).
    pub fn with_needed_scopes(
        mut self,
        scopes: impl IntoIterator<Item: AsRef<str>>,
    ) -> Result<Self, ConfigurationError> {
        let mut needed = String::new();
        for scope in scopes {
            check_scope(scope.as_ref())?;
            if !needed.is_empty() {
                needed.push(' ');
            }
            needed.push_str(scope.as_ref());
        }
        self.needed_scope = Some(needed).filter(|needed| !needed.is_empty());
        Ok(self)
    }

    /// Any other member of the document (RFC 9728 section 2), such as `jwks_uri`, `resource_documentation`, `resource_policy_uri`,
    /// `resource_tos_uri`, `bearer_methods_supported`, or one of your own. An empty list removes the member.
    ///
    /// # Errors
    /// If the RFC forbids the value of the member, or if it is one that [`new`](Self::new) sets.
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Result<Self, ConfigurationError> {
        let value = value.into();
        check_member(name, &value)?;
        if value.as_array().is_some_and(Vec::is_empty) {
            // Section 3.2: parameters with zero values are omitted.
            self.document.remove(name);
        } else {
            self.document.insert(name.to_owned(), value);
        }
        Ok(self)
    }

    /// The URL of the metadata: the well-known path, between the host and the path of the resource (RFC 9728 section 3.1).
    pub fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    /// The path of [the URL](Self::metadata_url).
    pub fn metadata_path(&self) -> &str {
        self.metadata_url.get(self.metadata_path..).unwrap_or_default()
    }

    /// The document, as JSON. Its media type is `application/json`.
    pub fn to_json(&self) -> String {
        Value::Object(self.document.clone()).to_string()
    }

    /// The scopes that the challenge of a 401 names, separated by spaces.
    pub(crate) fn needed_scope(&self) -> Option<&str> {
        self.needed_scope.as_deref()
    }
}

fn check_member(name: &str, value: &Value) -> Result<(), ConfigurationError> {
    match name {
        "resource" | "authorization_servers" => {
            Err(error(format_args!("{name} is given to ProtectedResource::new, and not as a member")))
        }
        "jwks_uri" | "resource_documentation" | "resource_policy_uri" | "resource_tos_uri" => {
            url(name, value.as_str().unwrap_or_default()).map(drop)
        }
        "scopes_supported" => strings(name, value)?.into_iter().try_for_each(check_scope),
        "bearer_methods_supported" => match strings(name, value)?
            .into_iter()
            .find(|method| !["header", "body", "query"].contains(method))
        {
            Some(other) => Err(error(format_args!("{name} are header, body and query, and not {other}"))),
            None => Ok(()),
        },
        "resource_signing_alg_values_supported" if strings(name, value)?.contains(&"none") => {
            Err(error(format_args!("{name} must not contain none (RFC 9728 section 2): remove it")))
        }
        _ => Ok(()),
    }
}

fn strings<'v>(name: &str, value: &'v Value) -> Result<Vec<&'v str>, ConfigurationError> {
    let strings = value.as_array().and_then(|values| values.iter().map(Value::as_str).collect());
    strings.ok_or_else(|| error(format_args!("{name} is a list of strings")))
}

/// RFC 6749 section 3.3.
fn check_scope(scope: &str) -> Result<(), ConfigurationError> {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if scope.is_empty() || !scope.bytes().all(is_allowed) {
        return Err(error(format_args!(
            "{scope:?} is not a scope: use visible ASCII without quotes and backslashes"
        )));
    }
    Ok(())
}

/// A URL without a query.
fn bare_url(what: &str, text: &str) -> Result<Uri, ConfigurationError> {
    let url = url(what, text)?;
    if text.contains('?') {
        return Err(error(format_args!("{what} {text} has a query: remove it")));
    }
    Ok(url)
}

/// A URL that clients may be sent to.
fn url(what: &str, text: &str) -> Result<Uri, ConfigurationError> {
    let wrong = |why: &str| error(format_args!("{what} {text:?} {why}"));
    // RFC 3986 section 2. `Uri` accepts more, and drops a fragment.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
    if !text.bytes().all(is_allowed) {
        return Err(wrong("has a fragment, or a character that a URL must encode: remove or encode it"));
    }
    let url: Uri =
        text.parse().map_err(|_| wrong("is not a URL: write it as https://api.example.com/path"))?;
    let Some(host) = url.authority() else { return Err(wrong("is not a URL with a scheme and a host")) };
    if host.as_str().contains('@') {
        return Err(wrong("names a user: remove it"));
    }
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_loopback(host.host()) => Ok(url),
        _ => Err(wrong("does not use https: only a loopback address may use http")),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn error(message: fmt::Arguments<'_>) -> ConfigurationError {
    ConfigurationError::new(format!("ProtectedResource: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: [&str; 1] = ["https://auth.example.com"];

    #[test]
    fn the_well_known_path_is_between_the_host_and_the_path() {
        const ORIGIN: &str = "https://api.example.com";
        for (resource, url) in [
            ("https://api.example.com", ""),
            ("https://api.example.com/", ""),
            ("https://api.example.com/mcp", "/mcp"),
            ("https://api.example.com/public/mcp/", "/public/mcp/"),
        ] {
            let resource = ProtectedResource::new(resource, SERVER).unwrap();
            assert_eq!(resource.metadata_url(), format!("{ORIGIN}{WELL_KNOWN}{url}"));
            assert_eq!(resource.metadata_path(), format!("{WELL_KNOWN}{url}"));
        }
        let local = ProtectedResource::new("http://127.0.0.1:8080/mcp", ["http://[::1]:9000"]).unwrap();
        assert_eq!(local.metadata_url(), format!("http://127.0.0.1:8080{WELL_KNOWN}/mcp"));
    }

    #[test]
    fn the_document_has_what_was_given_and_no_empty_member() {
        let resource = ProtectedResource::new("https://api.example.com", SERVER).unwrap();
        let resource = resource.with_name("Jobs").with_scopes(["jobs:read"]).unwrap();
        let resource = resource.with_member("jwks_uri", "https://api.example.com/keys").unwrap();
        let document: Value = serde_json::from_str(&resource.to_json()).unwrap();
        let expected = serde_json::json!({
            "resource": "https://api.example.com",
            "authorization_servers": ["https://auth.example.com"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Jobs",
            "scopes_supported": ["jobs:read"],
            "jwks_uri": "https://api.example.com/keys",
        });
        assert_eq!(document, expected);
        let emptied = resource.with_scopes([""; 0]).unwrap();
        assert!(!emptied.to_json().contains("scopes_supported"));
    }

    #[test]
    fn refuses_what_the_rfc_forbids() {
        for resource in [
            "",
            "api.example.com",
            "/mcp",
            "http://api.example.com",
            "ftp://api.example.com",
            "https://api.example.com/#part",
            "https://api.example.com/mcp?tenant=acme",
            "https://ada@api.example.com",
            "https://api.example.com/a b",
            "https://api.example.com/{id}",
            "https://api.example.com/:id",
            "https://api.example.com/\"",
            "http://localhost.example.com",
        ] {
            assert!(ProtectedResource::new(resource, SERVER).is_err(), "{resource}");
        }
        let new = || ProtectedResource::new("https://api.example.com", SERVER).unwrap();
        assert!(ProtectedResource::new("https://api.example.com", [""; 0]).is_err());
        assert!(ProtectedResource::new("https://api.example.com", ["http://auth.example.com"]).is_err());
        assert!(new().with_scopes(["jobs read"]).is_err());
        assert!(new().with_needed_scopes(["a\"b"]).is_err());
        for (name, value) in [
            ("resource", Value::from("https://other.example.com")),
            ("authorization_servers", Value::from(vec!["https://other.example.com"])),
            ("jwks_uri", Value::from("http://api.example.com/keys")),
            ("jwks_uri", Value::from(7)),
            ("bearer_methods_supported", Value::from(vec!["cookie"])),
            ("resource_signing_alg_values_supported", Value::from(vec!["RS256", "none"])),
            ("scopes_supported", Value::from("jobs:read")),
        ] {
            assert!(new().with_member(name, value).is_err(), "{name}");
        }
    }
}
