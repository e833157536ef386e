//! The engines, and what is done to them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::MODEL;
use super::plan::Injury;
use crate::sim::speed::Speed;
use crate::sim::{SimConfig, SimEngine};

/// How long a killed engine's port is asked for.
const PORT: Duration = Duration::from_secs(5);

/// All engines; one that is killed is missing.
#[derive(Debug)]
pub(super) struct Ward {
    engines: Vec<Option<SimEngine>>,
    addresses: Vec<SocketAddr>,
}

/// An engine that takes little time, and holds little memory.
fn engine(listen: Option<SocketAddr>) -> io::Result<SimEngine> {
    let speed = Speed {
        base_ttft: Duration::from_millis(4),
        prefill_tokens_per_second: 1e6,
        itl: Duration::from_millis(3),
        batch_slowdown: 0.01,
        cache_blocks: 256,
        ..Speed::default()
    };
    let mut config = SimConfig::new(MODEL, speed);
    config.listen = listen.unwrap_or(config.listen);
    SimEngine::start(config)
}

impl Ward {
    pub(super) fn open(engines: usize) -> io::Result<Self> {
        let engines = (0..engines).map(|_| engine(None));
        let engines = engines.collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            addresses: engines.iter().map(|engine| engine.address).collect(),
            engines: engines.into_iter().map(Some).collect(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.engines.len()
    }

    pub(super) fn urls(&self) -> Vec<String> {
        let urls = self.addresses.iter();
        urls.map(|address| format!("http://{address}")).collect()
    }

    /// Injures and heals by the plan, for so long; then all are well.
    pub(super) fn suffer(&mut self, plan: &[Injury], time: Duration) -> anyhow::Result<()> {
        let begins = plan
            .iter()
            .map(|injury| (injury.from, Some(injury), injury));
        let ends = plan.iter().map(|injury| (injury.until, None, injury));
        let mut steps: Vec<_> = begins.chain(ends).collect();
        // Of what falls together, healing comes first.
        steps.sort_by_key(|(at, begins, _)| (*at, begins.is_some()));
        let began = Instant::now();
        for (at, begins, injury) in steps {
            pause(at.saturating_sub(began.elapsed()));
            match begins {
                Some(injury) => self.injure(injury),
                None => self.heal(injury.engine)?,
            }
        }
        pause(time.saturating_sub(began.elapsed()));
        Ok(())
    }

    fn injure(&mut self, injury: &Injury) {
        let engine = &mut self.engines[injury.engine];
        match (&injury.fault, engine.as_ref()) {
            (Some(fault), Some(engine)) => engine.set_fault(Some(fault.clone())),
            _ => *engine = None,
        }
    }

    fn heal(&mut self, at: usize) -> anyhow::Result<()> {
        if let Some(engine) = &self.engines[at] {
            engine.set_fault(None);
            return Ok(());
        }
        let address = self.addresses[at];
        let until = Instant::now() + PORT;
        let started = loop {
            match engine(Some(address)) {
                // Somebody's connection may have come by this port meanwhile.
                Err(_) if Instant::now() < until => pause(Duration::from_millis(20)),
                started => break started,
            }
        };
        let started = started.with_context(|| format!("cannot listen on {address} again"))?;
        self.engines[at] = Some(started);
        Ok(())
    }

    fn each(&self, what: fn(&SimEngine) -> u64) -> Vec<u64> {
        let engines = self.engines.iter();
        engines
            .map(|engine| engine.as_ref().map_or(0, what))
            .collect()
    }

    /// Answers that each has given whole since it was started.
    pub(super) fn served(&self) -> Vec<u64> {
        self.each(|engine| engine.gauges().succeeded.load(Relaxed))
    }

    /// The engines that have answered nothing since then.
    pub(super) fn idle_since(&self, before: &[u64]) -> Vec<String> {
        let now = self.served();
        let urls = self.urls().into_iter().zip(now.iter().zip(before));
        urls.filter(|(_, (now, before))| now <= before)
            .map(|(url, _)| format!("{url} is idle"))
            .collect()
    }

    /// Requests that engines say are with them.
    pub(super) fn in_flight(&self) -> u64 {
        let with = self.each(|engine| {
            let gauges = engine.gauges();
            gauges.running.load(Relaxed) + gauges.waiting.load(Relaxed)
        });
        with.iter().sum()
    }
}

/// Waits for so long.
pub(super) fn pause(time: Duration) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
