//! The names of keys in Redis.

use std::fmt::{self, Write as _};

use tollgate_core::limit::Charge;

/// The key of a record: `tollgate:{acme}:key:ada`, from the prefix, the group, the policy and the subject.
///
/// The group is the hash tag, so a cluster keeps all records of a group on one server. The policy and the group are escaped, so that
/// each combination has a key of its own; a subject needs no escape at the end.
pub(crate) fn key_name(prefix: &str, charge: &Charge<'_>) -> String {
    let (policy, subject, group) = (charge.policy.as_str(), charge.subject, charge.group);
    let mut name = String::with_capacity(prefix.len() + policy.len() + subject.len() + group.len() + 8);
    // Writing to a string cannot fail.
    let _ = write!(name, "{prefix}:{}:{}:{subject}", HashTag(group), Escaped(policy));
    name
}

/// What all keys of a group begin with.
pub(crate) struct HashTag<'n>(pub(crate) &'n str);

impl fmt::Display for HashTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Redis ignores an empty tag.
        if self.0.is_empty() { f.write_str("{%}") } else { write!(f, "{{{}}}", Escaped(self.0)) }
    }
}

/// What a key names: see [`key_name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyName {
    pub(crate) group: Box<str>,
    pub(crate) policy: Box<str>,
    pub(crate) subject: Box<str>,
}

impl KeyName {
    /// `None` if it is not the key of a record under this prefix.
    pub(crate) fn read(prefix: &str, key: &str) -> Option<Self> {
        let (tag, rest) = key.strip_prefix(prefix)?.strip_prefix(":{")?.split_once("}:")?;
        let (policy, subject) = rest.split_once(':')?;
        let group = if tag == "%" { String::new() } else { unescaped(tag)? };
        Some(Self { group: group.into(), policy: unescaped(policy)?.into(), subject: subject.into() })
    }
}

/// A pattern of `SCAN` for the keys of a group, a policy and a subject; `None` is any.
pub(crate) fn key_pattern(
    prefix: &str,
    group: Option<&str>,
    policy: Option<&str>,
    subject: Option<&str>,
) -> String {
    let any = || "*".to_owned();
    let group = group.map_or_else(|| "{*}".to_owned(), |group| literal(&HashTag(group).to_string()));
    let policy = policy.map_or_else(any, |policy| literal(&Escaped(policy).to_string()));
    let subject = subject.map_or_else(any, literal);
    format!("{}:{group}:{policy}:{subject}", literal(prefix))
}

/// The pattern that matches this text only.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// The text that was escaped. `None` if [`Escaped`] does not write this.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut unescaped = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        unescaped.push(u8::from_str_radix(code, 16).ok()?.into());
        unescaped.push_str(rest);
    }
    Some(unescaped)
}

pub(crate) struct Escaped<'n>(pub(crate) &'n str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['%', ':', '{', '}']) {
            let (plain, escaped) = rest.split_at(at);
            let (byte, after) = escaped.split_at(1);
            f.write_str(plain)?;
            for byte in byte.bytes() {
                write!(f, "%{byte:02X}")?;
            }
            rest = after;
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::limit::{PolicyName, Quota};

    use super::*;

    fn name(policy: &str, subject: &str, group: &str) -> String {
        let quota = Quota::unlimited();
        key_name("tollgate", &Charge::new(PolicyName::interned(policy), subject, group, &quota))
    }

    #[test]
    fn a_name_can_be_read() {
        assert_eq!(name("key", "ada", "acme"), "tollgate:{acme}:key:ada");
        assert_eq!(
            name("by address", "2001:db8::1", "2001:db8::1"),
            "tollgate:{2001%3Adb8%3A%3A1}:by address:2001:db8::1"
        );
    }

    #[test]
    fn different_counters_have_different_names() {
        let all = [
            name("a", "b:c", "g"),
            name("a:b", "c", "g"),
            name("a", "c", "g:b"),
            name("a%3Ab", "c", "g"),
            name("a", "c", ""),
            name("a", "c", "%"),
            name("a", "", "c"),
            name("", "a", "c"),
            name("a", "}", "{"),
            name("a", "{", "}"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all.iter().skip(at + 1).any(|other| one == other), "{one}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for (policy, subject, group) in [
            ("key", "ada", "acme"),
            ("a:b", "c:{d}", "{x}%"),
            ("", "", ""),
            ("%3A", "%", "%"),
            ("by address", "2001:db8::1", "2001:db8::1"),
            ("ö", "\0kkey_1", "\0kkey_1"),
        ] {
            let read = KeyName::read("tollgate", &name(policy, subject, group));
            let written = KeyName { group: group.into(), policy: policy.into(), subject: subject.into() };
            assert_eq!(read, Some(written));
        }
        for key in [
            "",
            "tollgate",
            "tollgate:resets",
            "other:{acme}:key:ada",
            "tollgate:{acme}:ada",
            "tollgate:{%X}:a:b",
        ] {
            assert_eq!(KeyName::read("tollgate", key), None, "{key}");
        }
    }

    #[test]
    fn a_pattern_matches_no_more_than_its_names() {
        assert_eq!(key_pattern("tollgate", Some("acme"), None, None), "tollgate:{acme}:*:*");
        assert_eq!(key_pattern("tollgate", None, None, Some("ada")), "tollgate:{*}:*:ada");
        assert_eq!(key_pattern("a*", Some("x?"), Some("[k]:"), Some("\\")), "a\\*:{x\\?}:\\[k\\]%3A:\\\\");
    }

    #[test]
    fn all_keys_of_a_group_have_one_hash_tag() {
        for group in ["acme", "", "}", "{x}", "a}b", "ö"] {
            let tag = |name: String| {
                let from = name.find('{').unwrap() + 1;
                let to = name[from..].find('}').unwrap() + from;
                assert!(to > from, "{name}: an empty tag is none");
                name[from..to].to_owned()
            };
            assert_eq!(tag(name("a", "{b}", group)), tag(name("c{}", "d", group)));
        }
    }
}
