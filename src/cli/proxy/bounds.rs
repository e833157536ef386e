//! Flags for bounds and deadlines.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::config::duration;

/// Bounds and deadlines.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bounds and deadlines (250ms, 30s, 5m, or seconds)")]
pub struct BoundsArgs {
    /// Client connections at once; when full, the longest idle make room.
    #[arg(long, value_name = "N", default_value = "65536")]
    pub max_connections: NonZeroUsize,
    /// Bytes of a request body held until it can be routed [default: 32 MiB].
    #[arg(long, value_name = "BYTES")]
    pub max_peek_bytes: Option<usize>,
    /// Bytes of a request body kept for a retry [default: 1 MiB].
    #[arg(long, value_name = "BYTES")]
    pub max_replay_bytes: Option<usize>,
    /// Requests in flight; beyond it they wait, or get a 429 [default: no limit].
    #[arg(long, value_name = "COUNT")]
    pub max_in_flight: Option<u32>,
    /// Requests that may wait for a place [default: 0].
    #[arg(long, value_name = "COUNT")]
    pub queue_size: Option<u32>,
    /// How long each may wait [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub queue_timeout: Option<Duration>,
    /// Connecting to an engine [default: 2s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub connect_timeout: Option<Duration>,
    /// Waiting for the head of an engine's answer [default: 300s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub engine_head_timeout: Option<Duration>,
    /// Waiting for the first piece of an answer [default: none].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub first_token_timeout: Option<Duration>,
    /// A whole request, and the most that one may ask for itself [default: none].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub total_timeout: Option<Duration>,
    /// Silence of an engine within an answer [default: 300s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub engine_idle_timeout: Option<Duration>,
    /// A client's request head [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub client_head_timeout: Option<Duration>,
    /// Silence of a client within a request body [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub client_body_timeout: Option<Duration>,
    /// After SIGTERM: go on accepting, with readiness failing.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub drain_settle: Duration,
    /// After that: let open streams finish.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
}
