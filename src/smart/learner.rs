//! The thread that learns: it remembers requests that have ended until somebody
//! says how good their answers were, writes that down, and keeps the predictor
//! up with it.
//!
//! Feedback is acknowledged when it is on the disk; all that waits is synced at
//! once. New rows come to the predictor once a second; when they have become
//! many, the predictor is fitted anew on a thread of its own, while this one goes
//! on. Nobody waits for this thread but who sends feedback: what it has no room
//! for is dropped, and counted.

mod background;
mod history;
mod lengths;
mod score;
mod teaching;
mod waiting;
mod work;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::background::Job;
use self::history::History;
pub use self::lengths::Lengths;
use self::lengths::Table;
use self::score::{Early, Given, Score, add_gap};
pub use self::teaching::{Counted, Ended, Feedback, FeedbackError, Gap, MOST_QUEUED, Teaching};
use self::teaching::{Known, QUEUE, Told};
use self::waiting::{Found, Waiting};
use super::history::{Names, Newest, Row, check_name, cut};
use super::predict::Predictor;
use super::store::{Contents, StoreError};

/// How long feedback waits for its request: workers tell of requests in batches.
const EARLY: Duration = Duration::from_millis(300);
/// Feedback that waits for its request.
const MOST_EARLY: usize = 16;
/// How often the predictor gets new rows, and what others read is published.
const PUBLISHED: Duration = Duration::from_secs(1);
/// How often output lengths are kept.
const KEPT: Duration = Duration::from_secs(60);
/// How soon something that is due is looked at.
const SOON: Duration = Duration::from_millis(100);
/// Rows that the predictor gets at once; 40,000 long ones take it seconds.
const BATCH: usize = 1024;
/// As the control thread: where there is but one core, streams come first.
const NICE: i32 = 5;

/// What a learner works on.
#[derive(Debug, Default)]
pub struct LearnerSpec {
    /// The state folder, whose lock is held; without one nothing is kept.
    pub folder: Option<PathBuf>,
}

/// The thread's own.
#[derive(Debug)]
pub struct Learner {
    known: Arc<Known>,
    history: History,
    waiting: Waiting,
    early: VecDeque<Early>,
    given: Vec<Given>,
    /// The models of the history, which are all that have room in it.
    names: Names,
    /// Rows that are kept, and that the predictor does not know yet.
    fresh: VecDeque<Row>,
    gaps: Vec<Gap>,
    lengths: Table,
    job: Option<Job>,
    /// Rows that are kept since the fit of the predictor.
    since_fit: u64,
    /// Whether the predictor's file knows nothing of the history as it is now.
    is_unsaved: bool,
    /// Rows that are kept since the predictor was saved.
    unsaved: usize,
    published: Instant,
    kept: Instant,
}

impl Learner {
    /// Reads what is kept, and starts the thread; it ends when the last
    /// [`Teaching`] is gone. What the predictor does not know yet it learns
    /// afterwards; where it must be made of the history, the empty one predicts until
    /// that is done.
    ///
    /// # Errors
    /// When the folder cannot be used, or there is no thread.
    pub fn start(spec: LearnerSpec) -> io::Result<(Teaching, JoinHandle<()>)> {
        let learner = Self::open(spec.folder, Instant::now())?;
        let (to, from) = sync_channel(QUEUE);
        let teaching = Teaching::new(to, Arc::clone(&learner.known));
        let thread = std::thread::Builder::new().name("learner".to_owned());
        let thread = thread.spawn(move || learner.run(&from))?;
        Ok((teaching, thread))
    }

    fn open(folder: Option<PathBuf>, now: Instant) -> Result<Self, StoreError> {
        let (history, contents, names) = History::open(folder)?;
        let lengths = history.lengths();
        let (predictor, behind, since_fit, rows) = match contents {
            Contents::Known {
                predictor,
                behind,
                since_fit,
            } => (predictor, behind, since_fit, None),
            Contents::Rows { rows, why } => (Predictor::empty(), Vec::new(), 0, Some((rows, why))),
        };
        let mut learner = Self {
            known: Arc::new(Known::new(predictor, lengths.published())),
            history,
            waiting: Waiting::default(),
            early: VecDeque::new(),
            given: Vec::new(),
            names,
            unsaved: behind.len(),
            fresh: behind.into(),
            gaps: Vec::new(),
            lengths,
            job: None,
            since_fit,
            is_unsaved: false,
            published: now,
            kept: now,
        };
        let predictor = learner.known.predictor.load_full();
        if predictor.rows() > 0 {
            let (rows, fitted) = (predictor.rows(), predictor.fitted_rows());
            let (models, behind) = (predictor.models().len(), learner.fresh.len());
            tracing::info!(
                rows,
                behind,
                fitted,
                models,
                "smart routing: the history is known"
            );
        }
        if let Some((rows, why)) = rows {
            tracing::warn!(
                why,
                rows = rows.len(),
                "smart routing: the predictor is made again from the history; until then it knows \
                 nothing"
            );
            learner.fit(move || Ok(rows));
        }
        Ok(learner)
    }

