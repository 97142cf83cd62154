//! Labels, and the choice of workloads by their labels.

use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// Every label named here must be there with this value. The empty selector takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(pub Labels);

impl Selector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for Selector {
    fn from(pairs: [(K, V); N]) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_must_be_there() {
        let labels: Labels = [
            ("app".to_owned(), "a".to_owned()),
            ("v".to_owned(), "1".to_owned()),
        ]
        .into();
        assert!(Selector::default().matches(&labels));
        assert!(Selector::from([("app", "a")]).matches(&labels));
        assert!(!Selector::from([("app", "b")]).matches(&labels));
        assert!(!Selector::from([("app", "a"), ("x", "y")]).matches(&labels));
    }
}
