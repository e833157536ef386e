//! What is done beside the thread that learns: one thing at a time.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Newest;
use crate::smart::history::Row;
use crate::smart::predict::Predictor;
use crate::smart::store::{self, Covered};

/// A fit takes a core for seconds: everything else comes first.
const NICE: i32 = 10;

/// A thread at work.
#[derive(Debug)]
pub(super) enum Job {
    /// Makes a predictor of all rows.
    Fit {
        thread: JoinHandle<io::Result<(Predictor, Duration)>>,
        /// Rows that have come since.
        since: Newest,
        /// Rows before it that had come since the fit before.
        fits: u64,
    },
    /// Writes a predictor to the disk.
    Save { thread: JoinHandle<io::Result<()>> },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Fitted {
        predictor: Predictor,
        since: Newest,
        took: Duration,
    },
    Saved,
    /// What could not be done, and why.
    Failed(&'static str, String),
}

impl Job {
    /// Fits; `None`, and told: there is no thread.
    pub(super) fn fit(
        fits: u64,
        rows: impl FnOnce() -> io::Result<Vec<Row>> + Send + 'static,
    ) -> Option<Self> {
        let thread = spawn("fit", move || {
            let began = Instant::now();
            let predictor = Predictor::fit(rows()?, &mut |_| {});
            Ok((predictor, began.elapsed()))
        })?;
        let since = Newest::default();
        Some(Self::Fit {
            thread,
            since,
            fits,
        })
    }

    /// Saves; `None`, and told: there is no thread.
    pub(super) fn save(
        (folder, covered): (PathBuf, Covered),
        predictor: Arc<Predictor>,
    ) -> Option<Self> {
        let thread = spawn("save", move || store::save(&folder, &predictor, covered))?;
        Some(Self::Save { thread })
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Fit { thread, .. } => thread.is_finished(),
            Self::Save { thread } => thread.is_finished(),
        }
    }

    /// Waits for it.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Fit { thread, since, .. } => match joined(thread) {
                Ok((predictor, took)) => Outcome::Fitted {
                    predictor,
                    since,
                    took,
                },
                Err(why) => Outcome::Failed("no fit; the predictor stays as it is", why),
            },
            Self::Save { thread } => match joined(thread) {
                Ok(()) => Outcome::Saved,
                Err(why) => Outcome::Failed(
                    "the predictor cannot be saved, and will be made again after a restart",
                    why,
                ),
            },
        }
    }
}

fn joined<T>(thread: JoinHandle<io::Result<T>>) -> Result<T, String> {
    let result = thread.join().map_err(|_| "its thread panicked".to_owned());
    result?.map_err(|error| error.to_string())
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Option<JoinHandle<io::Result<T>>> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the thread keeps its priority");
        }
        work()
    });
    spawned
        .inspect_err(|error| tracing::error!(%error, "smart routing: no thread for a {name}"))
        .ok()
}
