//! What is watched: statistics, logs and traces.

use std::time::Duration;

use clap::Args;

use crate::config::problem::Problem;
use crate::config::{
    AccessLog, Collector, LineForm, LogTarget, Otlp, StatsSettings, TraceSettings, duration,
};

/// What is watched.
#[derive(Debug, Args)]
#[command(next_help_heading = "Monitoring")]
pub struct MonitoringArgs {
    /// How often engines' own metrics are read.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive)]
    pub engine_stats_interval: Duration,
    /// The sliding window of the statistics.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive)]
    pub request_stats_window: Duration,
    /// Where traces go: HOST:PORT (OTLP over gRPC), or http(s)://HOST:PORT[/PATH]
    /// (OTLP over HTTP) [default: nowhere].
    #[arg(long, value_name = "COLLECTOR", value_parser = collector)]
    pub otel_endpoint: Option<Collector>,
    /// The service's name in traces.
    #[arg(long, value_name = "NAME", default_value = "pilotfish", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub otel_service_name: String,
    /// Speak TLS to HOST:PORT.
    #[arg(long)]
    pub otel_secure: bool,
    /// Share of the traces begun here that are recorded, 0 to 1; of those begun
    /// by clients, the clients decide.
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = share)]
    pub otel_sample: f64,
    /// Write a line for each request to that file, or to standard output (-)
    /// [default: none].
    #[arg(long, value_name = "FILE", value_parser = LogTarget::parse, help_heading = "Logging")]
    pub access_log: Option<LogTarget>,
    /// The form of such a line.
    #[arg(
        long,
        value_name = "FORM",
        default_value = "json",
        help_heading = "Logging"
    )]
    pub access_log_format: LineForm,
    /// Log a table of the engines, and each choice of one.
    #[arg(long, help_heading = "Logging")]
    pub log_stats: bool,
    /// How often the table is logged.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive, help_heading = "Logging")]
    pub log_stats_interval: Duration,
    /// Log each choice of an engine [default: as --log-stats].
    #[arg(long, value_name = "BOOL", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", help_heading = "Logging")]
    pub log_requests: Option<bool>,
}

impl MonitoringArgs {
    pub(super) fn stats(&self) -> StatsSettings {
        StatsSettings {
            window: self.request_stats_window,
            scrape_every: self.engine_stats_interval,
            log_every: self.log_stats.then_some(self.log_stats_interval),
            log_requests: self.log_requests.unwrap_or(self.log_stats),
        }
    }

    pub(super) fn access_log(&self) -> Option<AccessLog> {
        let to = self.access_log.clone()?;
        let form = self.access_log_format;
        Some(AccessLog { to, form })
    }

    /// Where traces go.
    ///
    /// # Errors
    /// A URL that says the contrary of `--otel-secure`.
    pub(super) fn traces(&self) -> Result<Option<TraceSettings>, Problem> {
        let Some(mut collector) = self.otel_endpoint.clone() else {
            return Ok(None);
        };
        if self.otel_secure && collector.speaks == Otlp::Http && !collector.is_secure {
            let says = "speaks TLS, but --otel-endpoint is http://; write https://";
            return Err(Problem::at("--otel-secure".to_owned(), says.to_owned()));
        }
        collector.is_secure |= self.otel_secure;
        Ok(Some(TraceSettings {
            collector,
            service: self.otel_service_name.clone(),
            sample: self.otel_sample,
        }))
    }
}

fn collector(text: &str) -> Result<Collector, String> {
    Collector::parse(text).map_err(|error| error.to_string())
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().unwrap_or(f64::NAN);
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(format!(
        "'{text}' is no share; expected a number from 0 to 1"
    ))
}

pub(super) fn positive(text: &str) -> Result<Duration, String> {
    let given = duration(text)?;
    if given < Duration::from_millis(10) {
        return Err(format!("'{text}' is too short; expected more than 10ms"));
    }
    Ok(given)
}
