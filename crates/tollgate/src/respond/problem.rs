//! An RFC 9457 problem.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE, request};
use tollgate_core::{
    credits::{Settlement, Shortage},
    denial::{Denial, DenialKind},
    respond::Respond,
};

use crate::{RequestContext, request::RequestId};

/// Answers with an RFC 9457 problem: `application/problem+json` with `type`, `title`, `status`, `detail`, the stable `code`,
/// and the request's identifier as `request_id`. If the credits are used up, `balance` and `needed` tell how many the account has, and
/// how many the request needs.
///
/// The `type` is `about:blank`, whose title is the status phrase (section 4.2.1). Rate limits have a registered type.
/// [`with_type_base`](Self::with_type_base) sets a page of your own for each code.
///
/// ```
/// use tollgate::{CredentialLayer, respond::Problem};
///
/// let layer = CredentialLayer::new()
///     .with_responder(Problem::new().with_type_base("https://docs.example.com/errors/"));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Problem {
    type_base: Option<&'static str>,
}

/// Registered by draft-ietf-httpapi-ratelimit-headers.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The media type of a problem.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    /// Problems with the type `about:blank`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the type to `type_base` followed by the denial's code.
    pub fn with_type_base(mut self, type_base: &'static str) -> Self {
        self.type_base = Some(type_base);
        self
    }
}

impl Respond for Problem {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let request_id = RequestContext::of(&request.extensions).and_then(RequestContext::request_id);
        let plain = if self.type_base.is_none() { Frame::plain(denial) } else { None };
        let body = match plain {
            Some(frame) => frame.around(request_id),
            None => Frame::new(self.type_base, denial).around(request_id),
        };
        let mut response = Response::new(body);
        *response.status_mut() = denial.status();
        response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
        response
    }
}

/// A problem without the request's identifier, the only member that differs between two refusals with the same reason.
struct Frame {
    text: Vec<u8>,
    // The position at which the identifier is inserted.
    place: usize,
}

