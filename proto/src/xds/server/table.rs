//! What a client was told, by name.
//!
//! Most of the time a client has exactly what it shall have, and so do thousands like it. Then the table is
//! no list of its own but a reference to those resources, which all of them share; only what differs from
//! them is kept for this client.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{Entry, Standing, Told};
use crate::xds::{Encoded, Resources};

#[derive(Debug, Default)]
pub(super) struct Table {
    /// The client has accepted all of these.
    base: Option<Base>,
    /// What differs from `base`, or is not in it.
    own: BTreeMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Base {
    resources: Arc<Resources>,
    /// All of them are wanted by name.
    named: bool,
}

impl Base {
    fn entry(&self, resource: &Encoded) -> Entry {
        Entry {
            named: self.named,
            told: Told::Has(resource.version),
            standing: Standing::Accepted,
        }
    }
}

impl Table {
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.own.get(name).copied().or_else(|| {
            let base = self.base.as_ref()?;
            Some(base.entry(base.resources.get(name)?))
        })
    }

    /// The key becomes this very text, which makes later comparisons cheap.
    pub fn insert(&mut self, name: Arc<str>, entry: Entry) {
        self.own.remove(&name);
        self.own.insert(name, entry);
    }

    /// Changes one entry, if it is there.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.own.get_mut(name) {
            return change(entry);
        }
        let Some(base) = &self.base else { return };
        if let Some(resource) = base.resources.get(name) {
            let mut entry = base.entry(resource);
            change(&mut entry);
            self.own.insert(resource.name.clone(), entry);
        }
    }

    pub fn remove(&mut self, name: &str) {
        if self
            .base
            .as_ref()
            .is_some_and(|base| base.resources.contains(name))
        {
            self.unfold();
        }
        self.own.remove(name);
    }

    /// As [`Table::remove`], for what nobody wants by name: it is cheaper to note an absence.
    pub fn forget(&mut self, name: &str) {
        self.own.remove(name);
        let base = self.base.as_ref();
        if let Some(resource) = base.and_then(|base| base.resources.get(name)) {
            let absent = Entry {
                named: false,
                told: Told::Absent,
                standing: Standing::Accepted,
            };
            self.own.insert(resource.name.clone(), absent);
        }
    }

    /// Every entry becomes one of its own.
    fn unfold(&mut self) {
        let Some(base) = self.base.take() else { return };
        for resource in base.resources.iter() {
            self.own
                .entry(resource.name.clone())
                .or_insert_with(|| base.entry(resource));
        }
    }

    pub fn change_all(&mut self, mut change: impl FnMut(&str, &mut Entry)) {
        self.unfold();
        for (name, entry) in &mut self.own {
            change(name, entry);
        }
    }

    /// Forgets what is not wanted by name.
    pub fn forget_unnamed(&mut self) {
        self.base.take_if(|base| !base.named);
        if self.base.is_some() && self.own.values().any(|entry| !entry.named) {
            self.unfold();
        }
        self.own.retain(|_, entry| entry.named);
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Entry)> {
        let base = self.base.iter();
        let mut base = base
            .flat_map(|base| base.resources.iter().map(|own| (&own.name, base.entry(own))))
            .peekable();
        let mut own = self.own.iter().map(|(name, entry)| (name, *entry)).peekable();
        std::iter::from_fn(move || {
            let order = match (base.peek(), own.peek()) {
                (Some((a, _)), Some((b, _))) => order(a, b),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => base.next(),
                Ordering::Greater => own.next(),
                Ordering::Equal => {
                    base.next();
                    own.next()
                }
            }
        })
    }

    /// The client has exactly these, and nothing is to be said about them.
    pub fn is_settled(&self, resources: &Resources) -> bool {
        self.own.is_empty()
            && self
                .base
                .as_ref()
                .is_some_and(|base| std::ptr::eq(&*base.resources, resources))
    }

    /// Of fewer names than there are resources, it is cheaper to look for each name.
    pub fn is_small_beside(&self, resources: &Resources) -> bool {
        self.base.is_none() && self.own.len() * 16 < resources.len()
    }

    /// Becomes a reference to these, if they are exactly what the client has accepted.
    pub fn settle(&mut self, resources: &Arc<Resources>) {
        let base = self.base.as_ref().map_or(0, |base| base.resources.len());
        if self.own.is_empty() || resources.is_empty() || self.own.len() + base < resources.len() {
            return;
        }
        let Some(named) = self.iter().next().map(|(_, entry)| entry.named) else {
            return;
        };
        // An absence that nobody asked about by name says nothing.
        let mut entries = self
            .iter()
            .filter(|(_, entry)| entry.named || entry.told != Told::Absent);
        let all = resources.iter().all(|resource| {
            entries.next().is_some_and(|(own, entry)| {
                order(own, &resource.name).is_eq()
                    && entry.named == named
                    && entry.told == Told::Has(resource.version)
                    && entry.standing == Standing::Accepted
            })
        });
        if all && entries.next().is_none() {
            drop(entries);
            self.base = Some(Base {
                resources: resources.clone(),
                named,
            });
            self.own = BTreeMap::new();
        }
    }
}

