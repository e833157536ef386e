//! A request's account as spans, in the words of OpenTelemetry's semantic
//! conventions for HTTP and for generative AI.
//!
//! One span for the request (SERVER), and below it one for each try (CLIENT).
//! What a model did is told by the span of the try that answered, and there
//! alone: who adds up tokens over spans counts them once.

use std::time::Instant;

use http::{Method, Version};

use super::context::Traced;
use super::otlp::{CLIENT, ERROR, KeyValue, SERVER, Span, Status, Value};
use crate::account::{Account, CLIENT_CLOSED, Ending, Trace, Try};

/// What a path asks of a model: the well-known names of operations.
const OPERATIONS: [(&str, &str); 5] = [
    ("/v1/chat/completions", "chat"),
    ("/v1/completions", "text_completion"),
    ("/v1/embeddings", "embeddings"),
    ("/v1/messages", "chat"),
    ("/v1/responses", "chat"),
];

/// Flags of a span: that it is told whether its parent is another process's,
/// and that it is.
const LOCALITY: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// Appends the spans of a request that is recorded.
pub fn spans(account: &Account, out: &mut Vec<Span>) {
    let Trace::Ours(traced) = &account.trace else {
        return;
    };
    let writing = Writing { account, traced };
    out.push(writing.server());
    let tries = account.tries.iter().enumerate();
    out.extend(tries.map(|(at, one)| writing.client(at, one)));
}

struct Writing<'a> {
    account: &'a Account,
    traced: &'a Traced,
}

/// Attributes; what is unknown is left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn maybe(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }
}

