//! A worker's part of smart routing: it asks for predictions, and tells what came
//! of them.
//!
//! Invariant: a request wakes nobody. What is told stays with the worker until its
//! next sweep; what finds no room then is dropped and counted.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::in_force::InForce;
use super::learner::{self, Lengths};
use super::predict::{Predictor, Scratch};
use super::service::{Ask, Service};
use super::weigh::{ModelChoice, Predicted};
use crate::config::dynamic::Cost;

/// Past queries that a worker looks through by itself, in about 100 µs (see
/// `benches/smart.rs`); with more, another thread does.
pub const MOST_INLINE: usize = 8_000;
/// How long a request waits for a prediction; then the models' means decide.
pub const PATIENCE: Duration = Duration::from_millis(20);
/// Events that a worker holds.
const MOST_HELD: usize = 1024;
/// Events that are handed over together: so many do not wait for a sweep.
const BATCH: usize = 128;

/// What a worker tells.
#[derive(Debug)]
pub enum Event {
    /// A model was chosen.
    Chose(Chosen),
    /// A request has ended well.
    Ended(Ended),
}

/// A choice that was made.
#[derive(Debug)]
pub struct Chosen {
    /// Whose.
    pub policy: Arc<InForce>,
    /// Of which models, and which.
    pub choice: Arc<ModelChoice>,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What is learned from it.
    pub learned: learner::Ended,
    /// Who chose its model.
    pub policy: Option<Arc<InForce>>,
    /// What the model's tokens cost, by what that policy knows.
    pub price: Option<Cost>,
    /// Tokens of the answer at most, as the request had it.
    pub most_tokens: Option<u64>,
}

/// One worker's.
#[derive(Debug)]
pub struct Asker {
    service: Service,
    scratch: RefCell<Scratch>,
    held: RefCell<Vec<Event>>,
}

impl Asker {
    /// A worker's.
    #[must_use]
    pub fn new(service: Service) -> Rc<Self> {
        Rc::new(Self {
            service,
            scratch: RefCell::new(Scratch::new()),
            held: RefCell::default(),
        })
    }

    /// What is to be expected of each model for that query; without one, of any.
    pub async fn predict(&self, query: Option<&str>) -> Predicted {
        let scratch = &self.scratch;
        let Some(started) = self.service.started() else {
            let nothing = Arc::new(Predictor::empty());
            return Predicted::by(nothing, None, &mut scratch.borrow_mut());
        };
        let predictor = started.teaching.predictor();
        let query = match query {
            Some(query) if predictor.rows() > MOST_INLINE => {
                let (reply, answer) = oneshot::channel();
                let ask = Ask {
                    query: query.to_owned(),
                    reply,
                };
                if started.asks.try_send(ask).is_ok()
                    && let Ok(Ok(predicted)) = tokio::time::timeout(PATIENCE, answer).await
                {
                    return predicted;
                }
                started.late.increment(1);
                None
            }
            query => query,
        };
        Predicted::by(predictor, query, &mut scratch.borrow_mut())
    }

    /// How long answers are, as traffic shows.
    #[must_use]
    pub fn lengths(&self) -> Arc<Lengths> {
        let started = self.service.started();
        started.map_or_else(Arc::default, |started| started.teaching.lengths())
    }

    /// Keeps what happened until it is handed over.
    pub fn tell(&self, event: Event) {
        let mut held = self.held.borrow_mut();
        if held.len() >= MOST_HELD {
            if let Some(started) = self.service.started() {
                started.dropped.increment(1);
            }
            return;
        }
        held.push(event);
        let is_much = held.len() >= BATCH;
        drop(held);
        if is_much {
            self.sweep();
        }
    }

    /// Hands over what happened, if there is room.
    pub fn sweep(&self) {
        let mut held = self.held.borrow_mut();
        if held.is_empty() {
            return;
        }
        let Some(started) = self.service.started() else {
            held.clear();
            return;
        };
        while let (false, Ok(room)) = (held.is_empty(), started.events.try_reserve()) {
            let most = held.len().min(BATCH);
            let rest = held.split_off(most);
            room.send(std::mem::replace(&mut *held, rest));
        }
    }
}

/// The worker has ended: the last of it is handed over, or counted as lost.
impl Drop for Asker {
    fn drop(&mut self) {
        self.sweep();
        let lost = self.held.borrow().len() as u64;
        if let (1.., Some(started)) = (lost, self.service.started()) {
            started.dropped.increment(lost);
        }
    }
}
