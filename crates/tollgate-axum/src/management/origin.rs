//! Detects requests from pages of other sites, by the headers that browsers send.

use http::{
    HeaderMap, HeaderName, Uri,
    header::{HOST, ORIGIN},
    request::Parts,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Origins whose pages may send changes, in addition to the router's own.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(Vec<String>);

impl Origins {
    pub(super) fn add(&mut self, mut origin: String) {
        // Accepts the form of an address bar, with a final slash.
        origin.truncate(origin.trim_end_matches('/').len());
        self.0.push(origin);
    }

    /// Whether a request changes nothing, comes from a page that may send changes, or does not come from a page.
    ///
    /// Current browsers send the relation of the page to the router in `Sec-Fetch-Site`, which pages cannot set. Older browsers send
    /// at least the page's `Origin`.
    pub(super) fn allows(&self, head: &Parts) -> bool {
        if head.method.is_safe() {
            return true;
        }
        let origin = text(&head.headers, &ORIGIN);
        if origin.is_some_and(|origin| self.0.iter().any(|trusted| is_same_origin(trusted, origin))) {
            return true;
        }
        match (text(&head.headers, &SEC_FETCH_SITE), origin) {
            // `none`: the user's own navigation, by the address bar or a bookmark.
            (Some(site), _) => matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => match (origin.split_once("://"), own(head)) {
                (Some((scheme, page)), Some(own)) => is_same_authority(scheme, page, own),
                _ => false,
            },
            (None, None) => true,
        }
    }
}

/// A header's text. Empty, which matches no page, if it is not text or has several lines.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() { Some("") } else { Some(first.to_str().unwrap_or_default()) }
}

/// Whether two origins are the same (RFC 6454 section 5).
fn is_same_origin(one: &str, other: &str) -> bool {
    match (one.split_once("://"), other.split_once("://")) {
        (Some((scheme, one)), Some((other_scheme, other))) => {
            scheme.eq_ignore_ascii_case(other_scheme) && is_same_authority(scheme, one, other)
        }
        // An opaque origin, such as `null`.
        _ => one == other,
    }
}

/// Whether two hosts with or without a port are the same for this scheme. The scheme's default port may be absent: browsers never
/// send it in `Origin`, but other clients and proxies write it into `Host`.
fn is_same_authority(scheme: &str, one: &str, other: &str) -> bool {
    match (host_and_port(scheme, one), host_and_port(scheme, other)) {
        (Some((host, port)), Some((other_host, other_port))) => {
            host.eq_ignore_ascii_case(other_host) && port == other_port
        }
        _ => false,
    }
}

/// `None` for a port that cannot exist. The port is `None` where it is absent and the scheme has no default.
fn host_and_port<'t>(scheme: &str, authority: &'t str) -> Option<(&'t str, Option<u16>)> {
    // The text after the last colon of an IPv6 address ends with a bracket, so it is no number.
    let with_port =
        authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let (host, port) = with_port.unwrap_or((authority, ""));
    if !port.is_empty() {
        return Some((host, Some(port.parse().ok()?)));
    }
    let is_scheme = |name: &str| scheme.eq_ignore_ascii_case(name);
    let default = if is_scheme("https") { Some(443) } else { is_scheme("http").then_some(80) };
    Some((host, default))
}

/// The router's host as the client addressed it: over HTTP/2 it is in the URI.
fn own(head: &Parts) -> Option<&str> {
    let of_target = Uri::authority(&head.uri).map(http::uri::Authority::as_str);
    of_target.or_else(|| text(&head.headers, &HOST))
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;

    #[test]
    fn only_pages_of_the_same_or_a_trusted_origin_may_send_changes() {
        let mut trusted = Origins::default();
        trusted.add("https://app.example.com/".to_owned());
        for (headers, expected) in [
            ("", true),
            ("sec-fetch-site: same-origin", true),
            ("sec-fetch-site: none", true),
            ("sec-fetch-site: cross-site", false),
            ("sec-fetch-site: same-site", false),
            ("sec-fetch-site: same-origin; origin: https://evil.example", true),
            ("sec-fetch-site: same-origin; sec-fetch-site: cross-site", false),
            ("sec-fetch-site: cross-site; origin: https://app.example.com", true),
            ("sec-fetch-site: cross-site; origin: https://app.example.com.evil.example", false),
            ("sec-fetch-site: cross-site; origin: http://app.example.com", false),
            ("origin: https://api.example.com", true),
            ("origin: http://api.example.com", true),
            ("origin: https://api.example.com:8443", false),
            ("origin: https://app.example.com", true),
            ("origin: https://evil.example", false),
            ("origin: null", false),
            ("origin: ", false),
        ] {
            for (method, expected) in
                [(Method::POST, expected), (Method::DELETE, expected), (Method::GET, true)]
            {
                let mut request = Request::builder().method(method.clone()).header("host", "api.example.com");
                for line in headers.split("; ").filter(|line| !line.is_empty()) {
                    let (name, value) = line.split_once(": ").unwrap();
                    request = request.header(name, value);
                }
                let (head, ()) = request.body(()).unwrap().into_parts();
                assert_eq!(trusted.allows(&head), expected, "{method} {headers}");
            }
        }
    }

    /// A request was refused as a page of another site if a client or a proxy had written the port into `Host`, or if a trusted
    /// origin had a port.
    #[test]
    fn a_default_port_may_be_written_or_left_out() {
        for (host, origin, expected) in [
            ("api.example.com:443", "https://api.example.com", true),
            ("api.example.com", "https://api.example.com:443", true),
            ("api.example.com:80", "http://api.example.com", true),
            ("api.example.com", "http://api.example.com:80", true),
            ("api.example.com:", "https://api.example.com", true),
            ("API.example.com", "HTTPS://api.Example.com:443", true),
            ("[::1]:443", "https://[::1]", true),
            ("[::1]", "https://[::1]:443", true),
            ("api.example.com:8443", "https://api.example.com:8443", true),
            ("api.example.com:80", "https://api.example.com", false),
            ("api.example.com:443", "http://api.example.com", false),
            ("api.example.com:8443", "https://api.example.com", false),
            ("api.example.com", "https://api.example.com:65979", false),
            ("api.example.com:65979", "https://api.example.com:65979", false),
            ("api.example.com", "https://evil@api.example.com", false),
            ("api.example.com", "https://api.example.com:443:443", false),
            ("[::1]:443", "https://[::1", false),
            ("", "null", false),
        ] {
            let request = Request::post("/").header("host", host).header("origin", origin);
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(Origins::default().allows(&head), expected, "{origin} to {host}");
            if origin.contains("://") {
                let mut trusted = Origins::default();
                trusted.add(format!("{}://{host}/", origin.split_once("://").unwrap().0));
                let (mut elsewhere, ()) = Request::post("/").body(()).unwrap().into_parts();
                elsewhere.headers.insert("origin", origin.parse().unwrap());
                elsewhere.headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
                assert_eq!(trusted.allows(&elsewhere), expected, "{origin}, where {trusted:?} is trusted");
            }
        }
    }

    #[test]
    fn over_http_2_the_host_is_in_the_uri() {
        let request = Request::post("https://api.example.com/").header("origin", "https://api.example.com");
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert!(Origins::default().allows(&head));
    }
}
