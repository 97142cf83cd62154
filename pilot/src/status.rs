//! What pilot writes back into the mesh's objects, so that `kubectl get -o yaml` tells whether they are in effect.
//!
//! | Module | |
//! | --- | --- |
//! | [`conditions`] | from what is known about an object to its status |
//! | [`writer`] | when it is written, by the leader only |

pub mod conditions;
pub mod writer;
