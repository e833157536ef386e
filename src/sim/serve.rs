//! One connection of the simulated engine: requests in, answers or faults out.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::answer::{Api, Job, card, embeddings, error, tokens};
use super::engine::State;
use super::fail::{self, aborted};
use super::faults::{FIELD, Fault};
use super::speed::TOKEN_BYTES;
use super::wire::{Answer, Request, Wire};
use crate::net;

/// Tokens of one block of the KV cache.
const BLOCK_TOKENS: usize = 16;

pub(super) async fn accept(listener: StdListener, state: Arc<State>) -> io::Result<()> {
    let listener = net::register(listener)?;
    loop {
        let (stream, _) = net::accept(&listener).await?;
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let mut life = state.life.subscribe();
            let born = *life.borrow_and_update();
            tokio::select! {
                // A client's broken connection is its own affair.
                _ = connection(stream, &state) => {}
                _ = life.wait_for(|life| *life != born) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, state: &State) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    while let Some(request) = wire.head().await? {
        let named = request.field(FIELD).and_then(|text| text.parse().ok());
        let generates = request.method == "POST";
        let fault = named.or_else(|| {
            let standing = state.fault.load_full().filter(|_| generates);
            standing.map(Arc::unwrap_or_clone)
        });
        if !fail::before_body(fault.as_ref(), &mut wire, state).await? {
            return Ok(());
        }
        let body = wire.body(&request).await?;
        let whole = match fail::instead(fault.as_ref(), &mut wire, state).await? {
            Some(whole) => whole,
            None => respond(&request, &body, fault.as_ref(), &mut wire, state).await?,
        };
        if !whole {
            return Ok(());
        }
    }
    Ok(())
}

async fn respond(
    request: &Request,
    body: &[u8],
    fault: Option<&Fault>,
    wire: &mut Wire,
    state: &State,
) -> io::Result<bool> {
    let path = request.path.split('?').next().unwrap_or("");
    let models = &state.config.models;
    let answer = match (request.method.as_str(), path) {
        ("GET", "/health") => Answer {
            status: 200,
            kind: "text/plain",
            extra: String::new(),
            body: String::new(),
        },
        ("GET", "/version") => Answer::json(200, &json!({"version": "0.11.0-sim"})),
        ("GET", "/v1/models") => {
            let cards: Vec<Value> = models.iter().map(|model| card(model)).collect();
            Answer::json(200, &json!({"object": "list", "data": cards}))
        }
        ("GET", "/metrics") => Answer {
            status: 200,
            kind: "text/plain; version=0.0.4; charset=utf-8",
            extra: String::new(),
            body: (state.gauges).render(
                models.first().map_or("", String::as_str),
                state.config.speed.cache_blocks,
            ),
        },
        ("POST", "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings") => {
            match checked(body, models) {
                Ok(body) if path == "/v1/embeddings" => Answer::json(200, &embeddings(&body)),
                Ok(body) => {
                    let chat = path == "/v1/chat/completions";
                    let api = if chat { Api::Chat } else { Api::Text };
                    let id = state.requests.fetch_add(1, Relaxed);
                    let mut job = Job::read(api, id, &body);
                    job.reports = request.field("endpoint-load-metrics-format") == Some("TEXT");
                    return generate(&job, fault, wire, state).await;
                }
                Err(answer) => answer,
            }
        }
        ("POST", "/tokenize") => match checked(body, models) {
            Ok(body) => Answer::json(200, &tokens(&body)),
            Err(answer) => answer,
        },
        _ => Answer::json(404, &json!({"detail": "Not Found"})),
    };
    wire.answer(&answer).await?;
    Ok(true)
}

/// The body, if it is JSON and names one of our models.
fn checked(body: &[u8], models: &[String]) -> Result<Value, Answer> {
    let parsed: Value = serde_json::from_slice(body).map_err(|e| {
        Answer::json(
            400,
            &error(&format!("invalid JSON: {e}"), "BadRequestError", 400),
        )
    })?;
    let model = parsed["model"].as_str().unwrap_or("");
    if models.iter().any(|known| known == model) {
        return Ok(parsed);
    }
    let message = format!("The model `{model}` does not exist.");
    Err(Answer::json(404, &error(&message, "NotFoundError", 404)))
}

/// Counts up while it lives.
struct Counted<'a>(&'a AtomicU64, u64);

