//! What no honest peer sends, to the proxy alone and, where it is cheap, to a stock Envoy with the same configuration: framing,
//! paths, floods and slowness. The tables are also the list in `docs/reference/hard-input.md`.

#[path = "hard_input/bench.rs"]
mod bench;
#[path = "hard_input/floods.rs"]
mod floods;
#[path = "hard_input/framing.rs"]
mod framing;
#[path = "hard_input/paths.rs"]
mod paths;
#[path = "hard_input/slow.rs"]
mod slow;
