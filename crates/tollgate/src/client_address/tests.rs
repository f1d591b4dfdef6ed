use http::{HeaderValue, Request};
use proptest::prelude::*;

use super::*;

const PROXY: &str = "10.0.0.1";

/// The client's address for a request with this peer and these header lines.
fn find(header: &str, peer: &str, lines: &[&[u8]]) -> String {
    let address = trusting();
    let address = if header == "forwarded" { address.with_forwarded() } else { address };
    let mut request = Request::builder();
    for line in lines {
        request = request.header(header, HeaderValue::from_bytes(line).unwrap());
    }
    let mut request = request.body(()).unwrap();
    request.extensions_mut().insert(peer.parse::<IpAddr>().unwrap());
    address.find(RequestHead::of(&request)).unwrap().to_string()
}

fn trusting() -> ClientAddress {
    ClientAddress::of_peer(|head| head.extensions.get::<IpAddr>().copied())
        .with_trusted_proxies(["10.0.0.0/8", "2001:db8:aaaa::/48"])
        .unwrap()
}

fn x_forwarded_for(peer: &str, lines: &[&str]) -> String {
    find("x-forwarded-for", peer, &lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>())
}

fn forwarded(peer: &str, lines: &[&str]) -> String {
    find("forwarded", peer, &lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>())
}

#[test]
fn an_untrusted_peer_is_the_client_regardless_of_its_headers() {
    assert_eq!(x_forwarded_for("192.0.2.1", &["198.51.100.4"]), "192.0.2.1");
    assert_eq!(forwarded("192.0.2.1", &["for=198.51.100.4"]), "192.0.2.1");
}

#[test]
fn the_first_untrusted_address_from_the_right_is_the_client() {
    assert_eq!(x_forwarded_for(PROXY, &["198.51.100.4"]), "198.51.100.4");
    assert_eq!(x_forwarded_for(PROXY, &["203.0.113.9, 198.51.100.4, 10.9.9.9"]), "198.51.100.4");
    assert_eq!(x_forwarded_for(PROXY, &["203.0.113.9", "198.51.100.4,10.9.9.9", "10.8.8.8"]), "198.51.100.4");
    assert_eq!(x_forwarded_for("2001:db8:aaaa::1", &["198.51.100.4"]), "198.51.100.4");
    assert_eq!(
        forwarded(PROXY, &["for=203.0.113.9, For=198.51.100.4;proto=https", "FOR=10.9.9.9"]),
        "198.51.100.4"
    );
}

#[test]
fn a_proxy_that_reports_no_address_is_the_client() {
    assert_eq!(x_forwarded_for(PROXY, &[]), PROXY);
    assert_eq!(x_forwarded_for(PROXY, &["10.9.9.9"]), "10.9.9.9", "all addresses are trusted");
    for invalid in [
        "",
        "unknown",
        "_hidden",
        "198.51.100",
        "198.51.100.4:",
        "198.51.100.4:99999",
        "[::1",
        "::1%eth0",
        "[2001:db8::1]x",
        "[2001:db8::1]:",
        "[2001:db8::1]:99999",
        "[2001:db8::1]:+80",
        "198.51.100.4:+80",
        "198.51.100.4:_",
        "198.51.100.4:_a b",
        "[198.51.100.4]",
    ] {
        assert_eq!(x_forwarded_for(PROXY, &[&format!("203.0.113.9, {invalid}")]), PROXY, "{invalid}");
        assert_eq!(
            x_forwarded_for(PROXY, &[&format!("203.0.113.9, {invalid}, 10.9.9.9")]),
            "10.9.9.9",
            "{invalid}"
        );
        assert_eq!(forwarded(PROXY, &[&format!("for=203.0.113.9, for=\"{invalid}\"")]), PROXY, "{invalid}");
    }
    for invalid in [
        "proto=https",
        "for",
        "=198.51.100.4",
        "for=198.51.100.4;for=198.51.100.5",
        ";",
        "a b=c;for=198.51.100.4",
        "=c;for=198.51.100.4",
    ] {
        assert_eq!(forwarded(PROXY, &[&format!("for=203.0.113.9, {invalid}")]), PROXY, "{invalid}");
    }
}

#[test]
fn text_that_a_proxy_quotes_is_not_an_entry() {
    for host in
        ["x, for=203.0.113.9", ", for=203.0.113.9;x=y", ", for=203.0.113.9;x=", ", for=203.0.113.9;x=\""]
    {
        let added = format!("for=198.51.100.4;host={}", in_quotes(host));
        assert_eq!(forwarded(PROXY, &[&added]), PROXY, "{added}");
    }
    let added = format!("for=198.51.100.4;host={}", in_quotes("x;for=203.0.113.9;x="));
    assert_eq!(forwarded(PROXY, &[&added]), PROXY, "{added}");
}

