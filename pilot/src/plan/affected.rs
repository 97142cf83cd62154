//! Which types of resources a new snapshot can have changed, and small sets of types.

use mesh_proto::{node::NodeKind, xds::Type};

use crate::{generate, snapshot::Snapshot};

/// A set of types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Types(u8);

impl Types {
    pub const NONE: Self = Self(0);

    pub fn all() -> Self {
        Type::ALL.into_iter().collect()
    }

    pub fn insert(&mut self, kind: Type) {
        self.0 |= 1 << kind.index();
    }

    pub fn remove(&mut self, kind: Type) {
        self.0 &= !(1 << kind.index());
    }

    pub fn contains(self, kind: Type) -> bool {
        self.0 & (1 << kind.index()) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Type> {
        Type::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn from_bits(bits: u8) -> Self {
        Type::ALL
            .into_iter()
            .filter(|kind| bits & (1 << kind.index()) != 0)
            .collect()
    }
}

impl FromIterator<Type> for Types {
    fn from_iter<I: IntoIterator<Item = Type>>(types: I) -> Self {
        let mut set = Self::NONE;
        for kind in types {
            set.insert(kind);
        }
        set
    }
}

/// The types that read an index which has changed between two snapshots, for some kind of proxy.
pub fn types(before: &Snapshot, after: &Snapshot) -> Types {
    let since = generate::since_whole;
    Type::ALL
        .into_iter()
        .filter(|kind| {
            [NodeKind::Sidecar, NodeKind::Router]
                .iter()
                .any(|node| since(before, *kind, *node) != since(after, *kind, *node))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut set: Types = [Type::Cluster, Type::Secret].into_iter().collect();
        assert!(set.contains(Type::Secret) && !set.contains(Type::Route));
        set.remove(Type::Secret);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Type::Cluster]);
        assert_eq!(Types::from_bits(Types::all().bits()), Types::all());
        assert!(Types::from_bits(0b1100_0000).is_empty(), "no such types");
    }
}
