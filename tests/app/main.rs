//! The whole app in one process, against engines that do as they are told.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail where it stands, and its counts are small"
)]

mod access_log;
mod adhoc;
mod admission;
mod advice;
mod aios;
mod answers;
mod auth;
mod binary;
#[cfg(feature = "kubernetes")]
mod cluster;
mod compat;
mod counting;
mod drain;
mod engine_tls;
mod engines;
mod faults;
mod http;
mod http2;
mod infer;
mod killed;
mod knowing;
mod monitoring;
mod near;
mod overload;
mod policies;
mod proxying;
mod registry;
mod reload;
mod resilience;
mod search;
mod secrets;
mod selecting;
mod smart;
mod streaming;
mod support;
mod tls;
mod tracing;
#[cfg(feature = "kubernetes")]
mod watching;
