//! Flags: names, defaults and meanings as in the vLLM production-stack router,
//! plus our own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{
    Config, DrainSettings, Limits, ListedEngine, RoutingLogic, Timeouts, default_workers,
};
use crate::sim::SimConfig;
use crate::sim::faults::Fault;
use crate::sim::speed::Speed;
use crate::telemetry::LogFormat;

/// The inference sidecar: picks the best engine for every OpenAI-compatible
/// request and streams the answer through.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Something else than the proxy.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The proxy's flags.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// error, warn, info, debug or trace.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        global = true,
        help_heading = "Logs"
    )]
    pub log_level: String,
    /// The form of a log line.
    #[arg(long, default_value = "text", global = true, help_heading = "Logs")]
    pub log_format: LogFormat,
}

/// What else this binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Three simulated engines and the proxy in one process, ready to curl.
    Demo {
        /// Port to listen on, on 127.0.0.1.
        #[arg(long, default_value_t = 8001)]
        port: u16,
    },
    /// A simulated engine that behaves as vLLM does on the wire.
    Engine(EngineArgs),
    /// What the proxy adds, measured here against a simulated engine.
    Bench {
        /// Requests for each line of the result.
        #[arg(long, default_value_t = 20_000)]
        requests: usize,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

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
    /// refuse, reset-before-head, reset-after=EVENTS, truncate-after=EVENTS,
    /// garbage-after=EVENTS, stall-after=EVENTS, hang, slow-head=MILLISECONDS,
    /// early or restart. A request may ask for one by its x-sim-fault field.
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

/// The proxy's flags.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), help_heading = "Listening")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 8001, help_heading = "Listening")]
    pub port: u16,
    /// Data-path threads [default: 1 up to 2 cores, 2 up to 8, else 4].
    #[arg(long, help_heading = "Listening")]
    pub workers: Option<usize>,

    /// Where engines come from.
    #[arg(long, help_heading = "Engines")]
    pub service_discovery: Option<Discovery>,
    /// Engine URLs, separated by commas.
    #[arg(long, value_name = "URL,URL", help_heading = "Engines")]
    pub static_backends: Option<String>,
    /// The model of each engine, in the same order.
    #[arg(long, value_name = "MODEL,MODEL", help_heading = "Engines")]
    pub static_models: Option<String>,
    /// How an engine is chosen.
    #[arg(long, help_heading = "Engines")]
    pub routing_logic: Option<Logic>,

    /// Bytes of a request body that are held until it can be routed.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_peek_bytes, help_heading = "Bounds")]
    pub max_peek_bytes: usize,
    /// Bytes of a request body that are kept for a retry.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().max_replay_bytes, help_heading = "Bounds")]
    pub max_replay_bytes: usize,

    /// Connecting to an engine.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub connect_timeout: Duration,
    /// Waiting for the head of an engine's answer.
    #[arg(long, value_name = "DURATION", default_value = "600s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub engine_head_timeout: Duration,
    /// Silence of an engine within an answer.
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub engine_idle_timeout: Duration,
    /// A client's request head.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub client_head_timeout: Duration,
    /// Silence of a client within a request body.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub client_body_timeout: Duration,
    /// After SIGTERM: go on accepting, with readiness failing.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub drain_settle: Duration,
    /// After that: let open streams finish.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Deadlines (250ms, 30s, 5m, or seconds)")]
    pub drain_timeout: Duration,
}

/// `--service-discovery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Discovery {
    /// The engines of --static-backends.
    Static,
}

/// `--routing-logic`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Logic {
    /// Each engine in its turn.
    #[value(name = "roundrobin")]
    RoundRobin,
}

/// Why flags make no configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UsageError {
    /// A required setting is missing: exit code 1, as the reference.
    #[error("{flag} is required: {hint}")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// What to give.
        hint: &'static str,
    },
    /// Anything else: exit code 2.
    #[error("{0}")]
    Bad(String),
}

impl UsageError {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } => 1,
            Self::Bad(_) => 2,
        }
    }
}