impl<'a> Counted<'a> {
    fn add(gauge: &'a AtomicU64, by: u64) -> Self {
        gauge.fetch_add(by, Relaxed);
        Self(gauge, by)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

/// Runs a job, unless its client leaves.
async fn generate(
    job: &Job,
    fault: Option<&Fault>,
    wire: &mut Wire,
    state: &State,
) -> io::Result<bool> {
    let began = Instant::now();
    let gauges = &state.gauges;
    let waiting = Counted::add(&gauges.waiting, 1);
    let slot = tokio::select! {
        slot = state.slots.acquire() => slot,
        () = wire.gone() => return Ok(aborted(state)),
    };
    drop(waiting);
    let _running = Counted::add(&gauges.running, 1);
    let tokens = job.prompt_tokens();
    let blocks = ((tokens + job.tokens) / BLOCK_TOKENS + 1) as u64;
    let _blocks = Counted::add(&gauges.kv_blocks, blocks);
    let hits = match state.cache.lock() {
        Ok(mut cache) => cache.hit(job.prompt.as_bytes()),
        Err(_) => 0,
    };
    gauges.prompt_tokens.fetch_add(tokens as u64, Relaxed);
    gauges
        .prefix_queries
        .fetch_add((job.prompt.len() / TOKEN_BYTES) as u64, Relaxed);
    gauges.prefix_hits.fetch_add(hits as u64, Relaxed);
    if !pause(
        state.config.speed.prefill(tokens.saturating_sub(hits)),
        wire,
    )
    .await
    {
        return Ok(aborted(state));
    }
    gauges.first_token(began.elapsed());
    let whole = if job.stream {
        stream(job, fault, wire, state).await?
    } else {
        whole(job, fault, wire, state).await?
    };
    if whole && matches!(fault, Some(Fault::Surplus)) {
        wire.send(b"bytes that nobody asked for\r\n").await?;
    }
    drop(slot);
    if whole {
        gauges.succeeded.fetch_add(1, Relaxed);
    }
    Ok(whole)
}

/// A field that tells how busy the engine is, if the job asks for it: as in vLLM
/// whole answers have it, streams do not.
fn report(job: &Job, state: &State) -> String {
    if !job.reports {
        return String::new();
    }
    let (waiting, usage) = state.gauges.load(state.config.speed.cache_blocks);
    format!(
        "endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc={usage}, \
         named_metrics.num_requests_waiting={waiting}\r\n"
    )
}

fn steps(job: &Job) -> u32 {
    u32::try_from(job.tokens - 1).unwrap_or(u32::MAX)
}

/// Between two tokens, now.
fn step(fault: Option<&Fault>, state: &State) -> Duration {
    match fault {
        Some(Fault::Slow(step)) => *step,
        _ => state
            .config
            .speed
            .decode(state.gauges.running.load(Relaxed)),
    }
}

/// Sleeps; false when the client left meanwhile.
pub(super) async fn pause(time: Duration, wire: &mut Wire) -> bool {
    if time.is_zero() {
        return true;
    }
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = wire.gone() => false,
    }
}

/// An answer in one piece, or the part of it that the fault lets through.
async fn whole(
    job: &Job,
    fault: Option<&Fault>,
    wire: &mut Wire,
    state: &State,
) -> io::Result<bool> {
    let cut = fault.and_then(|fault| Some((fault, fault.after().filter(|at| *at < job.tokens)?)));
    let steps = cut.map_or(steps(job), |(_, at)| u32::try_from(at).unwrap_or(u32::MAX));
    if !pause(step(fault, state) * steps, wire).await {
        return Ok(aborted(state));
    }
    let mut answer = Answer::json(200, &job.whole());
    answer.extra = report(job, state);
    let Some((fault, at)) = cut else {
        let generated = &state.gauges.generation_tokens;
        generated.fetch_add(job.tokens as u64, Relaxed);
        wire.answer(&answer).await?;
        return Ok(true);
    };
    let bytes = answer.body.len() * at / job.tokens;
    match fault {
        Fault::GarbageAfter(_) => wire.chunked_part(&answer, bytes).await?,
        _ => wire.part(&answer, bytes).await?,
    }
    fail::break_off(fault, wire, state).await
}

async fn stream(
    job: &Job,
    fault: Option<&Fault>,
    wire: &mut Wire,
    state: &State,
) -> io::Result<bool> {
    let gauges = &state.gauges;
    wire.stream_head().await?;
    for at in 0..job.tokens {
        if let Some(fault) = fault.filter(|fault| fault.after() == Some(at)) {
            return fail::break_off(fault, wire, state).await;
        }
        if at > 0 {
            let step = step(fault, state);
            if !pause(step, wire).await {
                return Ok(aborted(state));
            }
            gauges.next_token(step);
        }
        if wire.event(&job.event(Some(at))).await.is_err() {
            return Ok(aborted(state));
        }
        gauges.generation_tokens.fetch_add(1, Relaxed);
    }
    wire.event(&job.event(None)).await?;
    if let Some(usage) = job.usage_event() {
        wire.event(&usage).await?;
    }
    wire.event("[DONE]").await?;
    wire.send(b"0\r\n\r\n").await?;
    Ok(true)
}
