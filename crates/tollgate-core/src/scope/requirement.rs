//! Requirements: the scopes a request must hold, as an expression with *and* and *or*.

use super::{InvalidScope, Scope, Scopes};
use std::borrow::Cow;
use std::fmt;
use std::ops::{BitAnd, BitOr};

/// Requires one scope. Combine with `&` and `|`: `scope("read") & (scope("jobs") | scope("reports"))`.
///
/// The name is literal: the grants `jobs:*` and `*` meet `scope("jobs:*")`, `jobs:read` does not.
///
/// A requirement with an invalid name is never met, so a mistake refuses requests instead of admitting them.
/// [`Requirement::validate`] reports it.
///
/// ```
/// # use tollgate_core::scope::{Scopes, scope};
/// assert!(scope("jobs:read").is_met_by(&Scopes::all()));
///
/// let mistaken = scope("jobs read");
/// assert!(!mistaken.is_met_by(&Scopes::all()));
/// assert!(mistaken.validate().is_err());
/// ```
pub fn scope(name: impl Into<Cow<'static, str>>) -> Requirement {
    Requirement(Scope::new(name).map_or_else(Node::Invalid, Node::Scope))
}

/// The scopes that a principal's [`Scopes`] must grant.
///
/// ```
/// # use tollgate_core::scope::{Scopes, scope};
/// let requirement = scope("jobs:read") & (scope("reports") | scope("admin"));
///
/// assert!(requirement.is_met_by(&Scopes::new(["jobs:*", "admin"])?));
/// assert!(!requirement.is_met_by(&Scopes::new(["jobs:*"])?));
/// # Ok::<(), tollgate_core::scope::InvalidScope>(())
/// ```
///
/// Validate names that come from configuration before the first request:
///
/// ```
/// # use tollgate_core::scope::{Requirement, Scopes, scope};
/// let configured = vec!["reports".to_owned(), "jobs read".to_owned()];
/// let requirement = Requirement::any_of(configured.into_iter().map(scope));
///
/// assert!(requirement.validate().is_err());
/// ```
///
/// `Display` writes text for people: `jobs:read and (reports or admin)`. Equality compares the written form:
/// `a & b` does not equal `b & a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement(Node);

