//! `pilotfish smart`: the history that smart routing learns from.

mod eval;
mod import;
mod table;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::progress;
use crate::registry::store::{self as state, Lock};
use crate::smart::history::Row;
use crate::smart::predict::{FitSummary, Predictor};
use crate::smart::store::{self, Covered, Store};
use eval::EvalArgs;
use import::ImportArgs;

/// With fewer rows a fit's own errors say little.
const FEW_ROWS: usize = 200;

/// Flags of `pilotfish smart`.
#[derive(Debug, Args)]
pub struct SmartArgs {
    #[command(subcommand)]
    command: Command,
}

/// What can be done with a history.
#[derive(Debug, Subcommand)]
enum Command {
    /// Add JSON lines to the history in a state folder, and fit the predictor.
    Import(ImportArgs),
    /// Fit the predictor of a state folder anew.
    Fit(FitArgs),
    /// What smart routing is worth on a file of outcomes.
    Eval(EvalArgs),
}

/// Flags of `pilotfish smart fit`.
#[derive(Debug, Args)]
struct FitArgs {
    /// The folder that the proxy is given; the proxy must not run.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl SmartArgs {
    /// Does what was asked for, and prints what came of it.
    ///
    /// # Errors
    /// A file or a state folder that cannot be used.
    pub fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::Import(args) => args.run(),
            Command::Fit(args) => args.run(),
            Command::Eval(args) => args.run(),
        }
    }
}

impl FitArgs {
    fn run(&self) -> anyhow::Result<()> {
        let (_lock, store) = open(&self.state_dir)?;
        let rows = store.log.snapshot()?.rows()?;
        if rows.is_empty() {
            anyhow::bail!(
                "{}: there is no history: `pilotfish smart import` puts one there",
                store.history().display()
            );
        }
        let models = table::models(&rows);
        let fitted = fit(&store, rows)?;
        if self.json {
            return print(&format!("{}\n", serde_json::to_string_pretty(&fitted)?));
        }
        print(&format!("{models}\n{fitted}"))
    }
}

/// A fit, as it is told of.
#[derive(Debug, Serialize)]
struct Fitted {
    /// The rows of which the predictor is made.
    rows: usize,
    /// How long it took.
    seconds: f64,
    /// What was chosen.
    summary: FitSummary,
}

impl std::fmt::Display for Fitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, seconds, .. } = self;
        writeln!(f, "fitted {rows} rows in {seconds:.1} s")?;
        writeln!(f, "{}", self.summary)?;
        if self.summary.models.iter().all(|model| model.scores == 0) {
            writeln!(
                f,
                "no answer has a score: of which model is right nothing can be learned"
            )?;
        } else if *rows < FEW_ROWS {
            writeln!(f, "the errors are of few rows, and may be far off")?;
        }
        Ok(())
    }
}

/// The folder of a history, which is ours as long as the lock lives.
fn open(state_dir: &Path) -> anyhow::Result<(Lock, Store)> {
    let lock = state::lock(state_dir).map_err(|error| match error {
        state::StoreError::InUse(folder) => anyhow::anyhow!(
            "{}: another pilotfish uses this folder. If it is a `pilotfish smart`, wait until that \
             has ended; if it is a proxy, stop it, do this again, and start it: while it runs, it \
             learns from POST /v1/feedback on its admin listener",
            folder.display()
        ),
        other => other.into(),
    })?;
    let opened = Store::open(state_dir)?;
    Ok((lock, opened.store))
}

/// Makes a predictor of these rows, which are all of the store's, and keeps it.
fn fit(store: &Store, rows: Vec<Row>) -> anyhow::Result<Fitted> {
    let began = Instant::now();
    let count = rows.len();
    let predictor = with_bar(count, "rows fitted", |done| {
        Predictor::fit(rows, &mut |part| done.store(share(count, part), Relaxed))
    });
    let covered = Covered {
        mark: store.log.mark(),
        since_fit: 0,
    };
    store::save(store.folder(), &predictor, covered).with_context(|| {
        let folder = store.folder().display();
        format!(
            "cannot save the predictor in {folder}; the rows are kept: run `pilotfish smart fit`"
        )
    })?;
    Ok(Fitted {
        rows: count,
        seconds: began.elapsed().as_secs_f64(),
        summary: predictor.summary(),
    })
}

/// Whoever does not read it to its end has had enough.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a part of a bar"
)]
fn share(all: usize, part: f32) -> usize {
    (all as f64 * f64::from(part.clamp(0.0, 1.0))) as usize
}

/// Works while a bar shows how much is done.
fn with_bar<T: Send>(all: usize, unit: &str, work: impl FnOnce(&AtomicUsize) -> T + Send) -> T {
    let done = AtomicUsize::new(0);
    let shows = std::thread::current();
    let worked = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let worked = work(&done);
            shows.unpark();
            worked
        });
        progress::show(all, unit, || done.load(Relaxed), || worker.is_finished());
        worker.join()
    });
    worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
