//! Pilotfish, the inference sidecar: takes OpenAI-compatible traffic, picks the
//! best engine for every request, and streams the answer through.
//!
//! The modules, in reading order; ARCHITECTURE.md is the map.

pub mod app;
pub mod cli;
pub mod config;
pub mod decisions;
pub mod discovery;
pub mod fleet;
pub mod policy;
pub mod probe;
pub mod query;
pub mod registry;
pub mod scrape;
pub mod select;
pub mod smart;

pub mod advise;
pub mod auth;
pub mod downstream;
pub mod proxy;
pub mod upstream;

pub mod api;
pub mod control;
pub mod worker;

pub mod access;
pub mod account;
pub mod report;
pub mod trace;

pub mod bench;
pub mod chaos;
pub mod demo;
pub mod explain;
pub mod sim;
pub mod simulate;

mod digits;
pub mod drain;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod metrics;
pub mod net;
pub mod telemetry;
pub mod tls;
