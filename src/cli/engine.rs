//! The simulated engine's flags.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;

use crate::config::duration;
use crate::sim::SimConfig;
use crate::sim::faults::Fault;
use crate::sim::speed::Speed;

/// The simulated engine's flags.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8100)]
    pub port: u16,
    /// A model that it serves; may be repeated.
    #[arg(long, required = true)]
    pub model: Vec<String>,
    /// Before any prompt is looked at.
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = duration)]
    pub ttft: Duration,
    /// Between two tokens, when alone.
    #[arg(long, value_name = "DURATION", default_value = "20ms", value_parser = duration)]
    pub itl: Duration,
    /// Prompt tokens a second.
    #[arg(long, value_name = "TOKENS", default_value_t = 8000.0)]
    pub prefill: f64,
    /// Sequences that run at once; more wait.
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub max_running: usize,
    /// A fault that every generating request meets: status=CODE, busy=SECONDS,
    /// refuse, reset-before-head, garbage, garbage-head, continue-forever,
    /// reset-after=EVENTS, truncate-after=EVENTS, garbage-after=EVENTS,
    /// stall-after=EVENTS, surplus, slow=MILLISECONDS, hang,
    /// slow-head=MILLISECONDS, early or restart. A request may ask for one by
    /// its x-sim-fault field.
    #[arg(long)]
    pub fault: Option<Fault>,
}

impl EngineArgs {
    /// The simulated engine that these flags mean.
    #[must_use]
    pub fn config(&self) -> SimConfig {
        SimConfig {
            listen: SocketAddr::new(self.host, self.port),
            models: self.model.clone(),
            speed: Speed {
                base_ttft: self.ttft,
                itl: self.itl,
                prefill_tokens_per_second: self.prefill.max(1.0),
                max_running: self.max_running.max(1),
                ..Speed::default()
            },
            fault: self.fault.clone(),
        }
    }
}
