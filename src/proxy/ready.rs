//! What must be known of a request before it can be sent: what its head asks, as
//! much of its body as the choice needs, who may get it.

use std::sync::Arc;
use std::time::Instant;

use http::Method;
use hyper::body::Incoming;

use super::error::ProxyError;
use super::facts::{self, Peeked, Peeking};
use super::splice::rename;
use super::wishes::Wishes;
use super::{Exchange, ask, models};
use crate::downstream::Serving;
use crate::fleet::{Candidate, Model};
use crate::policy::memory::Fingerprint;
use crate::policy::{Asked, Policy};

/// Methods longer than this are no methods that anyone uses.
const MAX_METHOD: usize = 32;

/// A request that is ready to be sent.
pub(super) struct Ready<'a> {
    pub(super) model: &'a Arc<Model>,
    pub(super) pinned: Option<&'a Candidate>,
    pub(super) asked: Asked,
    pub(super) prints: Vec<Fingerprint>,
    pub(super) is_inference: bool,
}

impl Exchange<'_> {
    /// What the request's head asks, and of which policy.
    pub(super) fn wishes(&self) -> Result<(Wishes<'_>, &Arc<Policy>), ProxyError> {
        let allow = &self.snapshot.settings.routing.allow;
        let wishes = Wishes::of(&self.head.headers, allow)?;
        let policy = ask::policy(self.snapshot, &wishes, &self.pinned)?;
        Ok((wishes, policy))
    }

    /// Who may get the request, and by what it is chosen.
    pub(super) fn ready(
        &self,
        wishes: &Wishes<'_>,
        policy: &Policy,
        peeked: &mut Peeked,
        peer: &str,
    ) -> Result<Ready<'_>, ProxyError> {
        let snapshot = self.snapshot;
        let model = models::choose(snapshot, policy, (wishes, &self.pinned), peeked)?;
        let pinned = models::pinned(snapshot, &self.pinned, wishes, model)?;
        // The body may have taken its time.
        let clock = || snapshot.clock(Instant::now());
        let (asked, prints) = ask::asked(policy, self.head, (wishes, peer), (peeked, model), clock);
        rename(peeked, &model.name);
        Ok(Ready {
            model,
            pinned,
            asked,
            prints,
            is_inference: peeked.facts.is_inference,
        })
    }

    /// Reads of the body what the choice needs.
    pub(super) async fn peek(
        &self,
        body: Incoming,
        serving: &Serving,
        policy: &Policy,
    ) -> Result<Peeked, ProxyError> {
        let method = &self.head.method;
        if matches!(*method, Method::CONNECT | Method::TRACE) || method.as_str().len() > MAX_METHOD
        {
            let shown: String = method.as_str().chars().take(MAX_METHOD).collect();
            return Err(ProxyError::Method(shown));
        }
        let settings = &self.snapshot.settings;
        let peeking = Peeking {
            limits: &settings.limits,
            budget: &self.proxy.settings.budget,
            deadline: serving.deadline(),
            idle: settings.timeouts.client_body_idle,
            wanted: ask::wanted(&policy.spec.kind),
        };
        facts::peek(self.head, body, peeking).await
    }
}