/// An `All` has no `All` among its members and an `Any` has no `Any`. Neither has exactly one member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Scope(Scope),
    /// Never met. Kept so that `validate` can report it.
    Invalid(InvalidScope),
    /// Met by every principal, and by no anonymous caller.
    Authenticated,
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl Requirement {
    /// Requires nothing: always met, even by [`Scopes::none`], and by an anonymous caller.
    pub fn none() -> Self {
        Self(Node::All(Vec::new()))
    }

    /// Requires a principal, whatever its scopes: met by every [`Scopes`], but not by an anonymous caller.
    ///
    /// ```
    /// # use tollgate_core::scope::{Requirement, Scopes};
    /// assert!(Requirement::authenticated().is_met_by(&Scopes::none()));
    /// assert!(!Requirement::authenticated().admits_anonymous());
    /// assert!(Requirement::none().admits_anonymous());
    /// ```
    pub fn authenticated() -> Self {
        Self(Node::Authenticated)
    }

    /// Requires all of these. An empty list requires nothing, like [`Requirement::none`].
    ///
    /// ```
    /// # use tollgate_core::scope::{Requirement, scope};
    /// assert_eq!(Requirement::all_of(["read", "write"]), scope("read") & scope("write"));
    /// ```
    pub fn all_of(requirements: impl IntoIterator<Item: Into<Requirement>>) -> Self {
        let mut members = Vec::new();
        for requirement in requirements {
            match requirement.into().0 {
                Node::All(inner) => members.extend(inner),
                member => members.push(member),
            }
        }
        Self::group(members, Node::All)
    }

    /// Requires at least one of these. An empty list is never met.
    ///
    /// ```
    /// # use tollgate_core::scope::{Requirement, scope};
    /// assert_eq!(Requirement::any_of(["read", "write"]), scope("read") | scope("write"));
    /// ```
    pub fn any_of(requirements: impl IntoIterator<Item: Into<Requirement>>) -> Self {
        let mut members = Vec::new();
        for requirement in requirements {
            match requirement.into().0 {
                Node::Any(inner) => members.extend(inner),
                member => members.push(member),
            }
        }
        Self::group(members, Node::Any)
    }

    /// A group of one member is replaced by that member.
    fn group(mut members: Vec<Node>, kind: fn(Vec<Node>) -> Node) -> Self {
        let only = if members.len() == 1 { members.pop() } else { None };
        Self(only.unwrap_or_else(|| kind(members)))
    }

    /// Whether these grants meet the requirement. Does not allocate.
    #[must_use]
    pub fn is_met_by(&self, granted: &Scopes) -> bool {
        self.0.is_met_by(granted)
    }

    /// Whether a caller without a principal meets the requirement: it requires nothing.
    #[must_use]
    pub fn admits_anonymous(&self) -> bool {
        self.0.admits_anonymous()
    }

    /// Reports the first invalid name, so that a service can fail at start-up instead of refusing every request.
    ///
    /// An empty [`any_of`](Self::any_of) is valid: it deliberately admits no request.
    ///
    /// # Errors
    /// [`InvalidScope`] if a name given to [`scope`] is not a valid scope.
    pub fn validate(&self) -> Result<(), InvalidScope> {
        self.0.validate()
    }

    /// The valid scopes in the requirement, without duplicates, in order of first appearance.
    ///
    /// Joined by spaces, they are the value of the `scope` parameter in a `WWW-Authenticate` header
    /// (RFC 6750, section 3), and need no escaping there. The difference between *and* and *or* is lost.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let mut names = Vec::new();
        self.0.collect_names(&mut names);
        names.into_iter()
    }
}

impl Node {
    fn is_met_by(&self, granted: &Scopes) -> bool {
        match self {
            Self::Scope(scope) => granted.covers(scope.as_str()),
            Self::Invalid(_) => false,
            Self::Authenticated => true,
            Self::All(members) => members.iter().all(|member| member.is_met_by(granted)),
            Self::Any(members) => members.iter().any(|member| member.is_met_by(granted)),
        }
    }

    fn admits_anonymous(&self) -> bool {
        match self {
            Self::Scope(_) | Self::Invalid(_) | Self::Authenticated => false,
            Self::All(members) => members.iter().all(Self::admits_anonymous),
            Self::Any(members) => members.iter().any(Self::admits_anonymous),
        }
    }

    fn validate(&self) -> Result<(), InvalidScope> {
        match self {
            Self::Scope(_) | Self::Authenticated => Ok(()),
            Self::Invalid(invalid) => Err(invalid.clone()),
            Self::All(members) | Self::Any(members) => members.iter().try_for_each(Self::validate),
        }
    }

    fn collect_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Scope(scope) if names.contains(&scope.as_str()) => {}
            Self::Scope(scope) => names.push(scope.as_str()),
            Self::Invalid(_) | Self::Authenticated => {}
            Self::All(members) | Self::Any(members) => {
                for member in members {
                    member.collect_names(names);
                }
            }
        }
    }
}

impl From<Scope> for Requirement {
    fn from(scope: Scope) -> Self {
        Self(Node::Scope(scope))
    }
}

/// Like [`scope`]: a requirement with an invalid name is never met.
impl From<&'static str> for Requirement {
    fn from(name: &'static str) -> Self {
        scope(name)
    }
}

/// Requires both. Has higher precedence than `|`.
impl BitAnd for Requirement {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self::all_of([self, other])
    }
}

