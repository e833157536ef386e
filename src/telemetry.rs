//! Logs: what is written, how, and where to.

use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The process's log: there is one, as there is one standard error.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    format: LogFormat,
}

/// A level that is none.
#[derive(Debug, thiserror::Error)]
#[error("log level '{0}' is unknown; expected critical, error, warning, info, debug or trace")]
pub struct UnknownLevel(String);

/// Sends logs of `level` and above to standard error.
///
/// # Errors
/// A level that is none, or a second call.
pub fn init(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    // No colours: the formatter is built without them.
    let lines = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let set = match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
    set.map_err(|error| anyhow::anyhow!("cannot set up logging: {error}"))?;
    let level = handle;
    let _ = LOG.set(Log { level, format });
    Ok(())
}

/// Our own names of levels, and the reference router's.
fn parse(level: &str) -> Result<LevelFilter, UnknownLevel> {
    Ok(match level.to_ascii_lowercase().as_str() {
        "critical" | "error" => LevelFilter::ERROR,
        "warning" | "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return Err(UnknownLevel(level.to_owned())),
    })
}

/// The form in force; `None` before there is a log.
#[must_use]
pub fn format() -> Option<LogFormat> {
    LOG.get().map(|log| log.format)
}

/// The level in force.
#[must_use]
pub fn level() -> String {
    let level = LOG.get().and_then(|log| log.level.clone_current());
    level.unwrap_or(LevelFilter::OFF).to_string()
}

/// Changes the level.
///
/// # Errors
/// A level that is none, or no log to change.
pub fn set_level(level: &str) -> anyhow::Result<()> {
    let level = parse(level)?;
    let log = LOG
        .get()
        .ok_or_else(|| anyhow::anyhow!("there is no log"))?;
    log.level.reload(level)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_name_and_no_other_is_taken() {
        assert_eq!(parse("WARNING").unwrap(), LevelFilter::WARN);
        assert_eq!(parse("critical").unwrap(), LevelFilter::ERROR);
        for unknown in ["nonsense", "", "info,hyper=debug", "off"] {
            assert!(parse(unknown).is_err(), "{unknown}");
        }
    }
}
