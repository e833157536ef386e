//! Letting a request in: at once where nothing limits it, else when there is a
//! place for it in its model and in the process; a bounded number may wait.
//!
//! A 429 means that there are engines and too many requests; without an engine
//! it is a 503, however many wait.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Instant;

use crate::config::Admission;
use crate::downstream::watch::Deadline;
use crate::fleet::attributes::{Freshness, Live};
use crate::fleet::gate::{Counted, Gate, Place, Places};
use crate::fleet::health::millis;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::metrics::ProcessMetrics;

use super::error::{Full, ProxyError};
use super::wishes::Wishes;
use super::{Exchange, Ready};

/// The longest `Retry-After` of our own, in seconds.
const LONGEST: u64 = 60;
/// The priority of a request that names none, of 0 to 9.
const USUAL_PRIORITY: u8 = 5;

/// The places of a request that was let in, until it has ended.
#[derive(Debug, Default)]
pub struct Permit {
    #[expect(dead_code, reason = "held, not read: given up by being dropped")]
    places: [Option<Place>; 2],
}

/// What it takes to let a request in.
#[derive(Debug)]
struct Admitting<'a> {
    snapshot: &'a Snapshot,
    model: &'a Arc<Model>,
    places: &'a Places,
    deadline: &'a Deadline,
    metrics: &'a ProcessMetrics,
    by: Freshness,
    priority: u8,
    /// Whether the request names its engine, which then answers for itself.
    is_pinned: bool,
}

impl Exchange<'_> {
    /// Lets the request in, or has it wait.
    pub(super) async fn admit(
        &self,
        ready: &Ready<'_>,
        wishes: &Wishes<'_>,
        deadline: &Deadline,
    ) -> Result<Permit, ProxyError> {
        let settings = &self.proxy.settings;
        let is_for_one = ready.pinned.is_some() && ready.model.name.is_empty();
        if self.snapshot.settings.admission.is_off() || is_for_one {
            return Ok(Permit::default());
        }
        // The body may have taken its time.
        let now = self.snapshot.clock(Instant::now());
        let admitting = Admitting {
            snapshot: self.snapshot,
            model: ready.model,
            places: &settings.places,
            deadline,
            metrics: &settings.metrics,
            by: Freshness::new(now, settings.stale_after),
            priority: wishes.priority.unwrap_or(USUAL_PRIORITY),
            is_pinned: ready.pinned.is_some(),
        };
        // Boxed: whoever is not limited does not keep its place.
        Box::pin(admitting.admit()).await
    }
}

