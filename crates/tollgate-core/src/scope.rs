//! Scopes: the permissions granted to a principal, and how a granted scope covers a required one.
//!
//! A [`Requirement`] is an expression over scopes that a request must hold.

mod requirement;

pub use requirement::{Requirement, scope};

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

use crate::bounds::MAX_SCOPE_BYTES;

/// The name of a permission, such as `jobs:read`.
///
/// The syntax is the `scope-token` of RFC 6749, section 3.3: printable ASCII without space, `"` and `\`;
/// case-sensitive. In addition a scope has at most [`Scope::MAX_LENGTH`] bytes. It can be used in a quoted header
/// parameter without escaping.
///
/// ```
/// # use tollgate_core::scope::Scope;
/// let scope = Scope::new("jobs:read")?;
/// assert_eq!(scope.as_str(), "jobs:read");
///
/// assert!(Scope::new("jobs read").is_err());
/// # Ok::<(), tollgate_core::scope::InvalidScope>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Cow<'static, str>);

impl Scope {
    /// The maximum length of a scope in bytes.
    pub const MAX_LENGTH: usize = MAX_SCOPE_BYTES;

    /// Creates a scope. A string literal is stored without an allocation.
    ///
    /// # Errors
    /// [`InvalidScope`] if the name is empty, too long, or contains a character that is not allowed.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidScope> {
        let name = name.into();
        match check(&name) {
            Ok(()) => Ok(Self(name)),
            Err(fault) => Err(InvalidScope::new(&name, fault)),
        }
    }

    /// The scope's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this scope, as a grant, is a wildcard: see the table [below](Scopes#wildcards).
    pub fn is_wildcard(&self) -> bool {
        self.wildcard_prefix().is_some()
    }

    /// Whether this scope, as a grant, covers `required`, which is literal.
    fn covers(&self, required: &str) -> bool {
        match self.wildcard_prefix() {
            Some(prefix) => required.len() > prefix.len() && required.starts_with(prefix),
            None => self.as_str() == required,
        }
    }

    /// The part before the `*` of a wildcard; `None` for a literal scope.
    fn wildcard_prefix(&self) -> Option<&str> {
        let prefix = self.as_str().strip_suffix('*')?;
        (prefix.is_empty() || prefix.ends_with([':', '.', '/'])).then_some(prefix)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(name: &str) -> Result<Self, InvalidScope> {
        Self::new(name.to_owned())
    }
}

/// The set of scopes granted to a principal.
///
/// ```
/// # use tollgate_core::scope::Scopes;
/// let granted = Scopes::new(["reports", "jobs:*"])?;
/// assert!(granted.grants("reports"));
/// assert!(granted.grants("jobs:read"));
/// assert!(!granted.grants("billing"));
///
/// // The form used in a database column or in a token's `scope` claim.
/// let granted: Scopes = "reports jobs:*".parse()?;
/// assert_eq!(granted.to_string(), "jobs:* reports");
/// # Ok::<(), tollgate_core::scope::InvalidScope>(())
/// ```
///
/// # Wildcards
/// A `*` in a *granted* scope is a wildcard if it is the whole scope, or if it is the last character
/// and follows `:`, `.` or `/`. Anywhere else it is an ordinary character. A *required* scope is always literal.
///
/// | granted | grants | does not grant |
/// |---|---|---|
/// | `jobs` | `jobs` | `jobs:read`, `Jobs` |
/// | `jobs:*` | `jobs:read`, `jobs:read:own`, `jobs:*` | `jobs`, `jobs:`, `jobs.read`, `*` |
/// | `jobs.*` | `jobs.read`, `jobs.*` | `jobs`, `jobs.`, `jobs:read` |
/// | `/v1/*` | `/v1/jobs`, `/v1/*` | `/v1`, `/v1/`, `/v2/jobs` |
/// | `*` | every scope | |
/// | `jobs*` | `jobs*` | `jobs`, `jobs:read` |
/// | `*:read` | `*:read` | `jobs:read` |
/// | `jobs:**` | `jobs:**` | `jobs:read`, `jobs:*` |
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes {
    /// Sorted, without duplicates. A principal has few scopes, so a linear scan is faster than an index.
    sorted: Vec<Scope>,
}

impl Scopes {
    /// The scopes with these names. Order and duplicates do not matter.
    ///
    /// # Errors
    /// [`InvalidScope`] for the first invalid name.
    pub fn new(names: impl IntoIterator<Item: Into<Cow<'static, str>>>) -> Result<Self, InvalidScope> {
        names.into_iter().map(Scope::new).collect()
    }

    /// No scopes: grants nothing. The default.
    pub fn none() -> Self {
        Self::default()
    }

