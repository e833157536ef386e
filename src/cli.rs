//! Flags: names, defaults and meanings as in the vLLM production-stack router,
//! plus our own. Every flag may also be given as `PILOTFISH_<FLAG>`.

mod auth;
mod chaos;
mod engine;
mod engine_tls;
mod engines;
mod explain;
mod forwarded;
mod ignored;
mod key;
mod locality;
mod progress;
mod proxy;
mod simulate;
mod smart;
mod tls;

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::telemetry::LogFormat;
pub use auth::AuthArgs;
pub use chaos::ChaosArgs;
pub use engine::EngineArgs;
pub use engines::{EnginesArgs, Unwell};
pub use explain::ExplainArgs;
pub use ignored::{Ignored, REFUSED, WITHOUT_EFFECT};
pub use key::KeyArgs;
pub use locality::LocalityArgs;
pub use proxy::{Launch, ProxyArgs};
pub use simulate::SimulateArgs;
pub use smart::SmartArgs;

/// The inference sidecar: picks the best engine for every OpenAI-compatible
/// request and streams the answer through.
///
/// Every flag may also be given by the environment: --log-level as
/// PILOTFISH_LOG_LEVEL. Flags come before the environment, both before
/// defaults; the keys of a dynamic file come before all.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Something else than the proxy.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The proxy's flags.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// critical, error, warning, info, debug or trace.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        global = true,
        help_heading = "Logging"
    )]
    pub log_level: String,
    /// The form of a log line.
    #[arg(long, default_value = "text", global = true, help_heading = "Logging")]
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
    /// What each policy does to a trace of requests, in simulated time.
    Simulate(SimulateArgs),
    /// What smart routing learns from: a history of models' answers.
    Smart(SmartArgs),
    /// The proxy before engines that are killed, hung and broken, with every
    /// byte of every answer checked; exit 1 when an invariant breaks.
    Chaos(ChaosArgs),
    /// The engines of a running sidecar: their state, load and speed.
    Engines(EnginesArgs),
    /// Who would get a request under a configuration file, and why.
    Explain(ExplainArgs),
    /// A new key for a caller, and its entry for the file of --api-keys.
    Key(KeyArgs),
    /// Check a dynamic configuration file: exit 0, or all that is wrong with it.
    Validate {
        /// The file; YAML unless its name ends in .json.
        file: PathBuf,
    },
    /// Print the JSON Schema of the dynamic configuration file.
    Schema,
}

impl Cli {
    /// The command with all its flags, and the environment variables for them.
    #[must_use]
    pub fn with_environment() -> clap::Command {
        Self::command().mut_args(|arg| match arg.get_long() {
            Some(long) if long != "help" && long != "version" => {
                let name = long.to_uppercase().replace('-', "_");
                let name = format!("PILOTFISH_{name}");
                if is_service_link(&name) {
                    return arg;
                }
                let arg = if matches!(arg.get_action(), clap::ArgAction::SetTrue) {
                    arg.value_parser(BoolishValueParser::new())
                } else {
                    arg
                };
                // Their names follow one rule, which the help tells.
                arg.env(name).hide_env(true)
            }
            _ => arg,
        })
    }

    /// Reads the process's arguments and environment; exits on `--help`, on
    /// `--version`, and with 2 when they are wrong.
    #[must_use]
    pub fn read() -> Self {
        let mut matches = Self::with_environment().get_matches();
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
    }
}

/// Kubernetes puts `PILOTFISH_PORT=tcp://10.0.0.1:80` into every pod beside a
/// Service called `pilotfish`: no setting of anyone's.
fn is_service_link(name: &str) -> bool {
    let value = std::env::var(name).unwrap_or_default();
    ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme))
}
