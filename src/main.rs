//! The binary: arguments → telemetry → app → wait.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pilotfish::cli::{Cli, Command, EngineArgs, ProxyArgs, UsageError};
use pilotfish::sim::SimEngine;
use pilotfish::{app, bench, demo, telemetry};

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

#[cfg(all(feature = "mimalloc", not(feature = "count-allocations")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages would make an idle process of 9 MiB one of 15.
    let _ = nix::sys::prctl::set_thp_disable(true);
    // A stream takes two descriptors, and many systems start us with 1,024.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
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
    telemetry::init(&cli.log_level, cli.log_format)?;
    match &cli.command {
        Some(Command::Demo { port }) => demo::run(*port),
        Some(Command::Engine(args)) => engine(args),
        Some(Command::Bench { requests, json }) => {
            let report = bench::run((*requests).max(100), *json)?;
            std::io::stdout().write_all(report.as_bytes())?;
            Ok(())
        }
        None => proxy(&cli.proxy),
    }
}

fn proxy(args: &ProxyArgs) -> anyhow::Result<()> {
    let app = app::build(args.config()?, None)?;
    tracing::info!(address = %app.address, "serving");
    app::until_stopped(app)?;
    Ok(())
}

fn engine(args: &EngineArgs) -> anyhow::Result<()> {
    let engine = SimEngine::start(args.config())?;
    tracing::info!(address = %engine.address, models = ?args.model, "a simulated engine serves");
    engine.join();
    Ok(())
}