#[test]
fn accepts_all_forms_of_addresses() {
    for form in [
        "198.51.100.4",
        "198.51.100.4:8080",
        "198.51.100.4:_hidden",
        " 198.51.100.4\t",
        "::ffff:198.51.100.4",
        "[::ffff:198.51.100.4]:80",
    ] {
        assert_eq!(x_forwarded_for(PROXY, &[form]), "198.51.100.4", "{form}");
    }
    for form in
        ["2001:db8::1:2:3:4", "[2001:db8::1:2:3:4]", "[2001:db8::5:6:7:8]:443", "[2001:db8::1]:_a.b-c_"]
    {
        assert_eq!(x_forwarded_for(PROXY, &[form]), "2001:db8::", "{form}");
        assert_eq!(forwarded(PROXY, &[&format!("for=\"{form}\";by=_x")]), "2001:db8::", "{form}");
    }
    assert_eq!(x_forwarded_for("::ffff:10.0.0.1", &["198.51.100.4"]), "198.51.100.4");
}

#[test]
fn empty_pairs_are_ignored() {
    for entry in ["for=198.51.100.4;", ";for=198.51.100.4", "proto=https; ;for=198.51.100.4"] {
        assert_eq!(forwarded(PROXY, &[entry]), "198.51.100.4", "{entry}");
    }
}

/// Intermediaries that join lines leave empty elements, and RFC 9110 section 5.6.1.2 requires recipients to ignore them.
#[test]
fn empty_elements_of_forwarded_are_ignored() {
    for lines in [
        &["for=198.51.100.4,"][..],
        &[",for=198.51.100.4"],
        &["for=203.0.113.9, , for=198.51.100.4 ,\t, ,"],
        &["for=198.51.100.4", ""],
        &["for=203.0.113.9", "for=198.51.100.4, ", "", " ,for=10.9.9.9"],
    ] {
        assert_eq!(forwarded(PROXY, lines), "198.51.100.4", "{lines:?}");
    }
    assert_eq!(forwarded(PROXY, &[" , ,"]), PROXY, "nothing is reported");
    // An address that a proxy does not know is `unknown`, and not an empty element.
    assert_eq!(forwarded(PROXY, &["for=203.0.113.9, for=unknown,"]), PROXY);
    // In the header without a standard, the entry at the right end is the proxy's, also if it is empty.
    assert_eq!(x_forwarded_for(PROXY, &["203.0.113.9, "]), PROXY);
}

#[test]
fn only_the_chosen_header_is_read() {
    assert_eq!(find("x-forwarded-for", PROXY, &[]), PROXY);
    let mut request = Request::new(());
    request.extensions_mut().insert(PROXY.parse::<IpAddr>().unwrap());
    request.headers_mut().insert("forwarded", HeaderValue::from_static("for=198.51.100.4"));
    assert_eq!(trusting().find(RequestHead::of(&request)), Some(PROXY.parse().unwrap()));
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("198.51.100.5"));
    assert_eq!(trusting().with_forwarded().find(RequestHead::of(&request)), Some([198, 51, 100, 4].into()));
}

#[test]
fn ipv6_addresses_of_one_prefix_are_one_client() {
    let masked = |bits: u8| {
        let address =
            ClientAddress::of_peer(|_| "2001:db8:1:ff02:3:4:5:7".parse().ok()).with_ipv6_prefix(bits);
        address.find(RequestHead::of(&Request::new(()))).unwrap().to_string()
    };
    assert_eq!(masked(64), "2001:db8:1:ff02::");
    assert_eq!(masked(56), "2001:db8:1:ff00::");
    assert_eq!(masked(128), "2001:db8:1:ff02:3:4:5:7");
    assert_eq!(masked(255), "2001:db8:1:ff02:3:4:5:7");
    assert_eq!(masked(127), "2001:db8:1:ff02:3:4:5:6");
    assert_eq!(masked(0), "::");
    assert_eq!(x_forwarded_for(PROXY, &["2001:db8:1:ff02:3:4:5:7"]), "2001:db8:1:ff02::", "64 by default");
}

#[test]
fn without_a_peer_there_is_no_client_address() {
    let mut request = Request::new(());
    request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("198.51.100.4"));
    assert_eq!(trusting().find(RequestHead::of(&request)), None);
}

#[test]
fn an_invalid_proxy_is_an_error_that_shows_valid_ones() {
    let bad =
        |text: &str| ClientAddress::of_peer(|_| None).with_trusted_proxies([text]).unwrap_err().to_string();
    for text in ["", "localhost", "10.0.0.0/33", "10.0.0", "::ffff:0.0.0.0/90"] {
        let error = bad(text);
        assert!(error.contains(&format!("\"{text}\"")) && error.contains("10.0.0.0/8"), "{error}");
    }
    let mapped = ClientAddress::of_peer(|_| None)
        .with_trusted_proxies(["::ffff:10.0.0.0/104", " 192.0.2.1 ", "::ffff:192.0.2.7"])
        .unwrap();
    assert!(mapped.trusts([192, 0, 2, 7].into()));
    assert!(mapped.trusts([10, 200, 0, 1].into()) && mapped.trusts([192, 0, 2, 1].into()));
    assert!(!mapped.trusts([11, 0, 0, 1].into()) && !mapped.trusts([192, 0, 2, 2].into()));
}