/// Requires at least one of the two. Has lower precedence than `&`.
impl BitOr for Requirement {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self::any_of([self, other])
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (members, word) = match self {
            Self::Scope(scope) => return scope.fmt(f),
            Self::Invalid(invalid) => return write!(f, "<invalid scope {:?}>", invalid.name),
            Self::Authenticated => return f.write_str("<any principal>"),
            Self::All(members) if members.is_empty() => return f.write_str("<nothing>"),
            Self::Any(members) if members.is_empty() => return f.write_str("<never met>"),
            Self::All(members) => (members, " and "),
            Self::Any(members) => (members, " or "),
        };
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                f.write_str(word)?;
            }
            match member {
                Self::All(inner) | Self::Any(inner) if !inner.is_empty() => write!(f, "({member})")?,
                _ => member.fmt(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn granted(names: &str) -> Scopes {
        names.parse().unwrap()
    }

    #[test]
    fn displays_without_unneeded_parentheses() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(scope);
        let never = Requirement::any_of([""; 0]);
        for (requirement, text) in [
            (a.clone(), "a"),
            (a.clone() & (b.clone() | c.clone()), "a and (b or c)"),
            (a.clone() | b.clone() & c.clone(), "a or (b and c)"),
            ((a.clone() & b.clone()) & (c.clone() & d.clone()), "a and b and c and d"),
            (a.clone() | (b.clone() | (c.clone() | d.clone())), "a or b or c or d"),
            (Requirement::all_of([a.clone() | b.clone()]), "a or b"),
            (Requirement::none() & a.clone(), "a"),
            (Requirement::none() | a.clone(), "<nothing> or a"),
            (never & a, "<never met> and a"),
            (scope("b c") | b, r#"<invalid scope "b c"> or b"#),
        ] {
            assert_eq!(requirement.to_string(), text);
        }
    }

    #[test]
    fn an_empty_all_of_is_always_met_and_an_empty_any_of_never() {
        let nothing = [""; 0];
        assert!(Requirement::none().is_met_by(&Scopes::none()));
        assert_eq!(Requirement::all_of(nothing), Requirement::none());
        assert!(!Requirement::any_of(nothing).is_met_by(&Scopes::all()));
    }

    #[test]
    fn a_required_wildcard_is_literal() {
        let requirement = scope("jobs:*");
        assert!(requirement.is_met_by(&granted("jobs:*")));
        assert!(requirement.is_met_by(&granted("*")));
        assert!(!requirement.is_met_by(&granted("jobs:read jobs:write jobs jobs:")));
    }

    #[test]
    fn an_invalid_name_is_never_met_and_is_reported() {
        for name in ["", "jobs read", "jobs\"", "jöbs"] {
            let invalid = Scope::new(name).unwrap_err();
            assert!(!scope(name).is_met_by(&Scopes::all()), "{name:?}");
            assert_eq!(scope(name).validate(), Err(invalid.clone()));
            assert_eq!((scope("a") & (scope("b") | scope(name))).validate(), Err(invalid));
        }
        assert_eq!((scope("a") & (scope("b") | scope("c"))).validate(), Ok(()));
    }

    #[test]
    fn an_invalid_name_does_not_affect_its_alternatives() {
        assert!((scope("a b") | scope("c")).is_met_by(&granted("c")));
        assert!(!(scope("a b") & scope("c")).is_met_by(&granted("*")));
    }

    #[test]
    fn lists_each_valid_scope_once_in_order() {
        let requirement = scope("w") & (scope("b") | scope("x\"y") | scope("w")) & scope("a") & scope("b");
        assert_eq!(requirement.scopes().collect::<Vec<_>>(), ["w", "b", "a"]);
        assert_eq!(Requirement::none().scopes().count(), 0);
    }

    /// The requirement as it is written, before groups are flattened.
    #[derive(Clone, Debug)]
    enum Model {
        Name(String),
        And(Box<Model>, Box<Model>),
        Or(Box<Model>, Box<Model>),
        AllOf(Vec<Model>),
        AnyOf(Vec<Model>),
    }

    impl Model {
        fn build(&self) -> Requirement {
            match self {
                Self::Name(name) => scope(name.clone()),
                Self::And(left, right) => left.build() & right.build(),
                Self::Or(left, right) => left.build() | right.build(),
                Self::AllOf(members) => Requirement::all_of(members.iter().map(Self::build)),
                Self::AnyOf(members) => Requirement::any_of(members.iter().map(Self::build)),
            }
        }

        /// Disjunctive normal form: each inner list is a set of names that meets the requirement.
        fn alternatives(&self) -> Vec<Vec<&str>> {
            match self {
                Self::Name(name) => vec![vec![name]],
                Self::And(left, right) => both(&left.alternatives(), &right.alternatives()),
                Self::Or(left, right) => [left.alternatives(), right.alternatives()].concat(),
                Self::AllOf(members) => {
                    members.iter().fold(vec![vec![]], |before, member| both(&before, &member.alternatives()))
                }
                Self::AnyOf(members) => members.iter().flat_map(Self::alternatives).collect(),
            }
        }
    }

    /// Every alternative of one side combined with every alternative of the other.
    fn both<'a>(left: &[Vec<&'a str>], right: &[Vec<&'a str>]) -> Vec<Vec<&'a str>> {
        left.iter().flat_map(|l| right.iter().map(|r| [l.as_slice(), r].concat())).collect()
    }

    /// Few names, so that grants and requirements often match. `a b` is invalid.
    fn model() -> impl Strategy<Value = Model> {
        let name = proptest::sample::select(vec!["a", "b", "a:x", "a:y", "a:*", "*", "b.c", "a b", ""]);
        name.prop_map(|name| Model::Name(name.to_owned())).prop_recursive(3, 16, 3, |inner| {
            let pair = (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
            prop_oneof![
                pair.clone().prop_map(|(left, right)| Model::And(left, right)),
                pair.prop_map(|(left, right)| Model::Or(left, right)),
                vec(inner.clone(), 0..3).prop_map(Model::AllOf),
                vec(inner, 0..3).prop_map(Model::AnyOf),
            ]
        })
    }

    fn grants_naively(grant: &str, name: &str) -> bool {
        if name.is_empty() || name.contains(' ') {
            return false;
        }
        match grant {
            "*" => true,
            "a:*" => ["a:x", "a:y", "a:*"].contains(&name),
            "b.*" => name == "b.c",
            literal => literal == name,
        }
    }

    /// Whether no group is directly within a group of its kind, and none has a single member.
    fn is_flat(node: &Node) -> bool {
        match node {
            Node::Scope(_) | Node::Invalid(_) | Node::Authenticated => true,
            Node::All(members) => {
                members.len() != 1 && members.iter().all(|m| !matches!(m, Node::All(_)) && is_flat(m))
            }
            Node::Any(members) => {
                members.len() != 1 && members.iter().all(|m| !matches!(m, Node::Any(_)) && is_flat(m))
            }
        }
    }

    proptest! {
        #[test]
        fn is_met_as_the_naive_model_says(
            model in model(),
            grants in proptest::sample::subsequence(vec!["a", "b", "a:x", "a:y", "a:*", "b.*", "*"], 0..=5),
        ) {
            let expected = model.alternatives().iter().any(|names| {
                names.iter().all(|name| grants.iter().any(|grant| grants_naively(grant, name)))
            });
            let requirement = model.build();
            prop_assert_eq!(requirement.is_met_by(&Scopes::new(grants).unwrap()), expected, "{}", requirement);
        }

        #[test]
        fn stays_flat(model in model()) {
            prop_assert!(is_flat(&model.build().0));
        }

        #[test]
        fn no_name_panics_and_every_listed_scope_is_valid(name in vec(any::<char>(), 0..200)) {
            let name = String::from_iter(name);
            let requirement = scope(name.clone()) & (scope("a") | scope(name.clone()));
            let _ = requirement.to_string();
            prop_assert_eq!(requirement.validate().is_ok(), Scope::new(name.clone()).is_ok());
            prop_assert_eq!(requirement.is_met_by(&Scopes::all()), Scope::new(name).is_ok());
            prop_assert!(requirement.scopes().all(|name| Scope::new(name.to_owned()).is_ok()));
        }
    }
}
