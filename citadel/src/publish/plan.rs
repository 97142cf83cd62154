//! In which namespaces the ConfigMap is still to be written. Pure: what was seen comes in, names come out.
//! Bounds: one entry of a few bytes for each namespace of the cluster.

use std::collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};

/// A fingerprint of a content: enough to see that a ConfigMap is not what it should be.
fn fingerprint(content: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Default)]
pub struct Plan {
    wanted: Option<u64>,
    /// Namespaces that exist and are not about to go.
    namespaces: BTreeSet<String>,
    /// What their ConfigMap was last seen to say.
    maps: BTreeMap<String, u64>,
    /// Namespaces where the last write failed: they wait for [`Plan::again`].
    failed: BTreeSet<String>,
}

impl Plan {
    /// What the ConfigMaps are to say.
    pub fn want(&mut self, content: &str) {
        let wanted = Some(fingerprint(content));
        if self.wanted != wanted {
            self.wanted = wanted;
            self.failed.clear();
        }
    }

    pub fn namespace(&mut self, name: &str, stays: bool) {
        if stays {
            self.namespaces.insert(name.to_owned());
        } else {
            self.namespaces.remove(name);
            self.failed.remove(name);
        }
    }

    /// A list of all namespaces begins; the names of those that exist follow.
    pub fn forget_namespaces(&mut self) {
        self.namespaces.clear();
        self.failed.clear();
    }

    /// A list of all ConfigMaps begins.
    pub fn forget_maps(&mut self) {
        self.maps.clear();
    }

    /// A ConfigMap says this, or is gone.
    pub fn map(&mut self, namespace: &str, content: Option<&str>) {
        match content {
            Some(content) => self.maps.insert(namespace.to_owned(), fingerprint(content)),
            None => self.maps.remove(namespace),
        };
        self.failed.remove(namespace);
    }

    /// Where to write next.
    pub fn next(&self) -> Option<&str> {
        let wanted = self.wanted?;
        let missing = |name: &&String| !self.failed.contains(*name) && self.maps.get(*name) != Some(&wanted);
        self.namespaces.iter().find(missing).map(String::as_str)
    }

    pub fn written(&mut self, namespace: &str) {
        if let Some(wanted) = self.wanted {
            self.maps.insert(namespace.to_owned(), wanted);
        }
        self.failed.remove(namespace);
    }

    pub fn failed(&mut self, namespace: &str) {
        self.failed.insert(namespace.to_owned());
    }

    /// Tries the failed ones again. False: there are none.
    pub fn again(&mut self) -> bool {
        !std::mem::take(&mut self.failed).is_empty()
    }

    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// Namespaces whose ConfigMap is not what it should be.
    pub fn behind(&self) -> usize {
        let right = |name: &&String| self.wanted.is_some() && self.maps.get(*name).copied() == self.wanted;
        self.namespaces.len() - self.namespaces.iter().filter(right).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_all(plan: &mut Plan) -> Vec<String> {
        let mut written = Vec::new();
        while let Some(name) = plan.next().map(str::to_owned) {
            plan.written(&name);
            written.push(name);
        }
        written
    }

    #[test]
    fn every_namespace_has_it_again_when_it_is_deleted_or_changed() {
        let mut plan = Plan::default();
        plan.namespace("a", true);
        plan.namespace("b", true);
        assert_eq!(plan.next(), None, "nothing is known to write yet");
        plan.map("b", Some("roots"));
        plan.want("roots");
        assert_eq!(plan.behind(), 1);
        assert_eq!(write_all(&mut plan), ["a"]);
        assert_eq!(plan.behind(), 0);

        plan.map("a", None);
        plan.map("b", Some("something else"));
        assert_eq!(write_all(&mut plan), ["a", "b"]);
        plan.want("new roots");
        assert_eq!(write_all(&mut plan), ["a", "b"]);
        plan.want("new roots");
        assert_eq!(write_all(&mut plan), Vec::<String>::new());

        plan.namespace("b", false);
        plan.namespace("c", true);
        plan.map("b", None);
        assert_eq!(write_all(&mut plan), ["c"], "a namespace that goes is left alone");
        plan.forget_maps();
        plan.forget_namespaces();
        plan.namespace("c", true);
        assert_eq!(write_all(&mut plan), ["c"]);
    }

    #[test]
    fn failures_wait_and_hold_nobody_up() {
        let mut plan = Plan::default();
        plan.want("roots");
        plan.namespace("a", true);
        plan.namespace("b", true);
        assert_eq!(plan.next(), Some("a"));
        plan.failed("a");
        assert_eq!(write_all(&mut plan), ["b"]);
        assert_eq!((plan.behind(), plan.namespaces()), (1, 2));
        assert!(plan.again());
        assert_eq!(write_all(&mut plan), ["a"]);
        assert!(!plan.again());
    }
}
