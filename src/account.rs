//! One request's account: what is told of it when it has ended, in a line of
//! the access log and in spans.
//!
//! Accounts are used again by the worker that made them, so that telling of a
//! request allocates nothing.

mod gaps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Version};

use crate::fleet::Engine;
use crate::trace::context::Traced;
pub use gaps::Gaps;

/// A client that left before there was an answer (nginx's number for it).
pub const CLIENT_CLOSED: u16 = 499;
/// Bytes of a path that are told.
const PATH_BYTES: usize = 1024;
/// Tries that are told of one by one; the others are only counted.
pub const MOST_TRIES: usize = 16;

/// Who ended a request, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// An engine's answer was passed on to its end.
    Complete,
    /// The client left, or took or sent nothing for too long.
    ClientGone,
    /// No engine answered, or one broke off.
    EngineFailed,
    /// The time of the whole request was up.
    Deadline,
    /// We answered, with an error of our own, and no engine was to blame.
    Refused,
    /// We were stopping, and its time was up.
    Stopped,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Complete,
        Self::ClientGone,
        Self::EngineFailed,
        Self::Deadline,
        Self::Refused,
        Self::Stopped,
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::EngineFailed => "engine_failed",
            Self::Deadline => "deadline",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

/// Whose trace a request belongs to.
#[derive(Debug, Clone, Default)]
pub enum Trace {
    /// Nobody's.
    #[default]
    None,
    /// The client's, which we only pass on.
    Theirs(u128),
    /// One that we add spans to.
    Ours(Traced),
}

impl Trace {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> Option<u128> {
        match self {
            Self::None => None,
            Self::Theirs(id) => Some(*id),
            Self::Ours(traced) => Some(traced.own.trace),
        }
    }
}

/// One try: the request, sent to one engine.
#[derive(Debug, Clone)]
pub struct Try {
    /// Which.
    pub engine: Arc<Engine>,
    /// The id of its span; 0 without one.
    pub span: u64,
    /// When the engine was chosen.
    pub began: Instant,
    /// When it ended; none while it goes on.
    pub ended: Option<Instant>,
    /// The status that the engine answered.
    pub status: Option<u16>,
    /// Why it did not.
    pub fault: Option<&'static str>,
}

/// What is told of one request.
#[derive(Debug)]
pub struct Account {
    /// The request's id.
    pub id: String,
    /// The client's address.
    pub client: String,
    /// The method.
    pub method: Method,
    /// The version of HTTP that the client speaks.
    pub version: Version,
    /// The path, without the query.
    pub path: String,
    /// When its head had come.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// The same since the Unix epoch.
    pub ended_at: Duration,
    /// The model; none if it is not known.
    pub model: Option<Arc<str>>,
    /// Who chose the engine.
    pub policy: Option<Arc<str>>,
    /// To whom it was sent; the first [`MOST_TRIES`].
    pub tries: Vec<Try>,
    /// How often it was sent.
    pub attempts: u32,
    /// The place in `tries` of the one whose answer was given.
    pub given: Option<usize>,
    /// The status that the client got.
    pub status: u16,
    /// Who ended it.
    pub ending: Ending,
    /// Our own error's code, or an engine's fault.
    pub error: Option<&'static str>,
    /// When the first piece of the answer's body came.
    pub first: Option<Instant>,
    /// The gaps between the pieces of an event stream.
    pub gaps: Gaps,
    /// Pieces of the answer's body.
    pub pieces: u64,
    /// Whether the answer is an event stream.
    pub is_stream: bool,
    /// Tokens of the prompt, if told.
    pub input_tokens: Option<u64>,
    /// Tokens generated, if told, or counted in a stream.
    pub output_tokens: Option<u64>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Our own work: from the choice of the last engine to the request's being written.
    pub overhead: Option<Duration>,
    /// Whose trace it belongs to.
    pub trace: Trace,
}

