//! Logs: what is written, how, and where to.

use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The process's log: there is one, as there is one standard error.
static LOG: OnceLock<(reload::Handle<EnvFilter, Registry>, LogFormat)> = OnceLock::new();

/// Sends logs of `level` and above to standard error.
///
/// # Errors
/// A level that is none, or a second call.
pub fn init(level: &str, format: LogFormat) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    let set = match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    set.map_err(|error| anyhow::anyhow!("cannot set up logging: {error}"))?;
    let _ = LOG.set((handle, format));
    Ok(())
}

/// The reference router's names of levels are taken too.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let ours = match level {
        "critical" => "error",
        "warning" => "warn",
        other => other,
    };
    EnvFilter::try_new(ours).map_err(|error| {
        anyhow::anyhow!(
            "log level '{level}': {error}; expected critical, error, warning, info, debug or trace"
        )
    })
}

/// The form in force.
#[must_use]
pub fn format() -> LogFormat {
    LOG.get().map_or(LogFormat::Text, |(_, format)| *format)
}

/// The level in force.
#[must_use]
pub fn level() -> String {
    let level = LOG
        .get()
        .and_then(|(handle, _)| handle.with_current(ToString::to_string).ok());
    level.unwrap_or_else(|| "off".to_owned())
}

/// Changes the level.
///
/// # Errors
/// A level that is none, or no log to change.
pub fn set_level(level: &str) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let (handle, _) = LOG
        .get()
        .ok_or_else(|| anyhow::anyhow!("there is no log"))?;
    handle.reload(filter)?;
    Ok(())
}
