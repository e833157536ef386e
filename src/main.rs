//! The binary: arguments → telemetry → app → wait.

use std::process::ExitCode;

use clap::Parser as _;
use pilotfish::cli::{Cli, UsageError};
use pilotfish::{app, telemetry};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            let usage = error.downcast_ref::<UsageError>();
            ExitCode::from(usage.map_or(2, UsageError::exit_code))
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    telemetry::init(&cli.proxy.log_level, cli.proxy.log_format)?;
    let app = app::build(cli.proxy.config()?, None)?;
    tracing::info!(address = %app.address, "serving");
    app::until_stopped(app)
}
