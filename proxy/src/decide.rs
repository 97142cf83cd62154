//! The whole question: what happens to this connection, this request? Pure functions of the configuration and of facts;
//! no clock, socket, lock or randomness of their own: times and random numbers are passed in. A decision is a value,
//! made once, and every later log, metric and explanation speaks of that value. `meshctl` asks the same functions.
//!
//! | Module | Question |
//! | --- | --- |
//! | [`facts`] | what is known of a request and its connection, with the path made canonical |
//! | [`chain`](mod@chain) | which filter chain takes a connection? |
//! | [`route`](mod@route), [`matching`] | which route takes a request? |
//! | [`jwt`] | which tokens does it carry, and are they good? |
//! | [`permit`], [`metadata`] | is it allowed, and which policy says so? |
//! | [`fault`], [`cors`] | what do these filters do with it? |
//! | [`rewrite`] | what does the upstream see as path and authority, where does a redirect lead? |
//! | [`headers`] | which headers change? |
//! | [`peer`] | how is the upstream spoken to, and is it who it should be? |
//! | [`retry`], [`hash`] | again? where to? |
//! | [`reply`] | what does the caller get when something failed? |
//! | [`log`] | is it worth a line? |

pub mod chain;
pub mod cors;
pub mod facts;
pub mod fault;
pub mod hash;
pub mod headers;
pub mod jwt;
pub mod log;
pub mod matching;
pub mod metadata;
pub mod peer;
pub mod permit;
pub mod reply;
pub mod retry;
pub mod rewrite;
pub mod route;

#[cfg(test)]
pub mod testing;

pub use chain::chain;
pub use route::{Decision, Routed, route};
