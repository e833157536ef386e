//! The bench's load: requests on kept connections, each timed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::fleet::{Engine, EngineUrl};
use crate::upstream::{Get, Pool, Reading, Upload, fetch};

/// Longest wait for a status page, and its size.
const PAGE: (Duration, usize) = (Duration::from_secs(5), 4 << 20);

/// A load on one target.
#[derive(Debug)]
pub(super) struct Load {
    target: Arc<Engine>,
    pool: Rc<Pool>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Measured {
    /// Sorted.
    latencies: Vec<Duration>,
    events: u64,
    elapsed: Duration,
}

impl Load {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            target: Arc::new(Engine::new(
                EngineUrl::parse(url)?,
                1,
                (std::time::Instant::now(), Duration::ZERO),
                &Arc::default(),
            )),
            pool: Pool::new(1024, Duration::from_secs(60), Duration::from_secs(5)),
        })
    }

    /// `requests` over so many connections, each waiting for its answer.
    pub(super) async fn run(
        &self,
        connections: usize,
        requests: usize,
        stream: bool,
    ) -> anyhow::Result<Measured> {
        let left = Rc::new(Cell::new(requests));
        let latencies = Rc::new(RefCell::new(Vec::with_capacity(requests)));
        let events = Rc::new(Cell::new(0));
        let began = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (pool, target) = (Rc::clone(&self.pool), Arc::clone(&self.target));
            let (left, latencies, events) =
                (Rc::clone(&left), Rc::clone(&latencies), Rc::clone(&events));
            tasks.push(tokio::task::spawn_local(async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let sent = Instant::now();
                    let seen = one(&pool, &target, stream).await?;
                    latencies.borrow_mut().push(sent.elapsed());
                    events.set(events.get() + seen);
                }
                anyhow::Ok(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        let elapsed = began.elapsed();
        let mut latencies = latencies.take();
        latencies.sort_unstable();
        Ok(Measured {
            latencies,
            events: events.get(),
            elapsed,
        })
    }

    /// Allocations so far, of a target that counts them.
    pub(super) async fn allocations(&self) -> anyhow::Result<Option<f64>> {
        let get = Get {
            path: "/metrics",
            json: None,
            within: PAGE.0,
            most: PAGE.1,
        };
        let page = fetch(&self.pool, &self.target, get).await?;
        let page = String::from_utf8_lossy(&page);
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("pilotfish_allocations_total "));
        Ok(line.and_then(|value| value.parse().ok()))
    }
}

/// One request; tells the events of its answer.
async fn one(pool: &Rc<Pool>, target: &Arc<Engine>, stream: bool) -> anyhow::Result<u64> {
    let mut link = match pool.take(target) {
        Some(link) => link,
        None => pool.connect(target).await?,
    };
    let pad = "x".repeat(900);
    let body = format!(
        r#"{{"model":"m","stream":{stream},"max_tokens":32,"messages":[{{"role":"user","content":"{pad}"}}]}}"#
    );
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
         authorization: Bearer bench\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut upload = Upload::new(vec![body.into()], true, None);
    upload.begin(head.into_bytes());
    let mut reading = Reading::new(&Method::POST, false);
    let answered =
        std::future::poll_fn(|cx| link.poll_exchange(&mut upload, &mut reading, pool, cx)).await?;
    anyhow::ensure!(answered.status == 200, "answered {}", answered.status);
    let unsent = (!upload.ended()).then_some(upload);
    let mut body = link.into_body(&answered, reading, unsent, pool);
    let mut events = 0;
    while let Some(data) = std::future::poll_fn(|cx| body.poll_data(cx)).await {
        events += memchr::memmem::find_iter(&data?, b"data: ").count() as u64;
    }
    Ok(events)
}

impl Measured {
    pub(super) fn requests(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn percentiles(&self) -> Value {
        let at = |hundredths: usize| {
            let index = (self.latencies.len() * hundredths / 100).min(self.latencies.len() - 1);
            u64::try_from(self.latencies[index].as_micros()).unwrap_or(u64::MAX)
        };
        json!({"p50": at(50), "p90": at(90), "p99": at(99)})
    }

    pub(super) fn rate(&self) -> f64 {
        (self.requests() as f64 / self.elapsed.as_secs_f64()).round()
    }

    pub(super) fn event_rate(&self) -> f64 {
        (self.events as f64 / self.elapsed.as_secs_f64()).round()
    }
}