#[test]
fn debug_shows_the_settings() {
    let shown = format!("{:?}", trusting().with_forwarded().with_ipv6_prefix(56));
    assert!(
        ["10.0.0.0/8", "2001:db8:aaaa::/48", "Forwarded", "56"].iter().all(|setting| shown.contains(setting)),
        "{shown}"
    );
}

/// Whether an address is one of the proxies, by its text.
fn is_proxy(address: &str) -> bool {
    address.starts_with("10.")
}

fn hop() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_u8..3).prop_map(|last| format!("10.0.0.{last}")),
        (0_u8..3).prop_map(|last| format!("198.51.100.{last}")),
        Just("unknown".to_owned()),
    ]
}

/// Bytes that a client may send in a header line.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => prop::sample::select(b"\\\",;= \tfor1.[]:".to_vec()), 1 => 32_u8..=255];
    prop::collection::vec(byte.prop_filter("no header holds it", |byte| *byte != 127), 0..30)
}

/// Text of a client that a proxy may quote, such as its `Host`: mostly parts of entries with another address.
fn quoted() -> impl Strategy<Value = String> {
    let entry = prop::sample::select(vec![", for=203.0.113.9", ";for=203.0.113.9", ";x=", ";x"]);
    let sign = prop::sample::select(vec![",", ";", "=", "\"", "\\", " ", "a"]);
    prop::collection::vec(prop_oneof![2 => entry, 1 => sign], 0..7).prop_map(|pieces| pieces.concat())
}

/// RFC 9110 section 5.6.4.
fn in_quotes(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    /// The model: the hops in the order the request took them, each reported by the next proxy.
    #[test]
    fn agrees_with_a_walk_over_the_hops(hops in prop::collection::vec(hop(), 0..6), is_split in any::<bool>()) {
        let mut expected = PROXY.to_owned();
        for hop in hops.iter().rev() {
            if !is_proxy(&expected) || hop == "unknown" {
                break;
            }
            expected.clone_from(hop);
        }
        let entries: Vec<_> = hops.iter().map(|hop| format!("for={hop};proto=http")).collect();
        let (plain, tagged) = if is_split {
            (hops.clone(), entries)
        } else {
            (vec![hops.join(", ")], vec![entries.join(",")])
        };
        let plain: Vec<_> = plain.iter().map(String::as_str).collect();
        let tagged: Vec<_> = tagged.iter().map(String::as_str).collect();
        prop_assert_eq!(x_forwarded_for(PROXY, &plain), expected.clone());
        prop_assert_eq!(forwarded(PROXY, &tagged), expected);
    }

    /// Anything that a client writes before the proxy's entry, in the same line or in an earlier one.
    #[test]
    fn text_from_the_client_does_not_change_the_entry_of_a_proxy(
        written in junk(),
        is_another_line in any::<bool>(),
    ) {
        let adds = [
            ("x-forwarded-for", "198.51.100.4"),
            ("forwarded", "for=198.51.100.4"),
            ("forwarded", "for=\"198.51.100.4:80\""),
            ("forwarded", "for=198.51.100.4;host=\"example.org:80\";by=_edge"),
        ];
        for (header, added) in adds {
            let line = [&written[..], b", ", added.as_bytes()].concat();
            let lines: Vec<&[u8]> = if is_another_line { vec![&written, added.as_bytes()] } else { vec![&line] };
            prop_assert_eq!(find(header, PROXY, &lines), "198.51.100.4");
        }
    }

    /// A proxy may include text of the client as a quoted string. This may make its entry unreadable, but must never make it name
    /// another address.
    #[test]
    fn quoted_text_from_the_client_never_names_another_address(quoted in quoted()) {
        let host = format!("host={}", in_quotes(&quoted));
        for added in [
            format!("for=198.51.100.4;{host}"),
            format!("{host};for=198.51.100.4"),
            format!("proto=http;{host};by=_edge;for=\"198.51.100.4:80\""),
            format!("for=198.51.100.4;{host};proto=http"),
        ] {
            let found = forwarded(PROXY, &[&added]);
            prop_assert!(found == "198.51.100.4" || found == PROXY, "{found}: {added}");
        }
    }

    #[test]
    fn no_line_panics(lines in prop::collection::vec(junk(), 0..4)) {
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        for header in ["x-forwarded-for", "forwarded"] {
            find(header, PROXY, &lines);
        }
    }
}
