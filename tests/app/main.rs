//! The whole app in one process, against engines that do as they are told.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail where it stands, and its counts are small"
)]

mod access_log;
mod admission;
mod binary;
mod compat;
mod counting;
mod drain;
mod engines;
mod faults;
mod hostile;
mod http2;
mod killed;
mod knowing;
mod monitoring;
mod overload;
mod policies;
mod proxying;
mod reload;
mod resilience;
mod streaming;
mod support;
mod tracing;
