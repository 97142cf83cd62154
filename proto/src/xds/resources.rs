//! The resources of one type that one client may see, in the order of their names. Thousands of clients have
//! such a list, mostly of the same resources, so it is as small as can be: one pointer each.

use std::{ops::Index, sync::Arc};

use super::Encoded;

/// No name is in it twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(Vec<Arc<Encoded>>);

impl Resources {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|own| (*own.name).cmp(name))
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        self.place(name).ok().and_then(|place| self.0.get(place))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    /// Takes the place of one with the same name.
    pub fn insert(&mut self, resource: Arc<Encoded>) {
        match self.place(&resource.name) {
            Ok(place) => self.0[place] = resource,
            Err(place) => self.0.insert(place, resource),
        }
    }

    pub fn retain(&mut self, keep: impl FnMut(&Arc<Encoded>) -> bool) {
        self.0.retain(keep);
    }

    /// Without the room for what there was.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Encoded>> + Clone + ExactSizeIterator {
        self.0.iter()
    }

    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        self.0.iter().map(|own| &own.name)
    }
}

/// Of several with one name the last one stays.
impl FromIterator<Arc<Encoded>> for Resources {
    fn from_iter<I: IntoIterator<Item = Arc<Encoded>>>(resources: I) -> Self {
        let mut all: Vec<Arc<Encoded>> = resources.into_iter().collect();
        // Stable: the last of one name stays the last.
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|later, first| {
            let same = later.name == first.name;
            if same {
                std::mem::swap(later, first);
            }
            same
        });
        all.shrink_to_fit();
        Self(all)
    }
}

impl Extend<Arc<Encoded>> for Resources {
    fn extend<I: IntoIterator<Item = Arc<Encoded>>>(&mut self, resources: I) {
        *self = std::mem::take(&mut self.0).into_iter().chain(resources).collect();
    }
}

impl IntoIterator for Resources {
    type Item = Arc<Encoded>;
    type IntoIter = std::vec::IntoIter<Arc<Encoded>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Panics if there is none of that name.
impl Index<&str> for Resources {
    type Output = Arc<Encoded>;

    fn index(&self, name: &str) -> &Arc<Encoded> {
        match self.place(name) {
            Ok(place) => &self.0[place],
            Err(_) => panic!("there is no resource {name:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::{Type, Version};

    fn resource(name: &str, version: u64) -> Arc<Encoded> {
        Arc::new(Encoded {
            name: name.into(),
            version: Version(version),
            kind: Type::Cluster,
            body: bytes::Bytes::new(),
        })
    }

    #[test]
    fn in_order_and_the_last_of_a_name_counts() {
        let mut all: Resources = [resource("b", 1), resource("a", 1), resource("b", 2)]
            .into_iter()
            .collect();
        let text = |all: &Resources| -> Vec<String> {
            all.iter()
                .map(|own| format!("{}{}", own.name, own.version.0))
                .collect()
        };
        assert_eq!(text(&all), ["a1", "b2"]);
        all.insert(resource("aa", 1));
        all.insert(resource("a", 3));
        assert_eq!(text(&all), ["a3", "aa1", "b2"]);
        all.extend([resource("aa", 2), resource("c", 1)]);
        assert_eq!(text(&all), ["a3", "aa2", "b2", "c1"]);
        assert_eq!(all["c"].version, Version(1));
        assert!(all.get("x").is_none() && all.contains("b"));
        all.retain(|own| own.version.0 > 1);
        assert_eq!(text(&all), ["a3", "aa2", "b2"]);
        all.clear();
        assert!(all.is_empty());
    }
}
