//! Who may see an object: `exportTo`.

use std::collections::BTreeSet;

/// The namespaces that see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Visibility {
    /// `*`: all of them.
    #[default]
    Public,
    /// `.`: its own.
    Private,
    /// These, where `.` has been replaced by the object's own.
    Namespaces(BTreeSet<String>),
    /// `~`: nobody.
    None,
}

impl Visibility {
    /// From `exportTo`; an empty list gives `default`.
    pub fn new<'a>(export_to: impl IntoIterator<Item = &'a str>, own: &str, default: &Self) -> Self {
        let names: BTreeSet<&str> = export_to.into_iter().collect();
        match names.len() {
            0 => default.clone(),
            _ if names.contains("*") => Self::Public,
            1 if names.contains("~") => Self::None,
            1 if names.contains(".") => Self::Private,
            _ => Self::Namespaces(
                names
                    .into_iter()
                    .filter(|name| *name != "~")
                    .map(|name| if name == "." { own } else { name }.to_owned())
                    .collect(),
            ),
        }
    }

    /// May `viewer` see an object of the namespace `own`?
    pub fn allows(&self, own: &str, viewer: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Private => own == viewer,
            Self::Namespaces(names) => names.contains(viewer),
            Self::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_to() {
        let check = |export_to: &[&str], viewer: &str, expect: bool| {
            let visibility = Visibility::new(export_to.iter().copied(), "own", &Visibility::Public);
            assert_eq!(visibility.allows("own", viewer), expect, "{export_to:?} {viewer}");
        };
        check(&[], "x", true);
        check(&["*"], "x", true);
        check(&["."], "x", false);
        check(&["."], "own", true);
        check(&["~"], "own", false);
        check(&[".", "x"], "own", true);
        check(&[".", "x"], "x", true);
        check(&["x"], "own", false);
    }
}