    fn run(mut self, told: &Receiver<Told>) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the thread that learns keeps its priority");
        }
        // What is due since the last process.
        self.tick(Instant::now());
        loop {
            match told.recv_timeout(self.pause()) {
                Ok(first) => {
                    let now = Instant::now();
                    self.take(first, now);
                    // All that waits is written at once.
                    for next in told.try_iter().take(QUEUE) {
                        self.take(next, now);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            self.tick(Instant::now());
        }
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        if self.fresh.len() >= BATCH {
            return Duration::ZERO;
        }
        let is_idle = self.early.is_empty()
            && self.fresh.is_empty()
            && self.job.is_none()
            && !self.is_fit_due()
            && !self.is_save_due()
            && !self.lengths.is_new();
        if is_idle { KEPT } else { SOON }
    }

    fn take(&mut self, told: Told, now: Instant) {
        match told {
            Told::Ended(list) => {
                let held = list.iter().map(Ended::held).sum();
                self.known.queued.fetch_sub(held, Relaxed);
                for ended in list {
                    self.ended(ended, now);
                }
            }
            Told::Feedback(score) => self.feedback(score, now),
        }
    }

    fn ended(&mut self, mut ended: Ended, now: Instant) {
        if check_name(&ended.model).is_err() {
            self.known.counted.dropped.fetch_add(1, Relaxed);
            return;
        }
        if let Some(tokens) = ended.output_tokens {
            self.lengths.add(&ended.model, ended.input_tokens, tokens);
        }
        if let Some(query) = &mut ended.query {
            query.truncate(cut(query).len());
            query.shrink_to_fit();
        }
        let is_awaited = |early: &&Early| early.given.request_id == ended.request_id;
        let awaited = self.early.iter().filter(is_awaited).count();
        let id = (awaited > 0).then(|| ended.request_id.clone());
        self.waiting.add(ended, now);
        for _ in 0..awaited {
            let at = self
                .early
                .iter()
                .position(|early| Some(&early.given.request_id) == id.as_ref());
            if let Some(early) = at.and_then(|at| self.early.remove(at)) {
                self.feedback(early.given, now);
            }
        }
    }

    fn feedback(&mut self, score: Score, now: Instant) {
        match self.waiting.take(&score.request_id, now) {
            Found::Asked(mut asked) => match self.names.get(&asked.model) {
                Some(model) => {
                    asked.model = model;
                    self.given.push(Given { score, asked });
                }
                None => {
                    // There may be room later.
                    self.waiting.add(asked, now);
                    score.fails(FeedbackError::Models);
                }
            },
            Found::Given => score.fails(FeedbackError::Again),
            Found::Nothing if self.early.len() < MOST_EARLY => self.early.push_back(Early {
                until: now + EARLY,
                given: score,
            }),
            Found::Nothing => score.fails(FeedbackError::Busy),
        }
    }

    /// Whatever is due.
    fn tick(&mut self, now: Instant) {
        self.write(now);
        while self.early.front().is_some_and(|early| early.until <= now) {
            if let Some(early) = self.early.pop_front() {
                early.given.fails(FeedbackError::Unknown);
            }
        }
        self.waiting.forget(now);
        if let Some(job) = self.job.take_if(|job| job.is_over()) {
            self.finish(job);
        }
        if now.duration_since(self.published) >= PUBLISHED {
            self.published = now;
            self.publish();
        } else if self.fresh.len() >= BATCH {
            self.learn();
        }
        if self.job.is_none() {
            self.begin();
        }
        if now.duration_since(self.kept) >= KEPT {
            self.kept = now;
            self.keep_lengths();
        }
    }

    /// Writes all feedback that waits, and then says so.
    fn write(&mut self, now: Instant) {
        if self.given.is_empty() {
            return;
        }
        let given = std::mem::take(&mut self.given);
        let rows: Vec<Row> = given.iter().map(Given::row).collect();
        if let Err(error) = self.history.append(&rows) {
            tracing::error!(%error, feedback = rows.len(), "feedback cannot be kept, and is refused");
            let failed = &self.known.counted.failed;
            failed.fetch_add(rows.len() as u64, Relaxed);
            for one in given {
                // It may be given again.
                self.waiting.add(one.asked, now);
                one.score.fails(FeedbackError::Disk(error.to_string()));
            }
            return;
        }
        self.since_fit += rows.len() as u64;
        self.unsaved += rows.len();
        self.fresh.extend(rows);
        for one in given {
            let counted = &self.known.counted;
            counted.accepted.fetch_add(1, Relaxed);
            add_gap(&mut self.gaps, &one);
            one.succeeds(self.history.is_durable());
        }
    }

    /// Lets others see what is new.
    fn publish(&mut self) {
        self.learn();
        if self.lengths.take_new() {
            self.known.lengths.store(Arc::new(self.lengths.published()));
        }
        let is_same = self.known.counted.gaps.load().as_slice() == self.gaps.as_slice();
        if !is_same {
            self.known.counted.gaps.store(Arc::new(self.gaps.clone()));
        }
    }

    fn keep_lengths(&mut self) {
        if let Err(error) = self.history.keep_lengths(&mut self.lengths) {
            tracing::warn!(%error, "the lengths of answers cannot be kept");
        }
    }

    /// Writes everything, and tells all who wait. A fit that is under way is left:
    /// its rows are on the disk.
    fn end(mut self) {
        self.write(Instant::now());
        self.publish();
        self.keep_lengths();
        for early in std::mem::take(&mut self.early) {
            early.given.fails(FeedbackError::Busy);
        }
        if let Some(job @ Job::Save { .. }) = self.job.take() {
            self.finish(job);
        }
        self.save_last();
    }
}

#[cfg(test)]
mod tests;
