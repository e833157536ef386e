//! Asking others whom to choose, before a choice: policies `remote` and `llm`.
//!
//! What they say is attached to the request; [`crate::policy::decide`] stays
//! pure and takes it if it may. Whoever is asked has a deadline; without an
//! answer that names a candidate, the score decides. Advice is kept for a while,
//! and requests that need the same wait for one question. Each worker has its
//! own; other policies come nowhere near.

mod answers;
mod fault;
mod llm;
mod parse;
mod remote;
mod standing;
mod told;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use foldhash::fast::RandomState;
use http::StatusCode;
use tokio::time::Instant;
use tracing::warn;

use crate::config::EngineUrl;
use crate::config::policies::{Advised, Adviser, PolicyKind, Scored};
use crate::fleet::engine::Outcome;
use crate::fleet::{Engine, Snapshot};
use crate::policy::reason::Asking as Came;
use crate::policy::{Advice, Policy, Question, blocks};
use crate::upstream::{FetchError, Get, Pool, converse};
use answers::{Answers, Key, Times};
use fault::{NoAnswer, Unadvised, blame};
use llm::Asks;

/// Bytes of an answer.
const MOST_ANSWER: usize = 256 << 10;
/// Servers that connections are kept to; one more, and all are forgotten.
const MOST_TARGETS: usize = 64;
/// Candidates whose queues make a difference to what is known already.
const MOST_FELT: usize = 64;
/// Who waits for another's question waits so much longer than its own may take:
/// the other's end comes first.
const GRACE: Duration = Duration::from_millis(10);
/// Bytes of what a language model is asked for; what is longer is cut.
const MOST_QUERY: usize = 4 << 10;
/// Why nobody is asked, in the AIOS reference's words.
const NOBODY: &str = "No candidates provided";
/// Between two lines of the log about failures.
const QUIET: Duration = Duration::from_secs(10);

/// A question to be asked for one request.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The view of the fleet.
    pub snapshot: &'a Snapshot,
    /// On whose behalf.
    pub policy: &'a Arc<Policy>,
    /// Among whom the policy is to choose.
    pub question: Question<'a>,
    /// What else is told of the request.
    pub request: About<'a>,
}

/// What of a request is told beside its length.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The model that it names.
    pub model: Option<&'a str>,
    /// Its path.
    pub path: &'a str,
    /// Whether it asks for a stream.
    pub stream: bool,
}

/// A call's time.
#[derive(Debug, Clone, Copy)]
struct Call {
    until: Instant,
    deadline: Duration,
}

/// Those whom one worker may ask, and what they said.
#[derive(Debug)]
pub struct Advisers {
    pool: Rc<Pool>,
    rng: RefCell<Rng>,
    answers: Answers,
    seed: RandomState,
    targets: RefCell<HashMap<String, Arc<Engine>, RandomState>>,
    next_key: Cell<u64>,
    /// What makes an answer another before its time.
    felt: Scored,
    /// Of that generation of the snapshot.
    attributes: RefCell<Option<(u64, Rc<Scored>)>>,
    told_at: Cell<Option<Instant>>,
}

impl Advisers {
    /// A worker's.
    #[must_use]
    pub fn new(pool: Rc<Pool>) -> Self {
        Self {
            pool,
            rng: RefCell::new(Rng::new()),
            answers: Answers::default(),
            seed: RandomState::default(),
            targets: RefCell::default(),
            // Far from the keys that the fleet gives.
            next_key: Cell::new(u64::MAX),
            felt: told::waiting(),
            attributes: RefCell::default(),
            told_at: Cell::new(None),
        }
    }

    /// Whom the policy is advised to choose; [`Advice::None`] if it asks nobody.
    pub async fn ask(&self, asking: &Asking<'_>) -> Advice {
        let PolicyKind::Advised(of) = &asking.policy.spec.kind else {
            return Advice::None;
        };
        let candidates = candidates(asking, of);
        if candidates.is_empty() {
            return Advice::Failed(NOBODY.to_owned());
        }
        if let Some(why) = asks(&of.adviser).and_then(|asks| asks.problem()) {
            return Advice::Failed(why.to_owned());
        }
        let key = Key {
            question: self.key(asking, of, &candidates),
            adviser: self.adviser(&of.adviser),
            policy: asking.policy,
        };
        let times = Times {
            deadline: of.deadline,
            ttl: of.ttl,
        };
        let call = Call {
            until: Instant::now() + of.deadline,
            deadline: of.deadline,
        };
        let question = async || self.question(asking, of, call).await;
        let given = self.answers.of(key, times, question);
        let given = tokio::time::timeout_at(call.until + GRACE, given).await;
        let (advice, came) =
            given.unwrap_or_else(|_| (Advice::Failed(late(of.deadline)), Came::Late));
        if let Some(askings) = &asking.policy.askings {
            askings.count(came);
        }
        advice
    }

    async fn question(
        &self,
        asking: &Asking<'_>,
        of: &Advised,
        call: Call,
    ) -> Result<Vec<String>, Unadvised> {
        let about = (asking, of);
        let named = match (&of.adviser, asks(&of.adviser)) {
            (Adviser::Remote { url }, _) => self.matcher(url, about, call).await,
            (Adviser::Llm { .. }, Some(asks)) => self.model(asks, about, call).await,
            (Adviser::Llm { .. }, None) => Err(NOBODY.into()),
        };
        if let Err(no) = &named {
            self.tell(&asking.policy.spec.name, no.why());
        }
        named
    }

    /// Who is asked, whatever the question.
    fn adviser(&self, adviser: &Adviser) -> u64 {
        match adviser {
            Adviser::Remote { url } => self.seed.hash_one(url.text()),
            Adviser::Llm { server, block, .. } => {
                let server = server.as_ref().map(EngineUrl::text);
                self.seed.hash_one((server, block))
            }
        }
    }