    /// The wildcard `*`: grants every scope.
    pub fn all() -> Self {
        Self { sorted: vec![Scope(Cow::Borrowed("*"))] }
    }

    /// Whether this scope is granted, literally or by a wildcard (see the table [above](Self#wildcards)).
    /// Does not allocate.
    ///
    /// A name that is not a valid scope is never granted, not even by `*`.
    #[must_use]
    pub fn grants(&self, name: &str) -> bool {
        check(name).is_ok() && self.covers(name)
    }

    /// [`grants`](Self::grants) for a valid name.
    fn covers(&self, name: &str) -> bool {
        self.sorted.iter().any(|granted| granted.covers(name))
    }

    /// The granted scopes, wildcards included, in byte order.
    pub fn iter(&self) -> std::slice::Iter<'_, Scope> {
        self.sorted.iter()
    }

    /// The number of distinct granted scopes. A wildcard counts as one.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether no scope is granted.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut sorted = Vec::from_iter(scopes);
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted }
    }
}

impl<'a> IntoIterator for &'a Scopes {
    type Item = &'a Scope;
    type IntoIter = std::slice::Iter<'a, Scope>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Parses the space-separated form of RFC 6749, section 3.3.
///
/// More lenient than the RFC: the empty string is the empty set, and spaces may be repeated, leading or trailing.
/// None of these can widen a grant. Other white space is an error, and one invalid scope makes the whole list invalid.
impl FromStr for Scopes {
    type Err = InvalidScope;

    fn from_str(list: &str) -> Result<Self, InvalidScope> {
        list.split(' ').filter(|name| !name.is_empty()).map(Scope::from_str).collect()
    }
}

/// The space-separated form of RFC 6749, section 3.3, which [`FromStr`] parses.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.sorted.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{scope}")?;
        }
        Ok(())
    }
}

/// The name is not a valid [`Scope`]. The message contains the name and the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidScope {
    /// The name, truncated if it is too long.
    name: String,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong {
        bytes: usize,
    },
    Character {
        found: char,
        /// Starts at 1. All characters before it are ASCII, so this is also the byte position.
        position: usize,
    },
}

impl InvalidScope {
    fn new(name: &str, fault: Fault) -> Self {
        Self { name: name.chars().take(Scope::MAX_LENGTH).collect(), fault }
    }
}

impl fmt::Display for InvalidScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, most) = (&self.name, Scope::MAX_LENGTH);
        match self.fault {
            Fault::Empty => f.write_str("the scope is empty; use at least one character"),
            Fault::TooLong { bytes } => {
                write!(
                    f,
                    "the scope that begins with {name:?} has {bytes} bytes; shorten it to at most {most}"
                )
            }
            Fault::Character { found, position } => write!(
                f,
                "the scope {name:?} has {found:?} as character {position}; \
                 use printable ASCII without space, '\"' and '\\'"
            ),
        }
    }
}

impl Error for InvalidScope {}