impl Account {
    /// An account of nothing.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            id: String::new(),
            client: String::new(),
            method: Method::GET,
            version: Version::HTTP_11,
            path: String::new(),
            began: now,
            ended: now,
            ended_at: Duration::ZERO,
            model: None,
            policy: None,
            tries: Vec::new(),
            attempts: 0,
            given: None,
            status: CLIENT_CLOSED,
            ending: Ending::ClientGone,
            error: None,
            first: None,
            gaps: Gaps::default(),
            pieces: 0,
            is_stream: false,
            input_tokens: None,
            output_tokens: None,
            request_bytes: 0,
            response_bytes: 0,
            overhead: None,
            trace: Trace::None,
        }
    }

    /// Forgets all but the memory that it takes.
    pub fn clear(&mut self) {
        let mut kept = std::mem::take(&mut self.gaps);
        kept.clear();
        let (mut id, mut client) = (
            std::mem::take(&mut self.id),
            std::mem::take(&mut self.client),
        );
        let (mut path, mut tries) = (
            std::mem::take(&mut self.path),
            std::mem::take(&mut self.tries),
        );
        id.clear();
        client.clear();
        path.clear();
        tries.clear();
        *self = Self {
            id,
            client,
            path,
            tries,
            gaps: kept,
            ..Self::new(self.began)
        };
    }

    /// Takes down the path, or what of it is told.
    pub fn take_path(&mut self, path: &str) {
        let mut end = path.len().min(PATH_BYTES);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        self.path.push_str(&path[..end]);
    }

    /// An engine was chosen.
    pub fn tries(&mut self, engine: &Arc<Engine>, began: Instant, span: u64) {
        self.attempts += 1;
        if self.tries.len() < MOST_TRIES {
            self.tries.push(Try {
                engine: Arc::clone(engine),
                span,
                began,
                ended: None,
                status: None,
                fault: None,
            });
        }
    }

    /// It answered with a status, or did not.
    pub fn tried(&mut self, with: Result<u16, &'static str>, now: Instant) {
        if let Some(last) = self.tries.last_mut().filter(|last| last.ended.is_none()) {
            last.ended = Some(now);
            last.status = with.ok();
            last.fault = with.err();
        }
    }

    /// This engine's answer is the client's; it goes on until the request ends.
    pub fn gives(&mut self, engine: &Arc<Engine>) {
        let of_it = |one: &Try| Arc::ptr_eq(&one.engine, engine);
        self.given = self.tries.iter().rposition(of_it);
        if let Some(at) = self.given {
            self.tries[at].ended = None;
        }
    }

    /// The engine that answered, or that was asked last.
    #[must_use]
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        let given = self.given.and_then(|at| self.tries.get(at));
        given.or(self.tries.last()).map(|one| &one.engine)
    }

    /// From the request's head to the first piece of the answer's body.
    #[must_use]
    pub fn ttft(&self) -> Option<Duration> {
        self.first
            .map(|first| first.saturating_duration_since(self.began))
    }

    /// From the request's head to its end.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }

    /// Spans that tell of it: its own, and one for each try.
    #[must_use]
    pub fn spans(&self) -> usize {
        1 + self.tries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::EngineUrl;

    fn engine(url: &str) -> Arc<Engine> {
        let now = Instant::now();
        let url = EngineUrl::parse(url).unwrap();
        Arc::new(Engine::new(url, 1, (now, Duration::ZERO), &Arc::default()))
    }

    #[test]
    fn tries_are_bounded_and_the_one_that_is_given_goes_on() {
        let now = Instant::now();
        let engines: Vec<_> = (0..MOST_TRIES + 4)
            .map(|n| engine(&format!("http://e{n}")))
            .collect();
        let mut account = Account::new(now);
        for engine in &engines {
            account.tries(engine, now, 1);
            account.tried(Ok(503), now);
        }
        assert_eq!(account.attempts as usize, engines.len());
        assert_eq!(account.spans(), 1 + MOST_TRIES);
        account.gives(&engines[2]);
        assert_eq!(account.given, Some(2));
        assert_eq!(account.tries[2].ended, None);
        assert!(Arc::ptr_eq(account.engine().unwrap(), &engines[2]));
        account.clear();
        assert!(account.engine().is_none() && account.attempts == 0);
    }

    #[test]
    fn a_long_path_is_cut_at_a_letter() {
        let mut account = Account::new(Instant::now());
        account.take_path(&format!("/{}", "é".repeat(1000)));
        assert_eq!(account.path.len(), PATH_BYTES - 1);
    }
}