/// Names are mostly the very same text.
pub(super) fn order(a: &Arc<str>, b: &Arc<str>) -> Ordering {
    if Arc::ptr_eq(a, b) {
        Ordering::Equal
    } else {
        a.cmp(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::{Type, Version};

    fn resources(names: &[&str]) -> Arc<Resources> {
        let resource = |name: &&str| {
            let encoded = Encoded {
                name: (*name).into(),
                version: Version(1),
                kind: Type::Cluster,
                body: bytes::Bytes::new(),
            };
            Arc::new(encoded)
        };
        Arc::new(names.iter().map(resource).collect())
    }

    fn has(version: u64) -> Entry {
        Entry {
            named: false,
            told: Told::Has(Version(version)),
            standing: Standing::Accepted,
        }
    }

    fn table(entries: &[(&str, Entry)]) -> Table {
        let mut table = Table::default();
        for (name, entry) in entries {
            table.insert((*name).into(), *entry);
        }
        table
    }

    fn names(table: &Table) -> Vec<String> {
        table.iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn equal_tables_become_one() {
        let all = resources(&["a", "b", "c"]);
        let mut settled = table(&[("a", has(1)), ("b", has(1)), ("c", has(1))]);
        settled.settle(&all);
        assert!(settled.is_settled(&all) && settled.own.is_empty());
        assert_eq!(settled.get("b"), Some(has(1)));
        assert_eq!(names(&settled), ["a", "b", "c"]);
        for other in [
            vec![("a", has(1)), ("b", has(1))],
            vec![("a", has(1)), ("b", has(2)), ("c", has(1))],
            vec![("a", has(1)), ("b", has(1)), ("c", has(1)), ("d", has(1))],
            vec![
                ("a", has(1)),
                ("b", has(1)),
                (
                    "c",
                    Entry {
                        standing: Standing::Sent,
                        ..has(1)
                    },
                ),
            ],
            vec![
                ("a", has(1)),
                ("b", has(1)),
                (
                    "c",
                    Entry {
                        named: true,
                        ..has(1)
                    },
                ),
            ],
        ] {
            let mut table = table(&other);
            table.settle(&all);
            assert!(!table.is_settled(&all), "{other:?}");
            assert_eq!(table.iter().count(), other.len());
        }
    }

    #[test]
    fn what_differs_is_kept_beside_it() {
        let mut table = table(&[("a", has(1)), ("b", has(1)), ("c", has(1))]);
        table.settle(&resources(&["a", "b", "c"]));
        table.change("b", |entry| entry.told = Told::Unknown);
        table.change("x", |entry| entry.told = Told::Unknown);
        table.insert("aa".into(), has(5));
        assert_eq!(names(&table), ["a", "aa", "b", "c"]);
        assert_eq!(table.get("b").map(|entry| entry.told), Some(Told::Unknown));
        assert_eq!((table.own.len(), table.get("c")), (2, Some(has(1))));
        table.remove("c");
        assert_eq!(names(&table), ["a", "aa", "b"]);
        let Some(newer) = resources(&["a", "aa", "b"]).get("aa").cloned() else {
            panic!("it is there")
        };
        assert_eq!(newer.version, Version(1));
        table.insert("aa".into(), has(1));
        table.insert("b".into(), has(1));
        let fewer = resources(&["a", "aa", "b"]);
        table.settle(&fewer);
        assert!(table.is_settled(&fewer));
        table.forget_unnamed();
        assert_eq!(table.iter().count(), 0);
    }

    #[test]
    fn an_absence_of_something_unwanted_does_not_hinder() {
        let mut table = table(&[("a", has(1)), ("b", has(1))]);
        table.settle(&resources(&["a", "b"]));
        table.forget("b");
        table.forget("never there");
        assert_eq!(table.own.len(), 1);
        let fewer = resources(&["a"]);
        table.settle(&fewer);
        assert!(table.is_settled(&fewer));
    }
}