/// `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`, RFC 6749, section 3.3, and the maximum length.
fn check(name: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(Fault::Empty);
    }
    if name.len() > Scope::MAX_LENGTH {
        return Err(Fault::TooLong { bytes: name.len() });
    }
    let is_allowed = |character| matches!(character, '\x21' | '\x23'..='\x5B' | '\x5D'..='\x7E');
    match (1..).zip(name.chars()).find(|&(_, character)| !is_allowed(character)) {
        Some((position, found)) => Err(Fault::Character { found, position }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn message(name: &'static str) -> String {
        Scope::new(name).unwrap_err().to_string()
    }

    #[test]
    fn reports_the_scope_and_the_wrong_character() {
        assert_eq!(
            message("jobs read"),
            r#"the scope "jobs read" has ' ' as character 5; use printable ASCII without space, '"' and '\'"#
        );
        assert!(message("é").starts_with("the scope \"é\" has 'é' as character 1;"));
        assert!(message("a\n").starts_with(r#"the scope "a\n" has '\n' as character 2;"#));
        assert_eq!(message(""), "the scope is empty; use at least one character");
    }

    #[test]
    fn a_scope_has_at_most_128_bytes() {
        assert!(Scope::new("s".repeat(128)).is_ok());
        let message = Scope::new("s".repeat(100_000)).unwrap_err().to_string();
        assert!(message.ends_with("has 100000 bytes; shorten it to at most 128"));
        assert!(message.len() < 300, "the message must not grow with the name");
    }

    #[test]
    fn a_literal_is_not_copied() {
        assert!(matches!(Scope::new("read").unwrap(), Scope(Cow::Borrowed("read"))));
    }

    /// The table in the documentation of [`Scopes`], row by row.
    #[test]
    fn wildcards_grant_what_the_table_says() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("jobs", &["jobs"], &["jobs:read", "Jobs"]),
            ("jobs:*", &["jobs:read", "jobs:read:own", "jobs:*"], &["jobs", "jobs:", "jobs.read", "*"]),
            ("jobs.*", &["jobs.read", "jobs.*"], &["jobs", "jobs.", "jobs:read"]),
            ("/v1/*", &["/v1/jobs", "/v1/*"], &["/v1", "/v1/", "/v2/jobs"]),
            ("*", &["jobs", "jobs:", "jobs:*", "*"], &[]),
            ("jobs*", &["jobs*"], &["jobs", "jobs:read"]),
            ("*:read", &["*:read"], &["jobs:read"]),
            ("jobs:**", &["jobs:**"], &["jobs:read", "jobs:*"]),
        ];
        for (granted, grants, denies) in table {
            let scopes: Scopes = granted.parse().unwrap();
            for name in grants {
                assert!(scopes.grants(name), "{granted} must grant {name}");
            }
            for name in denies {
                assert!(!scopes.grants(name), "{granted} must not grant {name}");
            }
        }
    }

    #[test]
    fn no_wildcard_grants_an_invalid_name() {
        let too_long = format!("jobs:{}", "s".repeat(128));
        for name in ["", "jobs:a b", "jobs:\"", "jobs:é", &too_long] {
            assert!(!Scopes::all().grants(name), "{name:?}");
            assert!(!Scopes::new(["jobs:*"]).unwrap().grants(name), "{name:?}");
        }
    }

    #[test]
    fn an_empty_set_grants_nothing() {
        assert!(Scopes::none().is_empty());
        assert!(!Scopes::none().grants("jobs"));
        assert!(!Scopes::none().grants("*"));
    }

    #[test]
    fn a_set_is_sorted_and_holds_each_scope_once() {
        let scopes = Scopes::new(["write", "read", "write", "admin"]).unwrap();
        assert_eq!(scopes.iter().map(Scope::as_str).collect::<Vec<_>>(), ["admin", "read", "write"]);
        assert_eq!(scopes.len(), 3);
        assert_eq!(scopes, "write admin read".parse().unwrap());
    }

    #[test]
    fn parsing_tolerates_only_spaces() {
        assert_eq!("".parse(), Ok(Scopes::none()));
        assert_eq!("  read   write ".parse::<Scopes>(), Scopes::new(["read", "write"]));
        for list in ["read\twrite", "read\nwrite", "read \"write\"", "read\u{a0}write"] {
            assert!(list.parse::<Scopes>().is_err(), "{list:?}");
        }
    }

    /// Names with many separators, wildcards and common prefixes.
    fn name() -> impl Strategy<Value = String> {
        "[ab*:./]{1,6}"
    }

    /// Splits both names after each separator and compares the parts.
    fn grants_naively(granted: &str, required: &str) -> bool {
        let pieces = |name: &str| -> Vec<String> {
            name.split_inclusive(|c| ":./".contains(c)).map(str::to_owned).collect()
        };
        let (mut granted, required) = (pieces(granted), pieces(required));
        if granted.last().is_some_and(|last| last == "*") {
            granted.pop();
            required.len() > granted.len() && required.starts_with(&granted)
        } else {
            granted == required
        }
    }

    proptest! {
        #[test]
        fn grants_as_the_naive_model_does(
            granted in vec(name(), 0..5),
            required in name(),
        ) {
            let expected = granted.iter().any(|granted| grants_naively(granted, &required));
            prop_assert_eq!(Scopes::new(granted).unwrap().grants(&required), expected);
        }

        #[test]
        fn accepts_only_the_grammar(name in vec(proptest::char::range('\0', '\u{81}'), 0..4)) {
            let name = String::from_iter(name);
            let valid = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
            prop_assert_eq!(Scope::new(name).is_ok(), valid);
        }

        #[test]
        fn parses_what_it_displays(names in vec("[!#-\\[\\]-~]{1,8}", 0..8)) {
            let scopes = Scopes::new(names).unwrap();
            prop_assert_eq!(scopes.to_string().parse(), Ok(scopes));
        }

        #[test]
        fn no_input_panics(input in vec(any::<char>(), 0..200)) {
            let input = String::from_iter(input);
            let _ = Scope::new(input.clone()).map_err(|invalid| invalid.to_string());
            let _ = input.parse::<Scopes>().map_err(|invalid| invalid.to_string());
            let _ = Scopes::new(["a:*", "b"]).unwrap().grants(&input);
        }
    }
}
