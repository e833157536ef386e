//! Selections of blocks that are no requests for a model: what `/api/search` and
//! `/api/filter` ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Proxy;
use super::error::ProxyError;
use super::facts::Budget;
use crate::advise::{About, Asking};
use crate::config::policies::{PolicyKind, Scored};
use crate::fleet::Snapshot;
use crate::policy::{Advice, Asked, Moment, Policy, Question, Refusal, Rules, Tried, blocks};
use crate::query::envelope::Envelope;
use crate::select;

/// A search that can be made.
#[derive(Debug)]
pub struct Search {
    /// The view of the fleet that it was read against.
    pub snapshot: Arc<Snapshot>,
    /// Who chooses.
    pub policy: Arc<Policy>,
    /// What of it was accepted and has no effect.
    pub ignored: Vec<&'static str>,
}

/// A filter that blocks can be asked by.
#[derive(Debug)]
pub struct Filter {
    /// The view of the fleet that it was read against.
    pub snapshot: Arc<Snapshot>,
    /// Who matches.
    pub of: Scored,
    /// What of it was accepted and has no effect.
    pub ignored: Vec<&'static str>,
}

impl Proxy {
    /// Reads a search; one that names no policy is made by the one in force, if
    /// that selects by attributes.
    ///
    /// # Errors
    /// What is wrong with it, or that its policy is not known.
    pub fn search(&self, text: &[u8]) -> Result<Search, ProxyError> {
        let snapshot = self.snapshot();
        let base = Some(&snapshot.policies.default);
        let mut selections = self.selections.borrow_mut();
        let selection = selections.search(text, &snapshot, base)?;
        Ok(Search {
            policy: Arc::clone(&selection.policy),
            ignored: selection.ignored.clone(),
            snapshot,
        })
    }

    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn filter(&self, text: &[u8]) -> Result<Filter, ProxyError> {
        let snapshot = self.snapshot();
        let document = select::read(text)?;
        let envelope = Envelope::filter(&document)?;
        Ok(Filter {
            of: select::filter(&envelope, &snapshot)?,
            ignored: envelope.ignored.clone(),
            snapshot,
        })
    }

    /// What those say whom the search's policy asks.
    pub async fn advised(&self, search: &Search) -> Advice {
        let (snapshot, policy) = (&search.snapshot, &search.policy);
        if !matches!(policy.spec.kind, PolicyKind::Advised(_)) {
            return Advice::None;
        }
        let set = &snapshot.blocks.all.candidates;
        let bound = self.selections.borrow_mut().bound(policy, snapshot, set);
        let asking = Asking {
            snapshot,
            policy,
            question: Question {
                set,
                asked: &Asked::default(),
                tried: &Tried::default(),
                moment: moment(snapshot, self.settings.stale_after),
                bound: bound.as_deref(),
            },
            request: About {
                model: None,
                path: "/api/search",
                stream: false,
            },
        };
        Box::pin(self.advisers.ask(&asking)).await
    }

    /// The number of the block that is best, or was advised.
    ///
    /// # Errors
    /// Why there is none.
    pub fn best(&self, search: &Search, advice: Advice) -> Result<usize, Refusal> {
        let (snapshot, policy) = (&search.snapshot, &search.policy);
        let set = &snapshot.blocks.all.candidates;
        let mut selections = self.selections.borrow_mut();
        let bound = selections.bound(policy, snapshot, set);
        let asked = Asked {
            advice,
            ..Asked::default()
        };
        let question = Question {
            set,
            asked: &asked,
            tried: &Tried::default(),
            moment: moment(snapshot, self.settings.stale_after),
            bound: bound.as_deref(),
        };
        blocks::chosen(&policy.spec.kind, &question, &mut self.rng.borrow_mut())
    }

    /// The greatest age of attributes that count.
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        self.settings.stale_after
    }

    /// What bodies of requests may hold, all together.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.settings.budget
    }

    /// Longest time between two pieces of a body.
    #[must_use]
    pub fn body_idle(&self) -> Duration {
        self.snapshot().settings.timeouts.client_body_idle
    }

    /// Counts an error that a client gets.
    pub fn count(&self, error: &ProxyError) {
        self.settings.refusals.count(error.code());
    }
}

/// This moment, for a decision.
#[must_use]
pub fn moment(snapshot: &Snapshot, stale_after: Duration) -> Moment {
    Moment {
        now: snapshot.clock(Instant::now()),
        stale_after,
        rules: Rules::of(&snapshot.settings),
    }
}