impl Frame {
    fn new(type_base: Option<&str>, denial: &Denial) -> Self {
        let mut text = Vec::with_capacity(256);
        text.push(b'{');
        let shortage = denial.shortage();
        if let Some(Shortage { available, .. }) = shortage {
            write_number(&mut text, r#""balance":"#, available);
            text.push(b',');
        }
        let settlement = denial.settlement();
        if let Some(Settlement { charged, .. }) = settlement {
            write_number(&mut text, r#""charged":"#, charged);
            text.push(b',');
        }
        text.extend_from_slice(br#""code":"#);
        write_text(&mut text, &[denial.code()]);
        text.extend_from_slice(br#","detail":"#);
        write_text(&mut text, &[denial.detail()]);
        if let Some(Shortage { needed, owed, .. }) = shortage {
            write_number(&mut text, r#","needed":"#, needed);
            if owed > 0 {
                write_number(&mut text, r#","owed":"#, owed);
            }
        }
        let place = text.len();
        if let Some(Settlement { id, .. }) = settlement {
            text.extend_from_slice(br#","reservation":"#);
            write_text(&mut text, &[&id.to_string()]);
        }

        let status = denial.status();
        text.extend_from_slice(br#","status":"#);
        text.extend_from_slice(status.as_str().as_bytes());
        if let Some(title) = status.canonical_reason() {
            text.extend_from_slice(br#","title":"#);
            write_text(&mut text, &[title]);
        }
        text.extend_from_slice(br#","type":"#);
        match (type_base, denial.kind()) {
            (Some(base), _) => write_text(&mut text, &[base, denial.code()]),
            (None, DenialKind::RateLimited) => write_text(&mut text, &[QUOTA_EXCEEDED]),
            (None, _) => write_text(&mut text, &["about:blank"]),
        }
        text.push(b'}');
        Self { text, place }
    }

    /// The cached frame of a denial that uses all defaults of its kind; otherwise `None`. Cached because refusals come in floods.
    fn plain(denial: &Denial) -> Option<&'static Self> {
        // More places than kinds. A kind without a place is not cached.
        static FRAMES: [OnceLock<Frame>; 32] = [const { OnceLock::new() }; 32];

        let kind = denial.kind();
        let is_plain = denial.status() == kind.status()
            && denial.code() == kind.code()
            && denial.detail() == kind.detail()
            && denial.shortage().is_none()
            && denial.settlement().is_none();
        let frame = FRAMES.get(kind as usize).filter(|_| is_plain)?;
        Some(frame.get_or_init(|| Self::new(None, denial)))
    }

    /// The complete problem, in one allocation of the exact size.
    fn around(&self, request_id: Option<&RequestId>) -> Bytes {
        const NAME: &[u8] = br#","request_id":""#;

        let Some(request_id) = request_id else { return Bytes::copy_from_slice(&self.text) };
        let request_id = request_id.as_bytes();
        let (before, after) = self.text.split_at_checked(self.place).unwrap_or_default();
        let mut problem = Vec::with_capacity(self.text.len() + NAME.len() + request_id.len() + 1);
        problem.extend_from_slice(before);
        problem.extend_from_slice(NAME);
        // Letters, digits, `.`, `_` and `-`: JSON does not escape them.
        problem.extend_from_slice(request_id);
        problem.push(b'"');
        problem.extend_from_slice(after);
        Bytes::from(problem)
    }
}

fn write_number(json: &mut Vec<u8>, name: &str, number: u64) {
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a text, given in parts. Few texts need escaping, and the check is cheap.
fn write_text(json: &mut Vec<u8>, parts: &[&str]) {
    if parts.iter().copied().any(needs_escape) {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(json, &parts.concat());
        return;
    }
    json.push(b'"');
    for part in parts {
        json.extend_from_slice(part.as_bytes());
    }
    json.push(b'"');
}

/// RFC 8259 section 7: quotation mark, backslash and control characters.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch")]
fn needs_escape(text: &str) -> bool {
    // No early exit, so that the compiler compares many bytes at once.
    text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;
    use serde_json::json;
    use tollgate_core::credits::ReservationId;

    use super::*;

    /// Texts with many quotation marks, backslashes, control characters and non-ASCII characters.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,40}",
            proptest::collection::vec(prop_oneof![Just('"'), Just('\\'), any::<char>()], 0..20)
                .prop_map(String::from_iter),
            proptest::collection::vec(proptest::char::range('\0', '\u{a0}'), 0..40)
                .prop_map(String::from_iter),
        ]
    }

    fn head_of_request(request_id: Option<&str>) -> request::Parts {
        let (mut head, ()) = http::Request::new(()).into_parts();
        if let Some(request_id) = request_id {
            let value = HeaderValue::from_str(request_id).unwrap();
            let mut context = RequestContext::take(&mut head.extensions);
            context.request_id = RequestId::from_caller(&value);
            context.put(&mut head.extensions);
        }
        head
    }

    proptest! {
        /// The model is a tree of values that `serde_json` writes.
        #[test]
        fn a_problem_equals_the_output_of_serde_json(
            (code, detail) in (text(), text()),
            status in 400_u16..600,
            request_id in proptest::option::of("[A-Za-z0-9._-]{1,128}"),
            type_base in proptest::option::of(text()),
        ) {
            let status = StatusCode::from_u16(status).unwrap();
            let denial = Denial::new(DenialKind::Forbidden)
                .with_status(status)
                .with_code(code.clone())
                .with_detail(detail.clone());
            let type_base: Option<&'static str> = type_base.map(|base| &*base.leak());
            let mut expected = json!({
                "code": code,
                "detail": detail,
                "status": status.as_u16(),
                "type": type_base.map_or("about:blank".to_owned(), |base| format!("{base}{code}")),
            });
            if let Some(title) = status.canonical_reason() {
                expected["title"] = title.into();
            }
            if let Some(request_id) = &request_id {
                expected["request_id"] = request_id.as_str().into();
            }
            let responder = Problem { type_base };
            let response = responder.respond(&denial, &mut head_of_request(request_id.as_deref()));
            let expected = expected.to_string();
            prop_assert_eq!(response.body(), expected.as_bytes());
        }

        /// The identifier is inserted without escaping.
        #[test]
        fn request_identifiers_need_no_escaping(sent in proptest::collection::vec(any::<u8>(), 0..64)) {
            let Ok(value) = HeaderValue::from_bytes(&sent) else { return Ok(()) };
            for request_id in [RequestId::from_caller(&value), RequestId::uuid_from_caller(&value)].into_iter().flatten() {
                prop_assert_eq!(json!(request_id.as_str()).to_string(), format!("\"{request_id}\""));
            }
        }
    }

    #[test]
    fn a_problem_of_used_up_credits_has_the_balance_and_what_is_needed() {
        let denial = Denial::credits_exhausted(Shortage::new(3, 5));
        let response = Problem::new().respond(&denial, &mut head_of_request(Some("r1")));
        let expected = json!({
            "balance": 3,
            "code": "insufficient_credits",
            "detail": "The credits are used up.",
            "needed": 5,
            "request_id": "r1",
            "status": 402,
            "title": "Payment Required",
            "type": "about:blank",
        });
        assert_eq!(response.body(), expected.to_string().as_bytes());
    }

    #[test]
    fn a_problem_shows_a_debt_and_the_settlement_of_a_repeated_request() {
        let members = |denial: &Denial| {
            let body = Problem::new().respond(denial, &mut head_of_request(Some("r1"))).into_body();
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body, problem.to_string().as_bytes(), "the members are sorted");
            ["balance", "needed", "owed", "charged", "reservation"].map(|name| problem[name].clone())
        };
        let denial = Denial::credits_exhausted(Shortage::new(0, 5).with_debt(7));
        assert_eq!(members(&denial), [json!(0), json!(5), json!(7), json!(null), json!(null)]);
        let denial = Denial::request_repeated(Settlement::new(ReservationId::from_number(17), 3, 0));
        let id = "res_00000000000000000000000000000011";
        assert_eq!(members(&denial), [json!(null), json!(null), json!(null), json!(3), json!(id)]);
    }

    #[test]
    fn the_cached_frame_is_used_only_for_denials_with_all_defaults() {
        let kind = DenialKind::Forbidden;
        let body = |denial: &Denial| Problem::new().respond(denial, &mut head_of_request(None)).into_body();
        let plain = body(&Denial::new(kind));
        let others = [
            Denial::new(kind).with_code("other"),
            Denial::new(kind).with_detail("Another."),
            Denial::new(kind).with_status(StatusCode::IM_A_TEAPOT),
        ];
        for denial in others {
            assert_ne!(body(&denial), plain);
            assert_eq!(body(&Denial::new(kind)), plain);
        }
        // Fields that callers do not see make no difference.
        assert_eq!(body(&Denial::new(kind).with_log_detail("for the log").with_grpc_code(3)), plain);
    }
}
