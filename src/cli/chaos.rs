//! `pilotfish chaos`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;

use super::progress;
use crate::chaos::{Broken, Options, run};
use crate::telemetry;

/// Flags of `pilotfish chaos`.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// Seconds for which engines are injured; the end takes some more.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// Where all random numbers begin [default: anywhere; it is told].
    #[arg(long)]
    seed: Option<u64>,
    /// Simulated engines.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=64))]
    engines: u16,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=128))]
    clients: u16,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl ChaosArgs {
    /// Runs it, and prints the report.
    ///
    /// # Errors
    /// [`Broken`] when an invariant was; else, why it could not be run.
    pub fn run(&self) -> anyhow::Result<()> {
        // Each injury makes warnings: thousands, at the usual level.
        if telemetry::level().eq_ignore_ascii_case("info") {
            telemetry::set_level("error")?;
        }
        let options = Options {
            time: Duration::from_secs(self.secs.into()),
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            engines: self.engines.into(),
            clients: self.clients.into(),
        };
        // Told at once, since a run that never ends is worth repeating too.
        writeln!(std::io::stderr(), "seed {}", options.seed)?;
        let began = Instant::now();
        let report = std::thread::scope(|scope| {
            let running = scope.spawn(|| run(&options));
            let done = || usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX);
            let all = usize::try_from(self.secs).unwrap_or(usize::MAX);
            progress::show(all, "seconds", done, || running.is_finished());
            running.join().map_err(|_| anyhow!("the run panicked"))?
        })?;
        let mut out = std::io::stdout();
        if self.json {
            let mut page = serde_json::to_value(&report)?;
            page["is_good"] = report.is_good().into();
            writeln!(out, "{page:#}")?;
        } else {
            out.write_all(report.table().as_bytes())?;
        }
        if report.is_good() {
            return Ok(());
        }
        Err(Broken.into())
    }
}
