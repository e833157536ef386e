//! Making an engine's answer the client's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Response};

use super::admit::Permit;
use super::attempt::{Answered, Flow};
use super::body::{ObservedBody, Relay, RelayParts};
use super::error::ProxyError;
use super::headers::{self, Pinned};
use super::meter::Meter;
use super::tries::Answer;
use super::{Exchange, ProxyResponse, own};
use crate::downstream::Serving;
use crate::fleet::Model;
use crate::fleet::engine::Outcome;
use crate::policy::Policy;
use crate::smart::weigh::ModelChoice;
use crate::upstream::{AnswerHead, Link, Reading};

/// What a request holds until its answer has ended.
pub(super) struct Held {
    pub(super) meter: Meter,
    pub(super) permit: Permit,
    pub(super) serving: Serving,
    /// Longest silence of the engine.
    pub(super) idle: Duration,
}

/// Who was chosen, for a client that asked.
pub(super) struct Told {
    /// `None`: nobody was asked, the request named its engine.
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) decision: Option<u64>,
    pub(super) engine: Option<String>,
    /// How its model was chosen, if by cost and quality.
    pub(super) choice: Option<Arc<ModelChoice>>,
    /// How many engines it took.
    pub(super) attempts: u32,
}

impl Exchange<'_> {
    /// Says who was chosen, if the client asked.
    pub(super) fn tell(&self, response: &mut ProxyResponse) {
        let Some(told) = self.told.borrow_mut().take() else {
            return;
        };
        let decision = told.decision.map(|id| id.to_string());
        let attempts = told.attempts.to_string();
        let choice = told.choice.as_ref();
        let model = choice.and_then(|choice| choice.weighed.get(choice.chosen.at));
        for (name, value) in [
            ("x-pilotfish-engine", told.engine.as_deref()),
            (
                "x-pilotfish-policy",
                told.policy.as_ref().map(|policy| &*policy.spec.name),
            ),
            ("x-pilotfish-decision", decision.as_deref()),
            ("x-pilotfish-attempts", Some(&attempts)),
            ("x-pilotfish-model", model.map(|one| &*one.model)),
            (
                "x-pilotfish-model-choice",
                choice.map(|choice| choice.chosen.why.name()),
            ),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
    }

    /// Makes an engine's answer the client's.
    pub(super) fn give(&self, answer: Answer, mut held: Held) -> ProxyResponse {
        let Answer { answered, mut slot } = answer;
        let Answered {
            mut head,
            flow,
            first,
            first_by,
            is_stream,
        } = *answered;
        let status = head.status.as_u16();
        held.meter.answered(status, &slot);
        self.note_sleep(&slot, status);
        headers::for_client(&mut head);
        let body = match flow {
            Flow::Body(body) => body,
            Flow::Tunnel(link, reading) => {
                // It answered: as a probe it has told enough.
                slot.delivered(0, std::time::Instant::now());
                // As far as it is seen; it is told of when the tunnel has ended.
                held.meter.completes();
                let counted = (slot.ending(Outcome::Success), held.meter, held.permit);
                return tunnel(head, (link, reading), held.serving, Box::new(counted));
            }
        };
        let relay = Relay::new(RelayParts {
            answer: body,
            first,
            first_by,
            slot,
            outcome: Outcome::of_status(status),
            meter: held.meter,
            permit: held.permit,
            serving: held.serving,
            idle: held.idle,
            is_stream,
            error_events: self.snapshot.settings.stream_error_events,
        });
        let mut response = Response::new(ObservedBody::Relay(Box::new(relay)));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    /// Counts an error before a model was chosen: for the one that it names, if
    /// it is known.
    pub(super) fn counted(&self, error: ProxyError) -> ProxyError {
        let named = match &error {
            ProxyError::ModelUnavailable { model, .. } => self.snapshot.model(model),
            _ => None,
        };
        let model = named.unwrap_or(&self.snapshot.all);
        self.meter(Arc::clone(model)).refused(&error);
        error
    }

    /// The account of this request, which is for that model.
    pub(super) fn meter(&self, model: Arc<Model>) -> Meter {
        self.is_counted.set(true);
        Meter::begin(model, self.began, self.report.take())
    }

    /// An engine that was sent to sleep through us gets nothing until it wakes.
    fn note_sleep(&self, slot: &crate::fleet::load::InFlight, status: u16) {
        let is_told = matches!(self.pinned, Pinned::To(_)) && status == 200;
        if !is_told || self.head.method != Method::POST {
            return;
        }
        let health = &slot.engine().health;
        let now = self.snapshot.clock(std::time::Instant::now());
        match self.head.uri.path() {
            "/sleep" => health.falls_asleep(now),
            "/wake_up" => health.wakes(now),
            _ => {}
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        // The client left before it was known what it asks for.
        if !self.is_counted.get() {
            drop(self.meter(Arc::clone(&self.snapshot.all)));
        }
    }
}

fn tunnel(
    head: AnswerHead,
    (link, reading): (Link, Reading),
    mut serving: Serving,
    counted: Box<dyn std::any::Any>,
) -> ProxyResponse {
    let (engine, early, open) = link.into_tunnel(reading);
    serving.tunnel(engine, early, Box::new((counted, open)));
    let mut response = own(Bytes::new(), serving);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    // The engine's `Upgrade` is still there.
    let upgrade = HeaderValue::from_static("upgrade");
    response.headers_mut().insert(CONNECTION, upgrade);
    response
}
