//! Names of policies.

use std::{
    collections::HashSet,
    fmt,
    ops::Deref,
    sync::{LazyLock, Mutex, PoisonError},
};

/// The name of a policy: part of the identity of its counters, and shown in decisions, logs and `RateLimit` headers.
///
/// A copy costs nothing. A name that is known at compile time is used as it is. A name from a configuration file is *interned*:
/// the first use of each distinct name is kept until the process ends, so memory is bounded by the number of distinct names.
/// Never make a policy's name of something that a caller sends.
///
/// ```
/// use tollgate_core::limit::PolicyName;
///
/// let configured = String::from("organization");
/// assert_eq!(PolicyName::interned(&configured), PolicyName::new("organization"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(&'static str);

impl PolicyName {
    /// A name that is known at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// A name that is known at run time only: interned.
    pub fn interned(name: &str) -> Self {
        static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Self(known);
        }
        let kept: &'static str = String::from(name).leak();
        names.insert(kept);
        Self(kept)
    }

    /// The name's text.
    #[inline]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether both are one text in memory: quicker than a comparison of the texts. Equal names may differ in this.
    #[inline]
    pub(crate) fn is_same_text(self, other: Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl From<&'static str> for PolicyName {
    fn from(name: &'static str) -> Self {
        Self(name)
    }
}

impl Deref for PolicyName {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.0
    }
}

impl PartialEq<str> for PolicyName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for PolicyName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_each_distinct_name_once() {
        let (one, two) = (PolicyName::interned("key"), PolicyName::interned(&["k", "ey"].concat()));
        assert_eq!(one, two);
        assert!(std::ptr::eq(one.as_str(), two.as_str()));
        assert_eq!(one, PolicyName::new("key"));
        assert_ne!(one, PolicyName::interned("tenant"));
    }
}