impl Admitting<'_> {
    /// Lets the request in, now or when there is a place.
    async fn admit(&self) -> Result<Permit, ProxyError> {
        let limits = self.limits();
        if !self.is_pinned {
            self.can_be_served(limits)?;
        }
        let of_engines = limits
            .max_per_engine
            .map(|each| self.places_of_engines(each));
        let of_model = limits.max_per_model.into_iter().chain(of_engines).min();
        let mut queued = None;
        let places = self.places(of_model, &mut queued).await;
        if let Some(Queued { began, .. }) = queued {
            self.deadline.clear();
            self.metrics.queue.observe(began.elapsed());
        }
        Ok(Permit { places: places? })
    }

    async fn places(
        &self,
        of_model: Option<u32>,
        queued: &mut Option<Queued>,
    ) -> Result<[Option<Place>; 2], ProxyError> {
        let of_process = self.limits().max_in_flight;
        Ok([
            self.enter(&self.model.gate, of_model, queued).await?,
            self.enter(&self.places.process, of_process, queued).await?,
        ])
    }

    fn refuse(&self, full: Full) -> ProxyError {
        self.metrics.refused.increment(1);
        ProxyError::Full(full)
    }

    /// Whether any engine can be asked, and has not too much to do.
    fn can_be_served(&self, limits: &Admission) -> Result<(), ProxyError> {
        let now_ms = millis(self.by.now);
        let is_in =
            |one: &&Candidate| one.spec.closed.is_none() && !one.engine.health.is_out_at(now_ms);
        let mut engines = self.model.candidates.list().iter().filter(is_in);
        let Some(first) = engines.next() else {
            return Err(unavailable(self.snapshot, self.model));
        };
        let is_too_much = |one: &Candidate| self.is_too_much(limits, one);
        if !limits.shed.is_off() && is_too_much(first) && engines.all(is_too_much) {
            return Err(self.refuse(Full::Saturated));
        }
        Ok(())
    }

    /// Whether the engine tells that it has too much to do.
    fn is_too_much(&self, limits: &Admission, one: &Candidate) -> bool {
        let shed = limits.shed;
        let reaches = |what, most: Option<f64>| {
            let known = most.and_then(|_| one.engine.attributes.fresh(what, self.by));
            most.zip(known).is_some_and(|(most, known)| known >= most)
        };
        reaches(Live::RequestsWaiting, shed.requests_waiting)
            || reaches(Live::KvCacheUsage, shed.kv_cache_usage)
    }

    /// Places that the model's engines have, so many each: those that a policy
    /// would choose from. Of the others what they still have counts, or it would
    /// use up the places of those that are open; an engine on trial takes one
    /// more. One at least: whether there is any is for the policy to tell.
    fn places_of_engines(&self, each: u32) -> u32 {
        let set = &self.model.candidates;
        let now_ms = millis(self.by.now);
        let max_ejected = self.snapshot.settings.breaker.max_ejected;
        let is_panicking = set.is_panicking(self.by.now, max_ejected);
        let engines = set.list().iter().zip(&set.layout.weights);
        let places = engines.map(|(one, weight)| {
            let health = &one.engine.health;
            let has = one.engine.in_flight.load(Relaxed);
            let is_up = *weight > 0.0 && health.is_up_at(now_ms);
            let is_asked = *weight > 0.0 && is_panicking && health.is_ejected_at(now_ms);
            match (is_up, health.is_distrusted()) {
                (true, false) => each,
                (true, true) => each.min(has + 1),
                _ if is_asked => each,
                _ => has,
            }
        });
        places.fold(0, u32::saturating_add).max(1)
    }

    /// A place in that gate, if it is limited.
    async fn enter(
        &self,
        gate: &Arc<Gate>,
        limit: Option<u32>,
        queued: &mut Option<Queued>,
    ) -> Result<Option<Place>, ProxyError> {
        let Some(limit) = limit else {
            return Ok(None);
        };
        if let Some(place) = gate.enter(limit) {
            return Ok(Some(place));
        }
        if queued.is_none() {
            let Some(counted) = self.places.count(self.limits().queue_size) else {
                return Err(self.refuse(Full::Queue));
            };
            self.deadline.set(self.limits().queue_timeout);
            *queued = Some(Queued {
                began: Instant::now(),
                _counted: counted,
            });
        }
        let mut waiting = gate.wait(limit, self.priority);
        let place = std::future::poll_fn(|cx| match waiting.poll(cx) {
            Poll::Pending if self.deadline.expired(cx) => Poll::Ready(None),
            other => other.map(Some),
        });
        let place = place.await.ok_or_else(|| {
            if self.deadline.is_over() {
                ProxyError::Expired
            } else {
                self.refuse(Full::Late)
            }
        });
        place.map(Some)
    }

    fn limits(&self) -> &Admission {
        &self.snapshot.settings.admission
    }
}

/// A request that waits, in one gate or in both.
struct Queued {
    began: Instant,
    _counted: Counted,
}

/// What is said when no engine of the model can be asked: come again when the
/// first of them may be.
pub(super) fn unavailable(snapshot: &Snapshot, model: &Model) -> ProxyError {
    if model.name.is_empty() {
        return ProxyError::NoEngine;
    }
    let now_ms = millis(snapshot.clock(Instant::now()));
    let engines = model.candidates.list().iter();
    let opens = engines.filter_map(|one| one.engine.health.opens_at_ms());
    let wait_ms = opens.min().map_or(0, |at| at.saturating_sub(now_ms));
    let seconds = wait_ms.div_ceil(1000).clamp(1, LONGEST);
    ProxyError::ModelUnavailable {
        model: model.name.to_string(),
        seconds: u32::try_from(seconds).unwrap_or(1),
    }
}
