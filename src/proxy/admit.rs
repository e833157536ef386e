//! Letting a request in: at once where nothing limits it, else when there is a
//! place for it in its model and in the process; a bounded number may wait.
//!
//! A 429 means that there are engines and too many requests; without an engine
//! it is a 503, however many wait.

use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::config::Admission;
use crate::downstream::watch::Deadline;
use crate::fleet::attributes::{Freshness, Live};
use crate::fleet::gate::{Gate, Place, Places, Waiting};
use crate::fleet::health::millis;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::metrics::ProcessMetrics;

use super::error::{Full, ProxyError};

/// The longest `Retry-After` of our own, in seconds.
const LONGEST: u64 = 60;

/// The places of a request that was let in, until it has ended.
#[derive(Debug, Default)]
pub struct Permit {
    #[expect(dead_code, reason = "held, not read: given up by being dropped")]
    places: [Option<Place>; 2],
}

/// What it takes to let a request in.
#[derive(Debug)]
pub(super) struct Admitting<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) model: &'a Arc<Model>,
    pub(super) places: &'a Places,
    pub(super) deadline: &'a Deadline,
    pub(super) metrics: &'a ProcessMetrics,
    pub(super) by: Freshness,
    pub(super) priority: u8,
}

impl Admitting<'_> {
    /// Lets the request in, now or when there is a place.
    pub(super) async fn admit(&self) -> Result<Permit, ProxyError> {
        let limits = &self.snapshot.settings.admission;
        let engines = self.model.candidates.list();
        let now_ms = millis(self.by.now);
        let can_be_asked =
            |one: &&Candidate| !one.spec.traits.draining && !one.engine.health.is_out_at(now_ms);
        let Some(first) = engines.iter().find(can_be_asked) else {
            return Err(unavailable(self.snapshot, self.model));
        };
        if self.is_saturated(limits, first) {
            return Err(self.refuse(Full::Saturated));
        }
        let of_engines = limits.max_per_engine.map(|each| {
            let count = engines.iter().filter(can_be_asked).count();
            each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
        });
        let of_model = [limits.max_per_model, of_engines];
        let of_model = of_model.into_iter().flatten().min();
        Ok(Permit {
            places: [
                self.enter(&self.model.gate, of_model).await?,
                self.enter(&self.places.process, limits.max_in_flight)
                    .await?,
            ],
        })
    }

    fn refuse(&self, full: Full) -> ProxyError {
        self.metrics.refused.increment(1);
        ProxyError::Full(full)
    }

    /// Whether each engine that can be asked tells that it has too much to do.
    fn is_saturated(&self, limits: &Admission, first: &Candidate) -> bool {
        let is_too_much = |one: &Candidate| {
            let known = |what| one.engine.attributes.fresh(what, self.by);
            let reaches = |what, most: Option<f64>| {
                most.is_some_and(|most| known(what).is_some_and(|value| value >= most))
            };
            reaches(Live::RequestsWaiting, limits.shed.requests_waiting)
                || reaches(Live::KvCacheUsage, limits.shed.kv_cache_usage)
        };
        let mut engines = self.model.candidates.list().iter();
        let now_ms = millis(self.by.now);
        !limits.shed.is_off()
            && is_too_much(first)
            && engines.all(|one| {
                let is_out = one.spec.traits.draining || one.engine.health.is_out_at(now_ms);
                is_out || is_too_much(one)
            })
    }

    async fn enter(
        &self,
        gate: &Arc<Gate>,
        limit: Option<u32>,
    ) -> Result<Option<Place>, ProxyError> {
        let Some(limit) = limit else {
            return Ok(None);
        };
        if let Some(place) = gate.enter(limit) {
            return Ok(Some(place));
        }
        let Some(_waits) = self.places.count(self.limits().queue_size) else {
            return Err(self.refuse(Full::Queue));
        };
        let began = Instant::now();
        let place = self.wait(gate.wait(limit, self.priority)).await;
        self.metrics
            .queue_seconds
            .record(began.elapsed().as_secs_f64());
        place.map(Some)
    }

    async fn wait(&self, mut waiting: Waiting) -> Result<Place, ProxyError> {
        self.deadline.set(self.limits().queue_timeout);
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
        self.deadline.clear();
        place
    }

    fn limits(&self) -> &Admission {
        &self.snapshot.settings.admission
    }
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
