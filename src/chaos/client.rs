//! Clients: each sends one request after the other on a kept connection, some
//! leave in the midst of it, and all look at what they get.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use fastrand::Rng;
use http::Version;
use tokio::time::timeout;

use super::line::Line;
use super::report::Tally;
use super::verify::{self, Events, Wrong};
use super::wire::{Head, Piece};

/// No request takes longer: the proxy's deadlines are far shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error.
const REFUSED: Duration = Duration::from_millis(10);
/// Tokens of an answer at most, where there are few clients.
const TOKENS: usize = 64;
/// Of so many clients, one speaks HTTP/2.
const HTTP2: usize = 4;
/// Bytes of a prompt at most.
const PROMPT: usize = 4000;

/// What a crowd is to do.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    /// A word for its requests.
    pub(super) name: &'static str,
    /// Where the proxy is.
    pub(super) address: SocketAddr,
    pub(super) clients: usize,
    pub(super) seed: u64,
    /// Requests of each client at most.
    pub(super) most: usize,
    /// Between two requests of a client.
    pub(super) pause: Duration,
}

/// Clients at work, on a thread and a runtime of their own.
#[derive(Debug)]
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Tally>>>,
}

impl Crowd {
    pub(super) fn start(orders: Orders) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("clients".to_owned())
            .spawn(move || work(&orders, &stopped))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Lets each client end the request that it is at.
    pub(super) fn stop(self) -> anyhow::Result<Tally> {
        self.stop.store(true, Relaxed);
        self.join()
    }

    /// Waits until each has sent all its requests.
    pub(super) fn join(mut self) -> anyhow::Result<Tally> {
        let thread = self.thread.take().ok_or_else(|| anyhow!("joined twice"))?;
        thread
            .join()
            .map_err(|_| anyhow!("the clients' thread panicked"))?
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn work(orders: &Orders, stop: &Arc<AtomicBool>) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut seeds = Rng::with_seed(orders.seed);
    runtime.block_on(async {
        let clients: Vec<_> = (0..orders.clients)
            .map(|number| {
                let client = Client {
                    orders: orders.clone(),
                    number,
                    rng: seeds.fork(),
                    wire: None,
                    tally: Tally::default(),
                    began: Instant::now(),
                };
                tokio::spawn(client.run(Arc::clone(stop)))
            })
            .collect();
        let mut tally = Tally::default();
        for client in clients {
            tally.add(client.await?);
        }
        Ok(tally)
    })
}

/// One request as it is meant.
#[derive(Debug)]
struct Ask {
    id: String,
    /// Never the number that another client asks for at the same time.
    tokens: usize,
    stream: bool,
    usage: bool,
    leaves: Leaves,
}

/// When a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    AtTheEnd,
    /// When there is no head after so long; the request has then long come.
    Waiting(Duration),
    /// After so many tokens of a stream.
    After(usize),
}

impl Ask {
    fn draw(orders: &Orders, number: usize, turn: usize, rng: &mut Rng) -> Self {
        let rounds = (TOKENS / orders.clients.max(1)).max(1);
        let tokens = 1 + number + orders.clients * rng.usize(0..rounds);
        Self {
            id: format!("{}-{number}-{turn}", orders.name),
            tokens,
            stream: rng.bool(),
            usage: rng.bool(),
            leaves: match rng.u8(0..16) {
                0 => Leaves::After(rng.usize(1..=tokens)),
                1 => Leaves::Waiting(Duration::from_millis(rng.u64(250..500))),
                _ => Leaves::AtTheEnd,
            },
        }
    }

    fn body(&self, rng: &mut Rng) -> String {
        let Self { tokens, stream, .. } = self;
        let usage = if self.stream && self.usage {
            r#""stream_options":{"include_usage":true},"#
        } else {
            ""
        };
        let prompt = "chaos ".repeat(rng.usize(1..PROMPT / 6));
        format!(
            r#"{{"model":"{}","stream":{stream},{usage}"max_tokens":{tokens},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#,
            super::MODEL
        )
    }
}

