//! How a text is matched.

/// A condition on a text that is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    /// RE2 syntax, matching the whole text.
    Regex(String),
}

/// A condition on a header or parameter, which may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueMatch {
    /// It is there, whatever its value.
    Present,
    Matches(StringMatch),
}

/// A value of an AuthorizationPolicy: `*`, `prefix*`, `*suffix` or exactly this.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// Any value, but not none.
    Present,
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// `/a/{*}/b/{**}`: one segment, or any number of segments. Paths only.
    Template(String),
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        match text {
            "*" => Self::Present,
            _ if text.len() > 1 && text.starts_with('*') => Self::Suffix(text[1..].to_owned()),
            _ if text.ends_with('*') && !text.is_empty() => Self::Prefix(text[..text.len() - 1].to_owned()),
            _ => Self::Exact(text.to_owned()),
        }
    }

    /// As [`Pattern::new`], with templates.
    pub fn path(text: &str) -> Self {
        if text.contains("{*}") || text.contains("{**}") {
            Self::Template(text.to_owned())
        } else {
            Self::new(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |text: &str, expect: Pattern| assert_eq!(Pattern::new(text), expect);
        check("*", Pattern::Present);
        check("abc", Pattern::Exact("abc".into()));
        check("abc*", Pattern::Prefix("abc".into()));
        check("*abc", Pattern::Suffix("abc".into()));
        check("a*c", Pattern::Exact("a*c".into()));
        check("", Pattern::Exact(String::new()));
        assert_eq!(Pattern::path("/a/{*}"), Pattern::Template("/a/{*}".into()));
    }
}