impl Writing<'_> {
    /// The span of the request as the client sees it.
    fn server(&self) -> Span {
        let account = self.account;
        let mut of = Attributes::default();
        self.method(&mut of);
        of.add("url.path", &*account.path);
        of.add("url.scheme", "http");
        of.maybe("http.route", self.route());
        // No answer was sent to a client that left before there was one.
        let status = Some(account.status).filter(|status| *status != CLIENT_CLOSED);
        of.maybe("http.response.status_code", status.map(u64::from));
        of.add("network.protocol.version", version(account.version));
        of.add("client.address", &*account.client);
        let engine = account.engine().map(|engine| engine.url.text());
        of.maybe("gen_ai.request.model", account.model.as_deref());
        of.add("pilotfish.request_id", &*account.id);
        of.maybe("pilotfish.policy", account.policy.as_deref());
        of.maybe("pilotfish.engine", engine);
        of.add("pilotfish.attempts", u64::from(account.attempts));
        of.add("pilotfish.ended", account.ending.word());
        let ttft = account.ttft().map(|ttft| ttft.as_secs_f64());
        of.maybe("pilotfish.time_to_first_chunk", ttft);
        let overhead = account.overhead.map(|overhead| overhead.as_secs_f64());
        of.maybe("pilotfish.overhead", overhead);
        let error = self.error();
        of.maybe("error.type", error.as_deref());
        Span {
            name: named(&account.method, self.route()),
            kind: SERVER,
            span_id: bytes(self.traced.own.span),
            parent_span_id: self.traced.parent.map_or_else(Vec::new, bytes),
            start_time_unix_nano: self.nanos(account.began),
            end_time_unix_nano: self.nanos(account.ended),
            attributes: of.0,
            status: error.map(failed),
            ..self.of_trace(if self.traced.parent.is_some() {
                LOCALITY | REMOTE
            } else {
                LOCALITY
            })
        }
    }

    /// What failed, as the client sees it: a status of its own fault is none.
    fn error(&self) -> Option<String> {
        let account = self.account;
        let is_ours = matches!(account.ending, Ending::EngineFailed | Ending::Deadline);
        let word = match account.error {
            Some(error) if is_ours || account.status >= 500 => Some(error),
            _ if account.ending == Ending::Stopped => Some("stopped"),
            _ => None,
        };
        let status = || (account.status >= 500).then(|| account.status.to_string());
        word.map(str::to_owned).or_else(status)
    }

    /// The span of one try.
    fn client(&self, at: usize, one: &Try) -> Span {
        let account = self.account;
        let is_given = account.given == Some(at);
        let operation = self.operation();
        let model = account.model.as_deref();
        let url = &one.engine.url;
        let mut of = Attributes::default();
        self.method(&mut of);
        of.add("server.address", url.host());
        of.add("server.port", u64::from(url.port()));
        let base = url.text().trim_end_matches('/');
        of.add("url.full", &*format!("{base}{}", account.path));
        let resent = u64::try_from(at).ok().filter(|at| *at > 0);
        of.maybe("http.request.resend_count", resent);
        of.maybe("http.response.status_code", one.status.map(u64::from));
        if let Some(operation) = operation {
            of.add("gen_ai.operation.name", operation);
            // Whose API is spoken; who answers it, it does not tell.
            of.add("gen_ai.provider.name", "openai");
            of.maybe("gen_ai.request.model", model);
        }
        let mut error = one.fault.map(str::to_owned);
        if is_given {
            self.answer(one, &mut of);
            let is_broken = account.ending == Ending::EngineFailed;
            error = account.error.filter(|_| is_broken).map(str::to_owned);
        }
        let bad = one.status.filter(|status| *status >= 400);
        let error = error.or_else(|| bad.map(|status| status.to_string()));
        of.maybe("error.type", error.as_deref());
        Span {
            name: match (operation, model) {
                (Some(operation), Some(model)) => format!("{operation} {model}"),
                (Some(operation), None) => operation.to_owned(),
                (None, _) => named(&account.method, self.route()),
            },
            kind: CLIENT,
            span_id: bytes(one.span),
            parent_span_id: bytes(self.traced.own.span),
            start_time_unix_nano: self.nanos(one.began),
            end_time_unix_nano: self.nanos(one.ended.unwrap_or(account.ended)),
            attributes: of.0,
            status: error.map(failed),
            ..self.of_trace(LOCALITY)
        }
    }

    /// What the engine's answer told.
    fn answer(&self, one: &Try, of: &mut Attributes) {
        let account = self.account;
        if self.operation().is_none() {
            return;
        }
        of.add("gen_ai.request.stream", account.is_stream);
        let first = account.first.filter(|_| account.is_stream);
        let ttft = first.map(|first| first.saturating_duration_since(one.began));
        of.maybe(
            "gen_ai.response.time_to_first_chunk",
            ttft.map(|ttft| ttft.as_secs_f64()),
        );
        of.maybe("gen_ai.usage.input_tokens", account.input_tokens);
        of.maybe("gen_ai.usage.output_tokens", account.output_tokens);
    }

    fn method(&self, of: &mut Attributes) {
        let method = self.account.method.as_str();
        if is_known(&self.account.method) {
            of.add("http.request.method", method);
        } else {
            of.add("http.request.method", "_OTHER");
            of.add("http.request.method_original", method);
        }
    }

    fn operation(&self) -> Option<&'static str> {
        let mut all = OPERATIONS.iter();
        let found = all.find(|(path, _)| *path == self.account.path)?;
        Some(found.1)
    }

    /// The path if it is one of few: a span's name must have few values.
    fn route(&self) -> Option<&'static str> {
        let mut all = OPERATIONS.iter();
        let found = all.find(|(path, _)| *path == self.account.path)?;
        Some(found.0)
    }

    fn of_trace(&self, flags: u32) -> Span {
        let state = self
            .traced
            .state
            .as_ref()
            .and_then(|state| state.to_str().ok());
        Span {
            trace_id: self.traced.own.trace.to_be_bytes().to_vec(),
            trace_state: state.unwrap_or_default().to_owned(),
            flags: flags | u32::from(self.traced.own.flags),
            ..Span::default()
        }
    }

    /// Nanoseconds since the Unix epoch, by the time of the request's end.
    fn nanos(&self, at: Instant) -> u64 {
        let before = self.account.ended.saturating_duration_since(at);
        let since_epoch = self.account.ended_at.saturating_sub(before);
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn bytes(span: u64) -> Vec<u8> {
    span.to_be_bytes().to_vec()
}

fn failed(message: String) -> Status {
    Status {
        message,
        code: ERROR,
    }
}

fn named(method: &Method, route: Option<&str>) -> String {
    let method = if is_known(method) {
        method.as_str()
    } else {
        "HTTP"
    };
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

fn is_known(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
            | Method::CONNECT
            | Method::TRACE
    )
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
