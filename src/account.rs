//! One request's account: what is told of it when it has ended, in a line of
//! the access log and in spans.
//!
//! Accounts are used again by the worker that made them, so that telling of a
//! request allocates nothing.

mod gaps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Version};

use crate::fleet::Engine;
use crate::trace::context::{TRACESTATE, Traced};
pub use gaps::Gaps;

/// A client that left before there was an answer (nginx's number for it).
pub const CLIENT_CLOSED: u16 = 499;
/// Bytes of a path that are told.
const PATH_BYTES: usize = 1024;
/// Bytes of a method that are told; those that anyone knows are shorter.
const METHOD_BYTES: usize = 32;
/// Bytes of a `tracestate` that is told, as many as must be passed on (W3C Trace
/// Context, 3.3.1.5); of a longer one nothing is, since a part may say another thing.
const STATE_BYTES: usize = 512;
/// Tries that are told of one by one: the first ones, and the last.
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
#[derive(Debug, Clone, Copy, Default)]
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
    /// How many there were before it.
    pub number: u32,
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
    /// What the caller is called, by its key or certificate.
    pub caller: Option<Arc<str>>,
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
    /// The engines that were asked; of more than [`MOST_TRIES`], the last is
    /// in the last place.
    pub tries: Vec<Try>,
    /// How many engines were asked.
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
    /// Whether one was asked for.
    pub asks_stream: bool,
    /// Tokens of the prompt, if told.
    pub input_tokens: Option<u64>,
    /// Tokens generated, if told.
    pub output_tokens: Option<u64>,
    /// Tokens generated, as counted in a stream.
    pub counted_tokens: Option<u64>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Our own work: from the choice of the last engine to the request's being written.
    pub overhead: Option<Duration>,
    /// Whose trace it belongs to.
    pub trace: Trace,
    /// What others keep of the trace, if it is recorded.
    pub state: String,
}

impl Account {
    /// An account of nothing.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            id: String::new(),
            client: String::new(),
            caller: None,
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
            asks_stream: false,
            input_tokens: None,
            output_tokens: None,
            counted_tokens: None,
            request_bytes: 0,
            response_bytes: 0,
            overhead: None,
            trace: Trace::None,
            state: String::new(),
        }
    }

    /// Forgets all but the memory that it takes, and its times; in place, since
    /// there is a kilobyte of it.
    pub fn clear(&mut self) {
        let Self {
            id,
            client,
            caller,
            method,
            version: _,
            path,
            began: _,
            ended: _,
            ended_at: _,
            model,
            policy,
            tries,
            attempts,
            given,
            status,
            ending,
            error,
            first,
            gaps,
            pieces,
            is_stream,
            asks_stream,
            input_tokens,
            output_tokens,
            counted_tokens,
            request_bytes,
            response_bytes,
            overhead,
            trace,
            state,
        } = self;
        for text in [id, client, path, state] {
            text.clear();
        }
        tries.clear();
        gaps.clear();
        *method = Method::GET;
        (*caller, *model, *policy, *error) = (None, None, None, None);
        (*given, *first, *overhead) = (None, None, None);
        (*status, *ending) = (CLIENT_CLOSED, Ending::ClientGone);
        (*is_stream, *asks_stream) = (false, false);
        (*input_tokens, *output_tokens, *counted_tokens) = (None, None, None);
        (*attempts, *pieces) = (0, 0);
        (*request_bytes, *response_bytes) = (0, 0);
        *trace = Trace::None;
    }

    /// Takes down the method, or what of it is told.
    pub fn take_method(&mut self, method: &Method) {
        let cut = method.as_str().as_bytes().get(..METHOD_BYTES);
        let cut = cut.and_then(|cut| Method::from_bytes(cut).ok());
        self.method = cut.unwrap_or_else(|| method.clone());
    }

    /// Takes down what others keep of the trace; its fields are one, as W3C has it.
    /// Copied: a field's value would keep all of the head in memory.
    pub fn take_state(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(TRACESTATE) {
            let text = value.to_str().unwrap_or_default();
            let length = self.state.len() + 1 + text.len();
            if text.len() != value.len() || length > STATE_BYTES + 1 {
                self.state.clear();
                return;
            }
            if !self.state.is_empty() {
                self.state.push(',');
            }
            self.state.push_str(text);
        }
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
        let one = Try {
            engine: Arc::clone(engine),
            number: self.attempts,
            span,
            began,
            ended: None,
            status: None,
            fault: None,
        };
        self.attempts += 1;
        match self.tries.get_mut(MOST_TRIES - 1) {
            Some(last) => *last = one,
            None => self.tries.push(one),
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
        let of_it = |one: &Try| Arc::ptr_eq(&one.engine, engine) && one.fault.is_none();
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

    /// Whether an engine's answer was to speak another protocol: what passes then
    /// is not seen, nor who ends it.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.given.is_some() && self.status == 101
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
        let engines: Vec<_> = (0..5).map(|n| engine(&format!("http://e{n}"))).collect();
        let mut account = Account::new(now);
        // The same ones again and again: the last was asked before, in vain.
        for (number, engine) in engines.iter().cycle().take(MOST_TRIES + 4).enumerate() {
            let is_last = number == MOST_TRIES + 3;
            account.tries(engine, now, number as u64);
            account.tried(if is_last { Ok(200) } else { Err("unreachable") }, now);
        }
        assert_eq!(account.attempts as usize, MOST_TRIES + 4);
        assert_eq!(account.spans(), 1 + MOST_TRIES);
        let last = &engines[(MOST_TRIES + 3) % 5];
        account.gives(last);
        assert_eq!(account.given, Some(MOST_TRIES - 1));
        let given = &account.tries[MOST_TRIES - 1];
        assert_eq!((given.number as usize, given.span), (MOST_TRIES + 3, 19));
        assert_eq!((given.ended, given.status), (None, Some(200)));
        assert!(Arc::ptr_eq(account.engine().unwrap(), last));
        account.clear();
        assert!(account.engine().is_none() && account.attempts == 0);
    }

    #[test]
    fn a_state_is_one_text_of_bounded_length() {
        let long = "k=".to_owned() + &"v".repeat(STATE_BYTES - 2);
        let longer = long.clone() + "v";
        for (fields, state) in [
            (vec![], ""),
            (vec!["a=1"], "a=1"),
            (vec!["a=1,b=2", "c=3"], "a=1,b=2,c=3"),
            (vec!["", "a=1"], "a=1"),
            (vec![long.as_str()], &long),
            (vec![longer.as_str()], ""),
            (vec!["a=1", &long], ""),
            (vec![&long, "a=1"], ""),
            (vec!["a=1", "b=\u{e9}"], ""),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(TRACESTATE, field.parse().unwrap());
            }
            let mut account = Account::new(Instant::now());
            account.take_state(&headers);
            assert_eq!(account.state, state);
        }
    }

    #[test]
    fn a_long_method_is_cut() {
        let mut account = Account::new(Instant::now());
        account.take_method(&Method::from_bytes(&[b'X'; 1000]).unwrap());
        assert_eq!(account.method.as_str().len(), METHOD_BYTES);
        account.take_method(&Method::PATCH);
        assert_eq!(account.method, Method::PATCH);
    }

    #[test]
    fn a_long_path_is_cut_at_a_letter() {
        let mut account = Account::new(Instant::now());
        account.take_path(&format!("/{}", "é".repeat(1000)));
        assert_eq!(account.path.len(), PATH_BYTES - 1);
    }
}
