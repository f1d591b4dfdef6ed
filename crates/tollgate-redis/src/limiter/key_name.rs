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
    use tollgate_core::limit::Quota;

    use super::*;

    fn name(policy: &'static str, subject: &str, group: &str) -> String {
        let quota = Quota::unlimited();
        key_name("tollgate", &Charge::new(policy, subject, group, &quota))
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
