//! What the predictor is given: new rows, a fit now and then, and a file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::background::{Job, Outcome};
use super::{BATCH, Learner};
use crate::smart::history::{Names, Row};
use crate::smart::predict::Predictor;
use crate::smart::store::{self, Covered};

/// Rows since the last fit, before there is another ...
pub(super) const REFIT_ROWS: usize = 200;
/// ... and of the rows at that fit, one part in so many.
const REFIT_PART: usize = 2;
/// Rows since the predictor was saved, before it is again: so many are learned in a
/// blink when the next process starts.
pub(super) const MOST_UNSAVED: usize = 2000;

impl Learner {
    /// Has the predictor know the next new rows, and the history no more than it may
    /// have.
    pub(super) fn learn(&mut self) {
        let count = self.fresh.len().min(BATCH);
        let next: Vec<Row> = self.fresh.drain(..count).collect();
        if !next.is_empty() {
            self.show(self.known.predictor.load().with(&next));
        }
        if let Some(Job::Fit { since, .. }) = &mut self.job {
            next.into_iter().for_each(|row| since.push(row));
        }
        match self.history.compact() {
            // What is saved tells of a file that is no more.
            Ok(was) => self.is_unsaved |= was,
            Err(error) => {
                tracing::error!(%error, "the history cannot be shortened; it grows on");
            }
        }
    }

    fn show(&self, predictor: Predictor) {
        let rows = predictor.rows() as u64;
        self.known.counted.rows.store(rows, Relaxed);
        self.known.predictor.store(Arc::new(predictor));
    }

    pub(super) fn is_fit_due(&self) -> bool {
        let fitted = self.known.predictor.load().fitted_rows();
        self.since_fit >= REFIT_ROWS.max(fitted / REFIT_PART) as u64
    }

    pub(super) fn is_save_due(&self) -> bool {
        self.is_unsaved || self.unsaved > MOST_UNSAVED
    }

    /// Starts what is to be done beside this thread; first the predictor learns all
    /// that is there.
    pub(super) fn begin(&mut self) {
        if !self.is_fit_due() && !self.is_save_due() {
            return;
        }
        self.learn();
        if !self.fresh.is_empty() {
            return;
        }
        if self.is_fit_due() {
            match self.history.rows() {
                Ok(rows) => self.fit(rows),
                Err(error) => {
                    self.since_fit = 0;
                    tracing::error!(%error, "the history cannot be read; the predictor stays as it is");
                }
            }
        } else if let Some(place) = self.place_to_save() {
            self.job = Job::save(place, self.known.predictor.load_full());
        }
    }

    /// Where the predictor is saved now, and what it knows.
    fn place_to_save(&mut self) -> Option<(PathBuf, Covered)> {
        self.is_unsaved = false;
        self.unsaved = 0;
        self.history.place(self.since_fit)
    }

    /// Fits; what has come so far is among the rows.
    pub(super) fn fit(&mut self, rows: impl FnOnce() -> io::Result<Vec<Row>> + Send + 'static) {
        self.job = Job::fit(self.since_fit, rows);
        if self.job.is_none() {
            self.since_fit = 0;
        }
    }

    pub(super) fn finish(&mut self, job: Job) {
        if let Job::Fit { fits, .. } = &job {
            // Until now that counted for the predictor before, which may be saved.
            self.since_fit = self.since_fit.saturating_sub(*fits);
        }
        match job.outcome() {
            Outcome::Fitted {
                predictor,
                since,
                took,
            } => {
                let since = since.into_rows();
                let (rows, seconds) = (predictor.fitted_rows(), took.as_secs_f64());
                tracing::info!(rows, seconds, "smart routing: the predictor was fitted");
                self.show(predictor.with(&since));
                self.name_models();
                let counted = &self.known.counted;
                counted.refits.fetch_add(1, Relaxed);
                let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                counted.fit_millis.store(millis, Relaxed);
                self.is_unsaved = true;
            }
            Outcome::Saved => {}
            Outcome::Failed(what, why) => tracing::error!(why, "smart routing: {what}"),
        }
    }

    /// After a fit: models whose rows have gone leave their room to others.
    fn name_models(&mut self) {
        let predictor = self.known.predictor.load();
        let fresh = self.fresh.iter().flat_map(|row| &row.outputs);
        let fresh = fresh.map(|output| &output.model);
        self.names = Names::of(predictor.models().iter().chain(fresh));
    }

    /// Saves what the next process would have to learn again. What was never fitted
    /// it is to fit, and what is left of many rows it reads.
    pub(super) fn save_last(&mut self) {
        self.learn();
        let predictor = self.known.predictor.load_full();
        let is_new = self.is_unsaved || self.unsaved > 0;
        if !is_new || !self.fresh.is_empty() || predictor.fitted_rows() == 0 {
            return;
        }
        if let Some((folder, covered)) = self.place_to_save()
            && let Err(error) = store::save(&folder, &predictor, covered)
        {
            tracing::error!(%error, "smart routing: the predictor cannot be saved");
        }
    }
}
