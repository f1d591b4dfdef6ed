use std::collections::HashSet;

use proptest::prelude::*;

use super::{ApiKey, KeyFormat, MalformedKey, base62};
use crate::key::Environment::{self, Live, Test};

const KEY: &str = "sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld";

fn sk() -> KeyFormat {
    KeyFormat::new("sk").unwrap()
}

fn formats() -> [KeyFormat; 6] {
    [
        sk(),
        KeyFormat::new("acme_v2_internal").unwrap().with_random_length(64).unwrap(),
        sk().without_environment().with_random_length(22).unwrap(),
        sk().without_checksum(),
        sk().without_checksum().without_environment(),
        KeyFormat::opaque(),
    ]
}

fn refusal(format: &KeyFormat, presented: &str) -> MalformedKey {
    format.parse(presented).unwrap_err()
}

// === generating ===

#[test]
fn a_generated_key_is_recognised_by_its_format() {
    for format in formats() {
        for environment in [Live, Test] {
            let key = format.generate(environment).unwrap();
            let parsed = format.parse(key.expose_secret()).unwrap();
            assert_eq!(parsed.environment(), format.spells_environment.then_some(environment), "{format:?}");
            assert_eq!(parsed.display_prefix(), key.display_prefix(), "{format:?}");
            assert_eq!(key.environment(), environment);
        }
    }
}

#[test]
fn a_generated_key_has_the_documented_shape() {
    // All base62 digits in order, then bytes that are dropped.
    let key = |format: &KeyFormat| {
        let in_order = |bytes: &mut [u8]| {
            bytes.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value);
            Ok(())
        };
        format.generate_from(Live, in_order).unwrap().expose_secret().to_owned()
    };
    assert_eq!(key(&sk()), KEY);
    assert_eq!(key(&sk().without_environment()), "sk_0123456789ABCDEFGHIJKLMNOP10z6pXC");
    assert_eq!(key(&sk().without_checksum()), "sk_live_0123456789ABCDEFGHIJKLMNOP");
    assert_eq!(key(&KeyFormat::opaque()), "0123456789ABCDEFGHIJKLMNOP");
    assert_eq!(
        key(&KeyFormat::opaque().with_random_length(62).unwrap()),
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    );
}

#[test]
fn a_default_key_fits_one_sha_256_block_with_any_prefix() {
    // A block has 64 bytes; the padding takes 9 of them.
    let key = KeyFormat::new("acme_v2_internal").unwrap().generate(Live).unwrap();
    assert_eq!(key.expose_secret().len(), 55);
}

#[test]
fn the_shortest_random_part_is_the_first_to_hold_128_bits() {
    assert!(62_u128.checked_pow(21).is_some());
    assert!(62_u128.checked_pow(22).is_none());
    for refused in [0, 21, 65, usize::MAX] {
        let error = sk().with_random_length(refused).unwrap_err();
        assert!(error.to_string().contains("22 to 64"), "{error}");
    }
    assert_eq!(
        sk().with_random_length(22).unwrap().generate(Live).unwrap().expose_secret().len(),
        8 + 22 + 7
    );
}

#[test]
fn drops_bytes_that_would_bias_the_characters() {
    let mut next = 240_u8;
    let counting = |bytes: &mut [u8]| {
        for byte in bytes {
            *byte = next;
            next = next.wrapping_add(1);
        }
        Ok(())
    };
    let key = KeyFormat::opaque().generate_from(Live, counting).unwrap();
    // 240 to 247 are the last eight digits, 248 to 255 are dropped, 0 is the first digit.
    assert!(key.expose_secret().starts_with("stuvwxyz0123"), "{}", key.expose_secret());
}

#[test]
fn keys_differ_and_their_characters_are_uniform() {
    const KEYS: usize = 20_000;
    let mut counts = [0_u32; 128];
    let mut seen = HashSet::new();
    for _ in 0..KEYS {
        let key = KeyFormat::opaque().generate(Live).unwrap();
        for byte in key.expose_secret().bytes() {
            counts[usize::from(byte)] += 1;
        }
        assert!(seen.insert(key.expose_secret().to_owned()), "a key came twice");
    }
    let expected = f64::from(u32::try_from(KEYS * 26).unwrap()) / 62.0;
    let chi_square: f64 = counts
        .iter()
        .enumerate()
        .filter(|(byte, _)| u8::try_from(*byte).unwrap().is_ascii_alphanumeric())
        .map(|(_, &count)| (f64::from(count) - expected).powi(2) / expected)
        .sum();
    // 61 degrees of freedom: 200 is 12 standard deviations above the mean. A plain `% 62` reaches about 3,400.
    assert!(chi_square < 200.0, "{chi_square}");
}

