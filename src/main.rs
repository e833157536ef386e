//! The binary: arguments → telemetry → app → wait.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pilotfish::chaos::Broken;
use pilotfish::cli::{Cli, Command, EngineArgs, Launch, ProxyArgs, Unwell};
use pilotfish::config::problem::Problems;
use pilotfish::config::{dynamic, validate};
use pilotfish::registry::{self, Registry};
use pilotfish::sim::SimEngine;
use pilotfish::{app, bench, demo, explain, telemetry};

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
    let cli = Cli::read();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match telemetry::format() {
                Some(_) => tracing::error!("{error:#}"),
                // There is no log yet.
                None => drop(writeln!(std::io::stderr(), "{error:#}")),
            }
            if error.is::<Broken>() || error.is::<Unwell>() {
                return ExitCode::from(1);
            }
            let problems = error.downcast_ref::<Problems>();
            problems.map_or(ExitCode::from(2), ExitCode::from)
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
        Some(Command::Simulate(args)) => args.run(),
        Some(Command::Smart(args)) => args.run(),
        Some(Command::Chaos(args)) => args.run(),
        Some(Command::Engines(args)) => args.run(),
        Some(Command::Explain(args)) => explain::run(args),
        Some(Command::Key(args)) => args.run(),
        Some(Command::Validate { file }) => check(file),
        Some(Command::Schema) => {
            let schema = serde_json::to_string_pretty(&dynamic::schema())?;
            Ok(writeln!(std::io::stdout(), "{schema}")?)
        }
        None => proxy(&cli.proxy),
    }
}

fn proxy(args: &ProxyArgs) -> anyhow::Result<()> {
    let Launch {
        config,
        warnings,
        kept,
    } = args.launch()?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    app::until_stopped(|| {
        let app = app::build_with(config, kept)?;
        tracing::info!(address = %app.address, "serving");
        Ok(app)
    })?;
    Ok(())
}

/// `pilotfish validate`: a file that needs flags beside it is no fault.
fn check(file: &Path) -> anyhow::Result<()> {
    let mut keys = validate::load(file, validate::Format::of(file))?.keys;
    let of = file.display().to_string();
    let mut out = std::io::stdout();
    for (key, name) in registry::without_unregistered(&mut keys) {
        writeln!(
            out,
            "warning: {key}: {name:?} must be registered where the file is used, which cannot be \
             known here"
        )?;
    }
    match Registry::default().resolve(&keys) {
        Ok(resolved) => {
            for warning in resolved.warnings {
                writeln!(out, "warning: {warning}")?;
            }
        }
        Err(list) if list.iter().all(|problem| problem.is_missing) => {
            for missing in list {
                writeln!(out, "warning: {missing}")?;
            }
        }
        Err(list) => return Err(Problems { of, list }.into()),
    }
    Ok(writeln!(std::io::stdout(), "{} is good", file.display())?)
}

fn engine(args: &EngineArgs) -> anyhow::Result<()> {
    let engine = SimEngine::start(args.config())?;
    tracing::info!(address = %engine.address, models = ?args.model, "a simulated engine serves");
    engine.join();
    Ok(())
}
