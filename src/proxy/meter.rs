//! One request's own account: what it is counted under, and when.
//!
//! It counts exactly once, when it is dropped, however the request ended.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::usage::Usage;
use crate::fleet::stats::Served;
use crate::fleet::{Candidate, Engine, Model};
use crate::metrics::LocalBuckets;

/// A client that left before there was an answer (nginx's number for it).
const CLIENT_CLOSED: u16 = 499;

/// What the demo prints, and a log may: one ended request.
#[derive(Debug)]
pub struct RequestRecord {
    /// The model asked for, or empty.
    pub model: Arc<str>,
    /// The engine that answered.
    pub engine: Option<Arc<Engine>>,
    /// The status that the client got.
    pub status: u16,
    /// From the request's head to the first piece of the answer's body.
    pub ttft: Option<std::time::Duration>,
    /// From the request's head to the end.
    pub duration: std::time::Duration,
    /// Pieces of the body: for a stream, about one a token.
    pub pieces: u64,
    /// Why this engine.
    pub why: &'static str,
}

/// Where ended requests are told of; dropped when the queue is full.
pub type RecordSink = tokio::sync::mpsc::Sender<RequestRecord>;

/// The account of a request that is under way.
#[derive(Debug)]
pub struct Meter {
    model: Arc<Model>,
    began: Instant,
    status: u16,
    first: Option<Instant>,
    last: Instant,
    pieces: u64,
    bytes: u64,
    itl: LocalBuckets,
    is_stream: bool,
    usage: Usage,
    /// The engine's account, once one was chosen.
    served: Option<Arc<Served>>,
    told: Option<Told>,
}

/// What is told of the request when it has ended.
#[derive(Debug)]
struct Told {
    sink: RecordSink,
    engine: Option<Arc<Engine>>,
    why: &'static str,
}

impl Meter {
    /// A request for `model` that began then.
    #[must_use]
    pub fn begin(model: Arc<Model>, began: Instant, sink: Option<RecordSink>) -> Self {
        model.metrics.in_flight.increment(1);
        model.metrics.incoming.increment(1);
        Self {
            model,
            began,
            status: CLIENT_CLOSED,
            first: None,
            last: began,
            pieces: 0,
            bytes: 0,
            itl: LocalBuckets::default(),
            is_stream: false,
            usage: Usage::default(),
            served: None,
            told: sink.map(|sink| Told {
                sink,
                engine: None,
                why: "",
            }),
        }
    }

    /// An engine was chosen, and why.
    pub fn chosen(&mut self, candidate: &Candidate, why: &'static str) {
        self.served = Some(Arc::clone(&candidate.served));
        if let Some(told) = &mut self.told {
            told.engine = Some(Arc::clone(&candidate.engine));
            told.why = why;
        }
    }

    /// The client gets this status.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// The answer is an event stream.
    pub fn streams(&mut self) {
        self.is_stream = true;
    }

    /// The request's body was so long.
    pub fn uploaded(&self, bytes: u64) {
        self.model.metrics.request_bytes.increment(bytes);
    }

    /// One piece of the answer's body passes.
    pub fn piece(&mut self, data: &[u8], now: Instant) {
        self.bytes += data.len() as u64;
        self.pieces += 1;
        self.usage.look(data, self.is_stream);
        if self.first.is_some() {
            let gap = now.saturating_duration_since(self.last);
            self.itl.observe(gap, &self.model.metrics.itl);
        } else {
            self.first = Some(now);
            let ttft = now.saturating_duration_since(self.began);
            self.model.metrics.ttft.record(ttft.as_secs_f64());
            if let Some(served) = &self.served {
                served.first(ttft);
            }
        }
        self.last = now;
    }

    /// Adds what is known at the end to the engine's account.
    fn account(&self, served: &Served) {
        if let (true, Some(first)) = (self.is_stream, self.first) {
            served.streamed(self.pieces - 1, self.last - first);
        }
        let metrics = &self.model.metrics;
        if let Some(input) = self.usage.input {
            metrics.input_tokens.observe(input);
            served.input_tokens.fetch_add(input, Relaxed);
        }
        let output = self.usage.generated();
        if output > 0 {
            metrics.output_tokens.observe(output);
            served.output_tokens.fetch_add(output, Relaxed);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let metrics = &self.model.metrics;
        let duration = self.began.elapsed();
        self.itl.merge(&metrics.itl);
        metrics.in_flight.decrement(1);
        metrics.count(self.status);
        metrics.response_bytes.increment(self.bytes);
        metrics.duration.record(duration.as_secs_f64());
        if let Some(served) = &self.served {
            self.account(served);
        }
        if let Some(told) = self.told.take() {
            // A full queue loses a line, never time.
            let _ = told.sink.try_send(RequestRecord {
                model: Arc::clone(&self.model.name),
                engine: told.engine,
                status: self.status,
                ttft: self.first.map(|first| first - self.began),
                duration,
                pieces: self.pieces,
                why: told.why,
            });
        }
    }
}