impl ProxyArgs {
    /// The configuration that these flags mean.
    ///
    /// # Errors
    /// What is missing, or does not fit together.
    pub fn config(&self) -> Result<Config, UsageError> {
        let missing = |flag, hint| UsageError::Missing { flag, hint };
        let Discovery::Static = self
            .service_discovery
            .ok_or_else(|| missing("--service-discovery", "static"))?;
        let Logic::RoundRobin = self
            .routing_logic
            .ok_or_else(|| missing("--routing-logic", "roundrobin"))?;
        let backends = self
            .static_backends
            .as_deref()
            .ok_or_else(|| missing("--static-backends", "engine URLs, separated by commas"))?;
        let models = self
            .static_models
            .as_deref()
            .ok_or_else(|| missing("--static-models", "one model for each engine"))?;
        let defaults = Config::default();
        Ok(Config {
            listen: SocketAddr::new(self.host, self.port),
            engines: listed(backends, models)?,
            routing: RoutingLogic::RoundRobin,
            workers: self.workers.unwrap_or_else(default_workers),
            limits: Limits {
                max_peek_bytes: self.max_peek_bytes,
                max_replay_bytes: self.max_replay_bytes,
                ..defaults.limits
            },
            timeouts: Timeouts {
                client_head: self.client_head_timeout,
                client_body_idle: self.client_body_timeout,
                connect: self.connect_timeout,
                engine_head: self.engine_head_timeout,
                engine_idle: self.engine_idle_timeout,
                ..defaults.timeouts
            },
            drain: DrainSettings {
                settle: self.drain_settle,
                timeout: self.drain_timeout,
            },
            stream_error_events: true,
        })
    }
}

fn listed(backends: &str, models: &str) -> Result<Vec<ListedEngine>, UsageError> {
    let split = |list: &str| -> Vec<String> {
        let items = list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        items.map(str::to_owned).collect()
    };
    let (urls, models) = (split(backends), split(models));
    if urls.len() != models.len() {
        return Err(UsageError::Bad(format!(
            "--static-backends lists {} engines but --static-models {} models: give one model for each engine",
            urls.len(),
            models.len()
        )));
    }
    let pairs = urls.into_iter().zip(models);
    Ok(pairs
        .map(|(url, model)| ListedEngine {
            url,
            models: vec![model],
        })
        .collect())
}

/// Reads `250ms`, `30s`, `5m`, or seconds as a number.
///
/// # Errors
/// Says what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let value: Result<f64, _> = number.trim().parse();
    value
        .ok()
        .and_then(|value| Duration::try_from_secs_f64(value * unit).ok())
        .ok_or_else(|| format!("'{text}' is no duration; expected 250ms, 30s, 5m or seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1.5", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "x", "-1s", "1h", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    fn config(flags: &str) -> Result<Config, UsageError> {
        let words = std::iter::once("pilotfish").chain(flags.split_whitespace());
        Cli::try_parse_from(words).unwrap().proxy.config()
    }

    #[test]
    fn flags_make_a_configuration() {
        let config = config(
            "--port 9 --service-discovery static --static-backends http://a:1,http://b:2 \
             --static-models m,n --routing-logic roundrobin --drain-settle 100ms",
        )
        .unwrap();
        assert_eq!(config.listen.port(), 9);
        assert_eq!(config.engines[1].url, "http://b:2");
        assert_eq!(config.engines[1].models, ["n"]);
        assert_eq!(config.drain.settle, Duration::from_millis(100));
    }

    #[test]
    fn what_is_missing_exits_with_1_and_what_is_wrong_with_2() {
        let missing = config("").unwrap_err();
        assert_eq!(missing.exit_code(), 1);
        assert!(missing.to_string().contains("--service-discovery"));
        let wrong = config(
            "--service-discovery static --static-backends http://a,http://b \
             --static-models m --routing-logic roundrobin",
        )
        .unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
        let message = wrong.to_string();
        assert!(
            message.contains("2 engines") && message.contains("1 models"),
            "{message}"
        );
    }
}