#[test]
fn generates_no_key_without_randomness() {
    let error = sk().generate_from(Live, |_| Err(getrandom::Error::UNSUPPORTED)).unwrap_err();
    assert!(error.to_string().starts_with("no key was generated"), "{error}");
}

// === the format itself ===

#[test]
fn accepts_only_prefixes_of_lower_case_words() {
    for accepted in ["s", "sk", "acme_v2", "a_1_b", "abcdefghijklmnop"] {
        assert!(KeyFormat::new(accepted).is_ok(), "{accepted:?}");
    }
    for refused in ["", "_", "sk_", "_sk", "s__k", "1k", "Sk", "sK", "s-k", "s k", "ské", "abcdefghijklmnopq"]
    {
        let error = KeyFormat::new(refused).unwrap_err();
        assert!(error.to_string().contains("1 to 16 characters"), "{refused:?}");
    }
}

#[test]
fn an_opaque_format_has_nothing_to_omit() {
    assert_eq!(KeyFormat::opaque().without_checksum().without_environment(), KeyFormat::opaque());
}

// === parsing ===

#[test]
fn refuses_with_the_reason() {
    let cases = [
        ("", MalformedKey::LENGTH),
        ("sk_live_", MalformedKey::LENGTH),
        (&*"x".repeat(1_000_000), MalformedKey::LENGTH),
        (&*format!("sk_live_{}", "a".repeat(21 + 7)), MalformedKey::LENGTH),
        (&*format!("sk_live_{}", "a".repeat(64 + 8)), MalformedKey::LENGTH),
        ("pk_live_0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::PREFIX),
        ("SK_live_0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::PREFIX),
        ("sk-live-0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::PREFIX),
        ("sk_prod_0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::ENVIRONMENT),
        ("sk_Live_0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::ENVIRONMENT),
        ("sk_live-0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::ENVIRONMENT),
        ("sk_live_0123456789ABCDEFGHIJKLMNO-12ANzld", MalformedKey::CHARACTER),
        ("sk_live_0123456789ABCDEFGHIJKLMNOé12ANzld", MalformedKey::CHARACTER),
        ("sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld\n", MalformedKey::CHARACTER),
        (" sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::PREFIX),
        ("sk_live_0123456789ABCDEFGHIJKLMNOP22ANzld", MalformedKey::VERSION),
        ("sk_live_0123456789ABCDEFGHIJKLMNPO12ANzld", MalformedKey::CHECKSUM),
        ("sk_test_0123456789ABCDEFGHIJKLMNOP12ANzld", MalformedKey::CHECKSUM),
        ("sk_live_0123456789ABCDEFGHIJKLMNOP12ANzle", MalformedKey::CHECKSUM),
    ];
    for (presented, expected) in cases {
        assert_eq!(refusal(&sk(), presented), expected, "{presented:.60}");
        assert!(expected.to_string().contains(expected.reason()));
    }
}

#[test]
fn recognises_keys_of_every_permitted_length() {
    let issued_before = sk().with_random_length(40).unwrap().generate(Live).unwrap();
    assert!(sk().parse(issued_before.expose_secret()).is_ok());
}

#[test]
fn a_format_without_environment_refuses_keys_with_one() {
    assert_eq!(refusal(&sk().without_environment(), KEY), MalformedKey::CHARACTER);
}

#[test]
fn a_published_contract_is_recognised_by_prefix_environment_and_characters() {
    let psk = KeyFormat::new("psk").unwrap().without_checksum();
    let op = KeyFormat::new("op").unwrap().without_checksum();
    let cases = [
        (&psk, "psk_live_8f3k29dkfj20", Live, "psk_live_8f3k"),
        (&psk, "psk_test_-_-_", Test, "psk_test_-_"),
        (&psk, "psk_test_x", Test, "psk_test_"),
        (&op, "op_live_your_key_here", Live, "op_live_your"),
    ];
    for (format, presented, environment, display_prefix) in cases {
        let parsed = format.parse(presented).unwrap();
        assert_eq!(parsed.environment(), Some(environment), "{presented}");
        assert_eq!(parsed.display_prefix(), display_prefix);
    }

    assert_eq!(refusal(&psk, "psk_live_"), MalformedKey::LENGTH);
    assert_eq!(refusal(&psk, "op_live_your_key_here"), MalformedKey::PREFIX);
    assert_eq!(refusal(&psk, "psk_prod_abcdefgh"), MalformedKey::ENVIRONMENT);
    assert_eq!(refusal(&psk, "psk_live_abcd.efgh"), MalformedKey::CHARACTER);
    assert!(psk.parse(&format!("psk_live_{}", "a".repeat(191))).is_ok());
    assert_eq!(refusal(&psk, &format!("psk_live_{}", "a".repeat(192))), MalformedKey::LENGTH);
    assert_eq!(refusal(&op.without_environment(), "op_abcd"), MalformedKey::LENGTH);
}

#[test]
fn an_opaque_key_is_visible_ascii() {
    let opaque = KeyFormat::opaque();
    let parsed = opaque.parse("!a{~\"b/=").unwrap();
    assert_eq!((parsed.environment(), parsed.display_prefix()), (None, "!a{~"));

    assert!(opaque.parse(&"a".repeat(512)).is_ok());
    assert_eq!(refusal(&opaque, &"a".repeat(513)), MalformedKey::LENGTH);
    assert_eq!(refusal(&opaque, "1234567"), MalformedKey::LENGTH);
    for refused in ["1234 5678", "12345678\t", "12345678\u{7f}", "12345678é"] {
        assert_eq!(refusal(&opaque, refused), MalformedKey::CHARACTER, "{refused:?}");
    }
}

#[test]
fn debug_shows_only_the_display_prefix() {
    let parsed = format!("{:?}", sk().parse(KEY).unwrap());
    assert_eq!(parsed, "ParsedKey { environment: Some(Live), display_prefix: \"sk_live_0123\" }");

    let error = refusal(&sk(), "sk_live_0123456789ABCDEFGHIJKLMNOP12ANzle");
    assert!(!format!("{error:?} {error}").contains("0123"));
}

// === the checksum ===

#[test]
fn a_small_checksum_also_has_six_digits() {
    // Computed with Python's zlib.
    assert_eq!(checksum(""), "000000");
    assert_eq!(checksum("123456789"), "3jZRME");
}

#[test]
fn a_checksum_beyond_32_bits_is_refused() {
    // The correct checksum plus 2^32: the lower 32 bits are equal.
    assert_eq!(naive_base62("2ANzld").map(|number| number + (1 << 32)), naive_base62("6r3Exh"));
    assert_eq!(refusal(&sk(), "sk_live_0123456789ABCDEFGHIJKLMNOP16r3Exh"), MalformedKey::CHECKSUM);
}

/// The checksum that follows `covered`.
fn checksum(covered: &str) -> String {
    base62::digits(crc32fast::hash(covered.as_bytes())).map(char::from).iter().collect()
}

/// The definition, bit by bit.
fn naive_crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// Reads base62 back to a number.
fn naive_base62(digits: &str) -> Option<u64> {
    let alphabet: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    digits.chars().try_fold(0, |number: u64, digit| {
        let value = alphabet.iter().position(|known| *known == digit)?;
        number.checked_mul(62)?.checked_add(u64::try_from(value).ok()?)
    })
}

/// The rules of the default format, character by character.
fn naive_parse(presented: &str) -> Option<Environment> {
    let words: Vec<&str> = presented.split('_').collect();
    let &["sk", environment, body] = words.as_slice() else { return None };
    let environment = match environment {
        "live" => Live,
        "test" => Test,
        _ => return None,
    };
    let body: Vec<char> = body.chars().collect();
    let is_right = (29..=71).contains(&body.len())
        && body.iter().all(char::is_ascii_alphanumeric)
        && body[body.len() - 7] == '1'
        && naive_base62(&body[body.len() - 6..].iter().collect::<String>())?
            == u64::from(naive_crc32(&presented.as_bytes()[..presented.len() - 6]));
    is_right.then_some(environment)
}

/// A key generated from given bytes, reduced to values below 248.
fn key_from(random: [u8; 32]) -> ApiKey {
    let repeat = |bytes: &mut [u8]| {
        bytes.iter_mut().zip(random.iter().cycle()).for_each(|(byte, random)| *byte = random % 248);
        Ok(())
    };
    sk().generate_from(Live, repeat).unwrap()
}

/// Keys that are valid, or have one error.
fn nearly_keys() -> impl Strategy<Value = String> {
    ("(sk|sk|sk|pk)_(live|test|live|prod)_", "[0-9A-Za-z]{21,65}", "[11112]", 0..4_u8, "[0-9A-Za-z]{6}")
        .prop_map(|(head, random, version, wrong, six)| {
            let covered = format!("{head}{random}{version}");
            let right = checksum(&covered);
            covered + if wrong == 0 { &six } else { &right }
        })
}

proptest! {
    #[test]
    fn the_checksum_is_the_crc_32_in_base62(covered in ".*") {
        let digits = checksum(&covered);
        prop_assert_eq!(naive_base62(&digits), Some(u64::from(naive_crc32(covered.as_bytes()))));
    }

    #[test]
    fn parsing_agrees_with_a_naive_model(presented in prop_oneof![nearly_keys(), ".*", "sk_live_.{29,71}"]) {
        let parsed = sk().parse(&presented);
        prop_assert_eq!(parsed.ok().map(|key| key.environment().unwrap()), naive_parse(&presented));
    }

    #[test]
    fn text_and_bytes_are_parsed_alike(presented in prop_oneof![nearly_keys(), ".*"]) {
        for format in formats() {
            let (text, bytes) = (format.parse(&presented), format.parse(presented.as_bytes()));
            prop_assert_eq!(format!("{text:?}"), format!("{bytes:?}"));
        }
    }

    /// At every position, including where the 16-byte chunks overlap.
    #[test]
    fn an_invalid_byte_is_refused_at_every_position(length in 8..200_usize, at in any::<prop::sample::Index>(), byte: u8) {
        let mut presented = vec![b'a'; length];
        presented[at.index(length)] = byte;
        prop_assert_eq!(KeyFormat::opaque().parse(&presented).is_ok(), (b'!'..=b'~').contains(&byte));
        let published = KeyFormat::new("psk").unwrap().without_environment().without_checksum();
        presented.splice(..0, *b"psk_");
        prop_assume!(presented.len() <= 200);
        let is_allowed = char::from(byte).is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        prop_assert_eq!(published.parse(&presented).is_ok(), is_allowed);
    }

    #[test]
    fn a_single_wrong_character_is_detected(
        random: [u8; 32],
        at in any::<prop::sample::Index>(),
        wrong in prop_oneof![prop::char::range('0', 'z'), any::<char>()],
    ) {
        let key = key_from(random);
        let mut characters: Vec<char> = key.expose_secret().chars().collect();
        let at = at.index(characters.len());
        prop_assume!(characters[at] != wrong);
        characters[at] = wrong;
        prop_assert!(sk().parse(&characters.iter().collect::<String>()).is_err());
    }

    #[test]
    fn two_swapped_characters_are_detected(random: [u8; 32], at in 0..40_usize) {
        let key = key_from(random);
        let mut bytes = key.expose_secret().as_bytes().to_vec();
        prop_assume!(bytes[at] != bytes[at + 1]);
        bytes.swap(at, at + 1);
        prop_assert!(sk().parse(std::str::from_utf8(&bytes).unwrap()).is_err());
    }

    #[test]
    fn never_panics_and_shows_at_most_half_of_the_body(
        presented in prop_oneof![".*", "sk_live_\\PC{0,90}", "sk_(live_)?[0-9A-Za-z_-]{0,12}", "[!-~]{6,12}", nearly_keys()],
    ) {
        for format in formats() {
            if let Ok(parsed) = format.parse(&presented) {
                prop_assert!(presented.starts_with(parsed.display_prefix()));
                let head = format.prefix.len() + parsed.environment().map_or(0, |_| "live_".len());
                let shown = parsed.display_prefix().len() - head;
                prop_assert!(shown <= 4 && shown * 2 <= presented.len() - head, "{parsed:?}");
            }
        }
    }
}