/// One client.
struct Client {
    orders: Orders,
    number: usize,
    rng: Rng,
    /// Kept while its answers end properly.
    wire: Option<Line>,
    tally: Tally,
    began: Instant,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Tally {
        for turn in 0..self.orders.most {
            if stop.load(Relaxed) {
                break;
            }
            let ask = Ask::draw(&self.orders, self.number, turn, &mut self.rng);
            let wrong = match timeout(PATIENCE, self.one(&ask)).await {
                Ok(Ok(())) => None,
                Ok(Err(wrong)) => Some(wrong),
                Err(_) => Some(format!("no end within {} s", PATIENCE.as_secs())),
            };
            if let Some(wrong) = wrong {
                let at = self.began.elapsed().as_secs_f64();
                self.tally
                    .violated(format!("at {at:.3} s, {ask:?}: {wrong}"));
            }
            if !self.orders.pause.is_zero() {
                tokio::time::sleep(self.orders.pause).await;
            }
        }
        self.tally
    }

    /// One request; an error is a violation.
    async fn one(&mut self, ask: &Ask) -> Result<(), Wrong> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => (Line::connect(self.orders.address, self.version()).await)
                .map_err(|error| format!("cannot connect: {error}"))?,
        };
        let sent = wire.ask(&ask.id, ask.body(&mut self.rng)).await;
        sent.map_err(|error| format!("cannot send: {error}"))?;
        self.tally.sent += 1;
        let head = match ask.leaves {
            Leaves::Waiting(time) => match timeout(time, wire.head()).await {
                Ok(head) => head?,
                Err(_) => {
                    self.tally.left_waiting += 1;
                    return Ok(());
                }
            },
            _ => wire.head().await?,
        };
        let head = head.ok_or("the connection ended without an answer")?;
        *self.tally.statuses.entry(head.status).or_default() += 1;
        if head.field("x-request-id") != Some(&ask.id) {
            return Err(format!("the answer to another request: {head:?}"));
        }
        let is_whole = self.answer(ask, &head, &mut wire).await?;
        if is_whole && !wire.surplus().is_empty() {
            let surplus = String::from_utf8_lossy(wire.surplus()).into_owned();
            return Err(format!("bytes after the answer's end: {surplus}"));
        }
        self.wire = wire.is_kept(&head, is_whole).then_some(wire);
        Ok(())
    }

    fn version(&self) -> Version {
        if self.number % HTTP2 == HTTP2 - 1 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        }
    }

    /// Reads what follows a head; true when it is whole.
    async fn answer(&mut self, ask: &Ask, head: &Head, wire: &mut Line) -> Result<bool, Wrong> {
        if head.status == 200 && ask.stream {
            return self.stream(ask, head, wire).await;
        }
        let (body, is_whole) = wire.body().await?;
        match (head.status, is_whole) {
            (200, true) => {
                verify::whole(&body, ask.tokens)?;
                self.tally.whole += 1;
            }
            (200, false) => {
                verify::part(&body, ask.tokens)?;
                self.tally.cut_answers += 1;
            }
            (status, true) => {
                verify::refusal(status, &body)?;
                *self.tally.errors.entry(status).or_default() += 1;
                // Who is refused does not ask again at once.
                tokio::time::sleep(REFUSED).await;
            }
            (status, false) => return Err(format!("a cut error {status}")),
        }
        Ok(is_whole)
    }

    async fn stream(&mut self, ask: &Ask, head: &Head, wire: &mut Line) -> Result<bool, Wrong> {
        let kind = head.field("content-type").unwrap_or("");
        if !kind.starts_with("text/event-stream") {
            return Err(format!("a stream of {kind}"));
        }
        let mut events = Events::new(ask.tokens, ask.usage);
        loop {
            match wire.piece().await? {
                Piece::Data(data) => events.take(&data)?,
                Piece::End => {
                    events.ended()?;
                    self.tally.whole += 1;
                    return Ok(true);
                }
                Piece::Cut => {
                    events.cut()?;
                    self.tally.cut_streams += 1;
                    return Ok(false);
                }
            }
            if matches!(ask.leaves, Leaves::After(tokens) if events.seen >= tokens) {
                self.tally.left_midway += 1;
                return Ok(false);
            }
        }
    }
}
