//! One request's own account: what it is counted under, and when.
//!
//! It counts exactly once, when it is dropped, however the request ended.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::error::ProxyError;
use super::smart::Lesson;
use super::usage::Usage;
use super::verdict::word;
use crate::account::{Account, CLIENT_CLOSED, Ending};
use crate::fleet::load::InFlight;
use crate::fleet::stats::Served;
use crate::fleet::{Candidate, Model};
use crate::metrics::LocalBuckets;
use crate::report::Report;
use crate::trace::context::Onward;
use crate::upstream::Fault;

/// The account of a request that is under way.
#[derive(Debug)]
pub struct Meter {
    model: Arc<Model>,
    began: Instant,
    status: u16,
    first: Option<Instant>,
    last: Instant,
    /// When the answer had been given to its end.
    ended: Option<Instant>,
    pieces: u32,
    bytes: u64,
    itl: LocalBuckets,
    is_stream: bool,
    usage: Usage,
    /// The engine's account, once one was chosen.
    served: Option<Arc<Served>>,
    /// What is told of it when it has ended, if anything is.
    report: Option<Report>,
    /// What is learned from it then.
    lesson: Option<Box<Lesson>>,
}

impl Meter {
    /// A request for `model` that began then.
    #[must_use]
    pub fn begin(model: Arc<Model>, began: Instant, report: Option<Report>) -> Self {
        model.metrics.incoming.increment(1);
        Self {
            model,
            began,
            status: CLIENT_CLOSED,
            first: None,
            last: began,
            ended: None,
            pieces: 0,
            bytes: 0,
            itl: LocalBuckets::default(),
            is_stream: false,
            usage: Usage::default(),
            served: None,
            report,
            lesson: None,
        }
    }

    /// Something is learned from the request when it has ended well.
    pub(super) fn teaches(&mut self, lesson: Option<Box<Lesson>>) {
        self.lesson = lesson;
    }

    fn account(&mut self) -> Option<&mut Account> {
        self.report.as_mut()?.account()
    }

    /// The trace as engines are told of it, if we add to it.
    #[must_use]
    pub fn onward(&self) -> Option<Onward> {
        self.report.as_ref()?.onward()
    }

    /// An engine was chosen: by which policy, if by any, when, and under which
    /// span.
    pub fn chosen(
        &mut self,
        candidate: &Candidate,
        policy: Option<&Arc<str>>,
        (at, span): (Instant, u64),
    ) {
        self.served = Some(Arc::clone(&candidate.served));
        if let Some(account) = self.account() {
            account.policy = policy.cloned();
            account.tries(&candidate.engine, at, span);
        }
    }

    /// The engine answered with a status, or did not: why.
    pub fn tried(&mut self, with: Result<u16, &'static str>) {
        if let Some(account) = self.account() {
            account.tried(with, Instant::now());
        }
    }

    /// Our own work for the request.
    pub fn overhead(&mut self, spent: Option<Duration>) {
        if let Some(account) = self.account() {
            account.overhead = spent;
        }
    }

    /// The client gets this engine's answer, with this status.
    pub fn answered(&mut self, status: u16, slot: &InFlight) {
        self.status = status;
        let engine = slot.engine();
        // It may be the first answer of several.
        if !(self.served.as_ref()).is_some_and(|served| Arc::ptr_eq(served, slot.served())) {
            self.served = Some(Arc::clone(slot.served()));
        }
        if let Some(account) = self.account() {
            account.gives(engine);
        }
    }

    /// The client gets an error of ours.
    pub fn refused(&mut self, error: &ProxyError) {
        self.status = error.status().as_u16();
        if let Some(account) = self.account() {
            account.ending = match error {
                // Engines were asked, and there was nobody left.
                ProxyError::ModelUnavailable { .. }
                | ProxyError::NoEngine
                | ProxyError::Refused(_)
                    if account.attempts > 0 =>
                {
                    Ending::EngineFailed
                }
                error => error.ending(),
            };
            account.error = Some(error.code().name());
        }
    }

    /// The client gets an answer of ours that is no error.
    pub fn answers(&mut self, status: u16) {
        self.status = status;
        self.completes();
    }