    /// What makes the answer another: who is asked what, on behalf of which policy,
    /// among whom, what the configuration says of them, and, roughly, how many
    /// requests wait there. A policy that is changed is another, and so is a
    /// snapshot's set. All else changes with every request, and to
    /// ask anew each time would be to wait each time.
    fn key(&self, asking: &Asking<'_>, of: &Advised, candidates: &[usize]) -> u64 {
        let mut hasher = self.seed.build_hasher();
        let asked = asking.question.asked;
        let policy = Arc::as_ptr(asking.policy).addr();
        (policy, asking.question.set.serial).hash(&mut hasher);
        match &of.adviser {
            Adviser::Remote { url } => {
                (url.text(), &*of.parameters).hash(&mut hasher);
                let request = &asking.request;
                (request.model, request.path, request.stream).hash(&mut hasher);
                let most = asked.max_tokens.map(u64::checked_ilog2);
                (asked.prompt_tokens.checked_ilog2(), most).hash(&mut hasher);
            }
            adviser @ Adviser::Llm { .. } => {
                let query = asks(adviser).map(|asks| asks.query);
                (self.adviser(adviser), query).hash(&mut hasher);
            }
        }
        let set = asking.question.set;
        candidates
            .iter()
            .for_each(|unit| told::id(set, *unit).hash(&mut hasher));
        let felt = &candidates[..candidates.len().min(MOST_FELT)];
        let question = Question {
            bound: None,
            ..asking.question
        };
        for value in blocks::values(&self.felt, &question, felt) {
            rough(value).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Every attribute that has a name.
    fn attributes(&self, snapshot: &Snapshot) -> Rc<Scored> {
        let mut known = self.attributes.borrow_mut();
        match &*known {
            Some((generation, known)) if *generation == snapshot.generation => Rc::clone(known),
            _ => {
                let attributes = Rc::new(told::attributes(&snapshot.settings.scraping.own));
                *known = Some((snapshot.generation, Rc::clone(&attributes)));
                attributes
            }
        }
    }

    /// Who listens there, for the pool.
    fn target(&self, url: &EngineUrl) -> Arc<Engine> {
        let mut targets = self.targets.borrow_mut();
        if let Some(known) = targets.get(url.text()) {
            return Arc::clone(known);
        }
        if targets.len() >= MOST_TARGETS {
            targets.clear();
        }
        let key = self.next_key.get();
        self.next_key.set(key - 1);
        let since = (std::time::Instant::now(), Duration::ZERO);
        let target = Arc::new(Engine::new(url.clone(), key, since, &Arc::default()));
        targets.insert(url.text().to_owned(), Arc::clone(&target));
        target
    }

    /// Posts JSON; the body of a 200.
    async fn post(
        &self,
        target: &Arc<Engine>,
        (path, text): (&str, String),
        call: Call,
    ) -> Result<Vec<u8>, NoAnswer> {
        let what = Get {
            path,
            json: Some(Bytes::from(text)),
            within: call.until.saturating_duration_since(Instant::now()),
            most: MOST_ANSWER,
        };
        let at = |why: String| format!("{}: {why}", target.url.text());
        match converse(&self.pool, target, what).await {
            Ok((StatusCode::OK, body)) => Ok(body),
            Ok((status, _)) => Err(NoAnswer {
                why: Unadvised::of_status(status, at(format!("answered {status}"))),
                outcome: Outcome::of_status(status.as_u16()),
            }),
            Err(error) => {
                let why = match error {
                    FetchError::Late(_) => late(call.deadline),
                    _ => error.to_string(),
                };
                Err(NoAnswer {
                    why: Unadvised::of(&error, at(why)),
                    outcome: blame(&error),
                })
            }
        }
    }

    /// Says in the log, now and then, that somebody's advice fails.
    fn tell(&self, policy: &str, why: &str) {
        let now = Instant::now();
        let is_quiet = (self.told_at.get()).is_none_or(|at| now.duration_since(at) >= QUIET);
        if is_quiet {
            self.told_at.set(Some(now));
            warn!(policy, why, "no advice; the score decides");
        }
    }
}

/// Those that match and are up. Places come and go with every request: who is
/// full is one, and left out when a question is asked.
fn candidates(asking: &Asking<'_>, of: &Advised) -> Vec<usize> {
    let Question { set, moment, .. } = asking.question;
    let mut matching = blocks::matching(&of.then, &asking.question);
    matching
        .retain(|unit| told::members(set, *unit).any(|one| one.engine.health.is_up(moment.now)));
    matching
}

fn asks(adviser: &Adviser) -> Option<Asks<'_>> {
    match adviser {
        Adviser::Remote { .. } => None,
        Adviser::Llm {
            server,
            block,
            query_string,
        } => Some(Asks {
            server: server.as_ref(),
            block,
            query: cut(query_string),
        }),
    }
}

/// As much of it as a model is asked for.
fn cut(query: &str) -> &str {
    let most = query.len().min(MOST_QUERY);
    let end = (0..=most).rev().find(|end| query.is_char_boundary(*end));
    &query[..end.unwrap_or_default()]
}

fn late(deadline: Duration) -> String {
    format!("no whole answer within {deadline:?}")
}

/// How many wait, so roughly that a few more make no difference: powers of four.
fn rough(waiting: Option<f64>) -> i64 {
    let grade = (waiting.unwrap_or_default().max(0.0) + 1.0).log2() / 2.0;
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm")]
    let grade = grade.floor() as i64;
    grade
}

#[cfg(test)]
mod tests;
