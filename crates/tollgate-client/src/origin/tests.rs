use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn receives(origin: &Origin, uri: &str) -> bool {
    origin.receives(&uri.parse().unwrap(), &HeaderMap::new(), false)
}

fn with_host(origin: &Origin, uri: &str, hosts: &[&str]) -> bool {
    let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap()));
    origin.receives(&uri.parse().unwrap(), &hosts.collect(), true)
}

#[test]
fn compares_scheme_host_and_port() {
    let origin = Origin::new("https://api.example.com/v1?x=y").unwrap();
    for uri in [
        "https://api.example.com",
        "https://api.example.com/other?query",
        "https://api.example.com:443/",
        "https://api.example.com:0443/",
        "HTTPS://API.Example.COM/",
        "https://user:password@api.example.com/",
    ] {
        assert!(receives(&origin, uri), "{uri}");
    }
    for uri in [
        "http://api.example.com/",
        "http://api.example.com:443/",
        "https://api.example.com:8443/",
        "https://api.example.com:65979/", // 443 + 65,536
        "https://api.example.com./",
        "https://example.com/",
        "https://api.example.com.evil.example/",
        "https://evil-api.example.com/",
        "https://api.example.com@evil.example/",
        "https://api.example.com:443@evil.example/",
        "https://evil.example/https://api.example.com",
        "https://evil.example?https://api.example.com",
        "wss://api.example.com/",
        "https+unix://api.example.com/",
        "/",
        "/https://api.example.com/",
        "*",
        "api.example.com:443",
    ] {
        let Ok(parsed) = uri.parse::<Uri>() else { continue };
        assert!(!origin.receives(&parsed, &HeaderMap::new(), false), "{uri}");
    }
}

#[test]
fn compares_other_ports() {
    let origin = Origin::new("https://api.example.com:8443").unwrap();
    assert!(receives(&origin, "https://api.example.com:8443/"));
    assert!(!receives(&origin, "https://api.example.com/"));
    assert!(!receives(&origin, "https://api.example.com:443/"));
    let plain = Origin::dangerous_allow_plaintext("http://localhost").unwrap();
    assert!(receives(&plain, "http://localhost:80/"));
    assert!(!receives(&plain, "https://localhost/"));
    assert!(!receives(&plain, "https://localhost:80/"));
}

#[test]
fn compares_ipv6_addresses_by_value() {
    let origin = Origin::new("https://[2001:DB8:0:0:0:0:0:1]:8443").unwrap();
    assert_eq!(origin.to_string(), "https://[2001:db8::1]:8443");
    assert!(receives(&origin, "https://[2001:db8::1]:8443/"));
    assert!(receives(&origin, "https://[2001:db8::0:1]:8443/"));
    assert!(!receives(&origin, "https://[2001:db8::2]:8443/"));
    assert!(!receives(&origin, "https://[2001:db8::1]/"));
}

#[test]
fn only_a_fixed_service_receives_requests_without_an_authority() {
    let origin = Origin::new("https://api.example.com").unwrap();
    let none = HeaderMap::new();
    for uri in ["/package.Service/Method", "*"] {
        let uri: Uri = uri.parse().unwrap();
        assert!(origin.receives(&uri, &none, true), "{uri}");
        assert!(!origin.receives(&uri, &none, false), "{uri}");
    }
    // An absolute URI is compared in any case.
    assert!(!origin.receives(&"https://evil.example/".parse().unwrap(), &none, true));
    assert!(!origin.receives(&"api.example.com:443".parse().unwrap(), &none, true));
}

#[test]
fn host_headers_must_name_the_origin() {
    let origin = Origin::new("https://api.example.com").unwrap();
    for uri in ["https://api.example.com/", "/"] {
        for hosts in
            [&["api.example.com"][..], &["API.example.com:443"], &["api.example.com", "api.example.com"]]
        {
            assert!(with_host(&origin, uri, hosts), "{uri} {hosts:?}");
        }
        for hosts in [
            &["evil.example"][..],
            &["api.example.com:8443"],
            &["api.example.com", "evil.example"],
            &["user@api.example.com"],
            &[""],
            &["api.example.com/"],
            &["api.example.com, evil.example"],
        ] {
            assert!(!with_host(&origin, uri, hosts), "{uri} {hosts:?}");
        }
    }
}

#[test]
fn refuses_what_is_no_encrypted_origin() {
    for uri in [
        "",
        "/",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "unix:///run/api",
        "https://a:99999",
        "https://a:",
    ] {
        let error = Origin::new(uri).unwrap_err().to_string();
        assert!(error.contains("such as https://api.example.com"), "{uri}: {error}");
        assert!(Origin::dangerous_allow_plaintext(uri).is_err(), "{uri}");
    }
    for uri in ["http://api.example.com", "http://localhost", "http://127.0.0.1:3000", "http://[::1]:3000"] {
        let error = Origin::new(uri).unwrap_err().to_string();
        assert!(error.contains("is not encrypted"), "{uri}: {error}");
        assert!(error.contains("Origin::dangerous_allow_plaintext"), "{uri}: {error}");
        assert!(Origin::dangerous_allow_plaintext(uri).is_ok(), "{uri}");
    }
    let error = Origin::new("https://user:hunter2@api.example.com").unwrap_err().to_string();
    assert!(error.contains("user name") && !error.contains("hunter2"), "{error}");
}

/// The origin of a URI, read in another way: by hand, from its text.
fn naive(uri: &str) -> Option<(String, String, String)> {
    let (scheme, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.split('@').next_back()?;
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.trim_start_matches('0').to_owned()),
        _ => (host_and_port, if scheme.eq_ignore_ascii_case("https") { "443".into() } else { "80".into() }),
    };
    Some((scheme.to_ascii_lowercase(), host.to_ascii_lowercase(), port))
}

prop_compose! {
    fn uri()(
        scheme in prop::sample::select(vec!["https", "http", "HTTPS", "Http"]),
        user in prop::sample::select(vec!["", "", "api@", "a.example:443@"]),
        host in prop::sample::select(vec!["api", "API", "a.example", "A.example", "127.0.0.1", "[::1]", "api."]),
        port in prop::sample::select(vec!["", "", ":80", ":443", ":0443", ":8443"]),
        path in prop::sample::select(vec!["", "/", "/api", "/@api", "?https://api"]),
    ) -> String {
        format!("{scheme}://{user}{host}{port}{path}")
    }
}

proptest! {
    #[test]
    fn agrees_with_a_naive_reading(given in uri(), requested in uri()) {
        let Ok(origin) = Origin::dangerous_allow_plaintext(&*given) else {
            prop_assert!(given.split(['/', '?']).nth(2).unwrap().contains('@'), "{}", given);
            return Ok(());
        };
        prop_assert_eq!(receives(&origin, &requested), naive(&given) == naive(&requested), "{} {}", given, requested);
    }

    #[test]
    fn what_it_displays_is_the_same_origin(given in uri()) {
        if let Ok(origin) = Origin::dangerous_allow_plaintext(&*given) {
            prop_assert_eq!(&Origin::dangerous_allow_plaintext(origin.to_string()).unwrap(), &origin);
            prop_assert!(receives(&origin, &given));
        }
    }

    #[test]
    fn never_panics(text in "\\PC{0,40}", host in "[a-z:@.\\[\\]0-9]{0,20}") {
        let origin = Origin::new("https://api.example.com").unwrap();
        for text in [text, format!("https://{host}")] {
            let _ = Origin::new(&*text);
            if let Ok(uri) = text.parse::<Uri>() {
                let _ = origin.receives(&uri, &HeaderMap::new(), true);
            }
        }
    }
}
