//! The proxy's configuration as plain, immutable values: what the protobuf messages of xDS (or of a bootstrap file)
//! mean to us, with everything computed that the path would otherwise compute per request: regular expressions are
//! compiled, header names are `HeaderName`s, defaults are filled in, durations are `Duration`s.
//!
//! The types know nothing of protobuf; [`read`] makes them from messages, or says [`Reject`] with the path of the field
//! that it does not understand. Nothing here does I/O, and every value is shared behind an `Arc`, never changed (but for the
//! tokens in a [`bucket`]).
//!
//! | Module | What it holds |
//! | --- | --- |
//! | [`scalar`] | rejects, fractions, addresses, object references |
//! | [`listener`], [`chain`] | where to listen, which filter chain is chosen, what ends it |
//! | [`hcm`], [`route`], [`action`], [`matcher`] | HTTP: connection manager, virtual hosts, routes, what a route does |
//! | [`cluster`], [`endpoint`] | upstreams and their addresses |
//! | [`transport`], [`secret`] | TLS on both sides, certificates and trust |
//! | [`filter`], [`bucket`] | HTTP and network filters; the token bucket of a limit |
//! | [`jwt`], [`metadata`] | tokens and their keys; matchers of what filters have found out |
//! | [`log`], [`flag`] | access logs with parsed formats, response flags |
//! | [`hash`] | the hash of rings and hash policies |

pub mod action;
pub mod bucket;
pub mod chain;
pub mod cluster;
pub mod endpoint;
pub mod filter;
pub mod flag;
pub mod hash;
pub mod hcm;
pub mod jwt;
pub mod listener;
pub mod log;
pub mod matcher;
pub mod metadata;
pub mod read;
pub mod route;
pub mod scalar;
pub mod secret;
pub mod transport;

pub use scalar::Reject;
