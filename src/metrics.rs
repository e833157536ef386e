//! What we count, and the handles by which it is counted.
//!
//! A handle is resolved once and held by the object it describes. All of it is
//! plain atomics, rendered by `api/page.rs` without a lock that a worker could
//! wait for: an exporter's handles cost 27–40 ns an observation, these a few.
//! Model names are bounded: beyond [`ModelRegistry::MOST`] they share the label
//! `other`, and a name that no engine has served is `unknown`.

mod buckets;
mod cells;
mod models;
mod process;
mod telling;
mod tls;

pub use buckets::{Buckets, ITL_BOUNDS, LocalBuckets, TOKEN_BOUNDS, TimeBuckets, TokenBuckets};
pub use cells::{Counter, Gauge};
pub use models::{ModelMetrics, ModelRegistry};
pub use process::{ProcessMetrics, Retries, WorkerMetrics};
pub use telling::Telling;
pub use tls::{HandshakeFailure, TlsMetrics};
