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
        if origin.is_some_and(|origin| self.0.iter().any(|trusted| trusted == origin)) {
            return true;
        }
        match (text(&head.headers, &SEC_FETCH_SITE), origin) {
            // `none`: the user's own navigation, by the address bar or a bookmark.
            (Some(site), _) => matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => authority_of(origin).is_some_and(|page| Some(page) == own(head)),
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

fn authority_of(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_scheme, authority)| authority)
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

    #[test]
    fn over_http_2_the_host_is_in_the_uri() {
        let request = Request::post("https://api.example.com/").header("origin", "https://api.example.com");
        let (head, ()) = request.body(()).unwrap().into_parts();
        assert!(Origins::default().allows(&head));
    }
}
