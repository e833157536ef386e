//! What others hold of the thread that learns: a way to tell it, and what it knows.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;

use super::{Lengths, Score};
use crate::smart::history::MOST_MODELS;
use crate::smart::predict::{Prediction, Predictor};

/// Messages that wait for the thread.
pub(super) const QUEUE: usize = 1024;
/// Bytes of ended requests that wait for the thread; more are dropped.
pub const MOST_QUEUED: usize = 16 << 20;
/// Bytes of a request's id, as the proxy takes them.
const MOST_ID: usize = 128;

/// A request that has ended, and that somebody may tell more of.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Its id, as the client knows it.
    pub request_id: String,
    /// Its text, cut as a history's; `None`: it had none.
    pub query: Option<String>,
    /// The model that answered.
    pub model: Arc<str>,
    /// Its tokens, or a guess at them.
    pub input_tokens: u32,
    /// Tokens of the answer, if known.
    pub output_tokens: Option<u32>,
    /// What was predicted of the answer, if anything was.
    pub predicted: Option<Prediction>,
}

impl Ended {
    /// Bytes that it takes in memory, about.
    pub(super) fn held(&self) -> usize {
        let query = self.query.as_ref().map_or(0, String::capacity);
        size_of::<Self>() + self.request_id.capacity() + query
    }
}

/// Feedback that was taken, as it is told to who gave it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Feedback {
    /// The model whose answer it is about.
    #[serde(serialize_with = "text")]
    pub model: Arc<str>,
    /// The quality that was predicted, if any was.
    pub predicted: Option<f32>,
    /// Whether it is on the disk; without a state folder it is in memory alone.
    pub durable: bool,
}

fn text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// Why feedback was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// No such request, or it was long ago.
    #[error(
        "no request with this id has ended well of late: the last {} are remembered, for {} hours and \
         until a restart; if its answer is still coming, post again after its end",
        super::waiting::MOST_WAITING,
        super::waiting::REMEMBERED.as_secs() / 3600
    )]
    Unknown,
    /// It was given before; the first counts.
    #[error("feedback on this request was given before; the first counts")]
    Again,
    /// There is no room for more, or the process ends.
    #[error("too much feedback waits to be written, or the process ends: try again")]
    Busy,
    /// A score that is none.
    #[error("the score is no number from 0 to 1")]
    Score,
    /// The model that answered is one too many.
    #[error(
        "the history tells of {MOST_MODELS} other models and has no room for the one that \
         answered: its feedback was not taken"
    )]
    Models,
    /// It cannot be kept; it may be given again.
    #[error("the feedback cannot be kept, and was not taken: {0}; it may be given again")]
    Disk(String),
}

/// What was predicted of a model's answers, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// The model.
    pub model: Arc<str>,
    /// Answers.
    pub count: u64,
    /// The sum of the predicted qualities.
    pub predicted: f64,
    /// The sum of the scores.
    pub realised: f64,
}

impl Gap {
    pub(super) fn of(model: Arc<str>) -> Self {
        Self {
            model,
            count: 0,
            predicted: 0.0,
            realised: 0.0,
        }
    }
}

/// What is counted, since the start.
#[derive(Debug, Default)]
pub struct Counted {
    pub(super) rows: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) refits: AtomicU64,
    pub(super) fit_millis: AtomicU64,
    pub(super) gaps: ArcSwap<Vec<Gap>>,
}

impl Counted {
    /// Rows that the predictor knows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Feedback that was acknowledged.
    #[must_use]
    pub fn feedback(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Feedback that could not be written.
    #[must_use]
    pub fn feedback_failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Ended requests for which there was no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Fits.
    #[must_use]
    pub fn refits(&self) -> u64 {
        self.refits.load(Relaxed)
    }

    /// How long the last fit took.
    #[must_use]
    pub fn last_fit(&self) -> Duration {
        Duration::from_millis(self.fit_millis.load(Relaxed))
    }

    /// The first models with feedback on predicted answers, as many as a history
    /// may have; as it was a second ago at most.
    #[must_use]
    pub fn gaps(&self) -> Arc<Vec<Gap>> {
        self.gaps.load_full()
    }
}

/// What the thread knows, for others to read.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) predictor: ArcSwap<Predictor>,
    pub(super) lengths: ArcSwap<Lengths>,
    pub(super) counted: Counted,
    /// Bytes of ended requests on their way.
    pub(super) queued: AtomicUsize,
}

impl Known {
    pub(super) fn new(predictor: Predictor, lengths: Lengths) -> Self {
        let counted = Counted::default();
        counted.rows.store(predictor.rows() as u64, Relaxed);
        Self {
            predictor: ArcSwap::from_pointee(predictor),
            lengths: ArcSwap::from_pointee(lengths),
            counted,
            queued: AtomicUsize::new(0),
        }
    }
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Told {
    Ended(Vec<Ended>),
    Feedback(Score),
}

/// A way to tell the thread, which ends with the last of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Teaching {
    to: SyncSender<Told>,
    known: Arc<Known>,
}

impl Teaching {
    pub(super) fn new(to: SyncSender<Told>, known: Arc<Known>) -> Self {
        Self { to, known }
    }

    /// The predictor of now.
    #[must_use]
    pub fn predictor(&self) -> Arc<Predictor> {
        self.known.predictor.load_full()
    }

    /// How long answers are, as traffic shows.
    #[must_use]
    pub fn lengths(&self) -> Arc<Lengths> {
        self.known.lengths.load_full()
    }

    /// What was counted.
    #[must_use]
    pub fn counted(&self) -> &Counted {
        &self.known.counted
    }

    /// Tells of requests that have ended; never waits. What there is no room for
    /// is dropped, and counted.
    pub fn tell(&self, ended: Vec<Ended>) {
        let count = ended.len() as u64;
        let held = ended.iter().map(Ended::held).sum();
        let queued = &self.known.queued;
        let before = queued.fetch_add(held, Relaxed);
        let has_room = before + held <= MOST_QUEUED;
        if !has_room || self.to.try_send(Told::Ended(ended)).is_err() {
            queued.fetch_sub(held, Relaxed);
            self.known.counted.dropped.fetch_add(count, Relaxed);
        }
    }

    /// Says how right the answer to a request was, 0 to 1; it is sent at once, and
    /// the future is ready when it is on the disk. Feedback that comes sooner than
    /// its request was told of waits a second for it.
    pub fn feedback(
        &self,
        request_id: String,
        score: f32,
    ) -> impl Future<Output = Result<Feedback, FeedbackError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = if !(0.0..=1.0).contains(&score) {
            Err(FeedbackError::Score)
        } else if request_id.len() > MOST_ID {
            Err(FeedbackError::Unknown)
        } else {
            let told = Told::Feedback(Score {
                request_id,
                score,
                answer,
            });
            self.to.try_send(told).map_err(|_| FeedbackError::Busy)
        };
        async move {
            sent?;
            answered.await.unwrap_or(Err(FeedbackError::Busy))
        }
    }
}
