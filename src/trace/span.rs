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

/// What a path asks of a model: the path, the well-known name of the operation,
/// and whose API it is; who answers it, it does not tell.
struct Operation(&'static str, &'static str, &'static str);

const OPERATIONS: [Operation; 5] = [
    Operation("/v1/chat/completions", "chat", "openai"),
    Operation("/v1/completions", "text_completion", "openai"),
    Operation("/v1/embeddings", "embeddings", "openai"),
    Operation("/v1/messages", "chat", "anthropic"),
    Operation("/v1/responses", "chat", "openai"),
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
    let mut all = OPERATIONS.iter();
    let writing = Writing {
        account,
        traced,
        asked: all.find(|Operation(path, ..)| *path == account.path),
    };
    out.push(writing.server());
    let tries = account.tries.iter().enumerate();
    out.extend(tries.map(|(at, one)| writing.client(at, one)));
}

struct Writing<'a> {
    account: &'a Account,
    traced: &'a Traced,
    /// What its path asks for, if it is one of few: a span's name must have few
    /// values.
    asked: Option<&'static Operation>,
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
        let route = self.asked.map(|Operation(path, ..)| *path);
        of.maybe("http.route", route);
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
            name: named(&account.method, route),
            kind: SERVER,
            span_id: bytes(self.traced.own.span),
            parent_span_id: self.traced.parent.map_or_else(Vec::new, bytes),
            start_time_unix_nano: self.nanos(account.began),
            end_time_unix_nano: self.nanos(account.ended),
            attributes: of.0,
            status: error.map(|_| failed()),
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
        let model = account.model.as_deref();
        let url = &one.engine.url;
        let mut of = Attributes::default();
        self.method(&mut of);
        of.add("server.address", url.host());
        of.add("server.port", u64::from(url.port()));
        let base = url.text().trim_end_matches('/');
        of.add("url.full", &*format!("{base}{}", account.path));
        let resent = Some(one.number).filter(|number| *number > 0);
        of.maybe("http.request.resend_count", resent.map(u64::from));
        of.maybe("http.response.status_code", one.status.map(u64::from));
        if let Some(Operation(_, operation, provider)) = self.asked {
            of.add("gen_ai.operation.name", *operation);
            of.add("gen_ai.provider.name", *provider);
            of.maybe("gen_ai.request.model", model);
            of.add("gen_ai.request.stream", account.asks_stream);
            if account.given == Some(at) {
                self.answer(one, &mut of);
            }
        }
        // What ended the request ended a try that went on.
        let is_cut = one.ended.is_none() && account.ending != Ending::Complete;
        let cut = is_cut.then(|| account.error.unwrap_or(account.ending.word()));
        let bad = one.status.filter(|status| *status >= 400);
        let error = one.fault.or(cut).map(str::to_owned);
        let error = error.or_else(|| bad.map(|status| status.to_string()));
        of.maybe("error.type", error.as_deref());
        Span {
            name: match (self.asked, model) {
                (Some(Operation(_, operation, _)), Some(model)) => format!("{operation} {model}"),
                (Some(Operation(_, operation, _)), None) => (*operation).to_owned(),
                (None, _) => named(&account.method, None),
            },
            kind: CLIENT,
            span_id: bytes(one.span),
            parent_span_id: bytes(self.traced.own.span),
            start_time_unix_nano: self.nanos(one.began),
            end_time_unix_nano: self.nanos(one.ended.unwrap_or(account.ended)),
            attributes: of.0,
            status: error.map(|_| failed()),
            ..self.of_trace(LOCALITY)
        }
    }

    /// What the engine's answer told.
    fn answer(&self, one: &Try, of: &mut Attributes) {
        let account = self.account;
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

    fn of_trace(&self, flags: u32) -> Span {
        Span {
            trace_id: self.traced.own.trace.to_be_bytes().to_vec(),
            trace_state: self.account.state.clone(),
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

/// Why is told by `error.type`: a message is for what that cannot say.
fn failed() -> Status {
    Status {
        message: String::new(),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;
    use crate::account::MOST_TRIES;
    use crate::fleet::{Engine, EngineUrl};
    use crate::trace::context::Sampler;

    fn account(path: &str) -> Account {
        let mut account = Account::new(Instant::now());
        account.take_path(path);
        let traced = Traced::begin(&HeaderMap::new(), Sampler::new(1.0));
        account.trace = Trace::Ours(traced);
        account
    }

    fn engine() -> Arc<Engine> {
        let url = EngineUrl::parse("http://e").unwrap();
        let now = (Instant::now(), Duration::ZERO);
        Arc::new(Engine::new(url, 1, now, &Arc::default()))
    }

    fn told(account: &Account) -> Vec<Span> {
        let mut list = Vec::new();
        spans(account, &mut list);
        list
    }

    fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
        let found = span.attributes.iter().find(|one| one.key == key)?;
        found.value.as_ref()?.value.as_ref()
    }

    #[test]
    fn an_api_is_named_by_its_maker() {
        for (path, provider) in [
            ("/v1/chat/completions", Some("openai")),
            ("/v1/messages", Some("anthropic")),
            ("/v1/models", None),
        ] {
            let mut account = account(path);
            account.tries(&engine(), account.began, 1);
            let spans = told(&account);
            let provider = provider.map(Value::from);
            let named = attribute(&spans[1], "gen_ai.provider.name");
            assert_eq!(named, provider.as_ref(), "{path}");
        }
    }

    #[test]
    fn only_tokens_that_were_told_are_told_on() {
        let mut account = account("/v1/chat/completions");
        let engine = engine();
        account.tries(&engine, account.began, 1);
        account.gives(&engine);
        account.counted_tokens = Some(7);
        let key = "gen_ai.usage.output_tokens";
        assert_eq!(attribute(&told(&account)[1], key), None);
        account.output_tokens = Some(8);
        assert_eq!(attribute(&told(&account)[1], key), Some(&Value::Int(8)));
    }

    #[test]
    fn the_last_of_many_tries_is_the_one_that_answered() {
        let mut account = account("/v1/chat/completions");
        let engine = engine();
        for span in 1..=20 {
            account.tries(&engine, account.began, span);
            account.tried(Err("unreachable"), account.began);
        }
        account.tries(&engine, account.began, 21);
        account.tried(Ok(200), account.began);
        account.gives(&engine);
        account.ending = Ending::Complete;
        let spans = told(&account);
        assert_eq!(spans.len(), 1 + MOST_TRIES);
        let last = &spans[MOST_TRIES];
        assert_eq!(
            (last.span_id.as_slice(), &last.status),
            (&21u64.to_be_bytes()[..], &None)
        );
        let resent = attribute(last, "http.request.resend_count");
        assert_eq!(resent, Some(&Value::Int(20)));
    }
}