    /// All that there is has come.
    pub fn ends(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// The answer has been given to its end.
    pub fn completes(&mut self) {
        if let Some(account) = self.account() {
            account.ending = Ending::Complete;
        }
    }

    /// The engine's answer ends before its end.
    pub fn breaks_off(&mut self, fault: &Fault) {
        if let Some(account) = self.account() {
            account.error = Some(word(fault));
            account.ending = match fault {
                Fault::Expired => Ending::Deadline,
                _ => Ending::EngineFailed,
            };
        }
    }

    /// The client asks for an event stream, or does not.
    pub fn asks_stream(&mut self, asks: bool) {
        if let Some(account) = self.account() {
            account.asks_stream = asks;
        }
    }

    /// The answer is an event stream.
    pub fn streams(&mut self) {
        self.is_stream = true;
    }

    /// The request's body was so long.
    pub fn uploaded(&mut self, bytes: u64) {
        self.model.metrics.request_bytes.increment(bytes);
        if let Some(account) = self.account() {
            account.request_bytes = bytes;
        }
    }

    /// One piece of the answer's body passes.
    pub fn piece(&mut self, data: &[u8], now: Instant) {
        self.bytes += data.len() as u64;
        self.pieces = self.pieces.saturating_add(1);
        self.usage.look(data, self.is_stream);
        if self.first.is_some() {
            let gap = now.saturating_duration_since(self.last);
            // Pieces of a whole answer tell how it was cut, not how it was made.
            if self.is_stream {
                self.itl.observe(gap, &self.model.metrics.itl);
                if let Some(account) = self.account() {
                    account.gaps.add(gap);
                }
            }
        } else {
            self.first = Some(now);
            // Nor is a whole answer's first piece a token, nor an error's.
            if self.is_stream && self.status < 400 {
                let ttft = now.saturating_duration_since(self.began);
                self.model.metrics.ttft.observe(ttft);
                if let Some(served) = &self.served {
                    served.first(ttft);
                }
            }
        }
        self.last = now;
    }

    /// Adds what is known at the end to the engine's account.
    fn settle(&self, served: &Served) {
        if let (true, Some(first)) = (self.is_stream, self.first) {
            served.streamed(u64::from(self.pieces - 1), self.last - first);
        }
        let metrics = &self.model.metrics;
        if let Some(input) = self.usage.input.map(u64::from) {
            metrics.input_tokens.observe(input);
            served.input_tokens.fetch_add(input, Relaxed);
        }
        let output = self.usage.generated();
        if output > 0 {
            metrics.output_tokens.observe(output);
            served.output_tokens.fetch_add(output, Relaxed);
        }
    }

    /// Adds what is known at the end to what is told.
    fn tell(&mut self) {
        let counted = self.is_stream.then(|| self.usage.generated());
        let Self {
            status,
            first,
            pieces,
            bytes,
            is_stream,
            ..
        } = *self;
        let (input, output) = (self.usage.input, self.usage.output);
        let name = &self.model.name;
        let model = (!name.is_empty()).then(|| Arc::clone(name));
        if let Some(account) = self.account() {
            account.status = status;
            account.model = model;
            account.first = first;
            account.pieces = u64::from(pieces);
            account.response_bytes = bytes;
            account.is_stream = is_stream;
            account.input_tokens = input.map(u64::from);
            account.output_tokens = output.map(u64::from);
            account.counted_tokens = counted;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.usage.finish();
        let metrics = &self.model.metrics;
        self.itl.merge(&metrics.itl);
        metrics.count(self.status);
        metrics.response_bytes.increment(self.bytes);
        // What no engine was asked for took no time worth telling.
        if let Some(served) = &self.served {
            let ended = self.ended.unwrap_or_else(Instant::now);
            let duration = ended.saturating_duration_since(self.began);
            metrics.duration.observe(duration);
            self.settle(served);
        }
        if self.report.is_some() {
            self.tell();
        }
        if let Some(lesson) = self.lesson.take()
            && self.ended.is_some()
            && self.status == 200
        {
            let counted = self.is_stream.then(|| self.usage.generated());
            let counted = counted.and_then(|tokens| u32::try_from(tokens).ok());
            let output = self.usage.output.or(counted).filter(|tokens| *tokens > 0);
            lesson.ended(&self.model.name, self.usage.input, output);
        }
    }
}
