//! Who gets what, and when: pure decisions of the push loop.
//!
//! | Module | What it decides |
//! | --- | --- |
//! | [`debounce`] | how long changes are gathered before they go out |
//! | [`affected`] | which types can have changed at all |
//! | [`order`] | what one stream sends next: make before break |

pub mod affected;
pub mod debounce;
pub mod order;
