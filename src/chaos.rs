//! `pilotfish chaos`: the proxy before simulated engines that are killed, hung
//! and broken by a seeded plan, while clients look at every byte they get.
//!
//! All is in this process. Meanwhile its configuration is changed, and its pages
//! are read, every few seconds. An answer must be whole, or an honest error, or cut
//! so that the client can tell; when the engines have healed, nothing may be
//! left of it all.

mod client;
mod file;
mod line;
mod plan;
mod probe;
mod report;
mod slope;
mod verify;
mod ward;
mod watcher;
mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::app;
use crate::config::{Config, DrainSettings};

use client::{Crowd, Orders};
use file::File;
use plan::plan;
use probe::{Probe, resident};
pub use report::{Memory, Report, Tally};
pub use slope::Slope;
use slope::slopes;
use ward::{Ward, pause};
pub use watcher::Sample;
use watcher::Watcher;

/// What all engines serve.
const MODEL: &str = "chaos";
/// Requests before memory is looked at first.
const WARM_UP: usize = 400;
/// How long the proxy may take to trust healed engines, and to end requests.
const RECOVERY: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(100);
/// From the last request's end to the look at memory.
const SETTLE: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long engines are injured.
    pub time: Duration,
    /// Where all random numbers begin.
    pub seed: u64,
    /// Simulated engines; two at least.
    pub engines: usize,
    /// Clients, each with one request at a time.
    pub clients: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(60),
            seed: fastrand::u64(..),
            engines: 5,
            clients: 16,
        }
    }
}

/// A run in which an invariant was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invariant was broken; the report says which")]
pub struct Broken;

/// Runs it. It takes longer than the time that was asked for: there is a
/// warm-up, and engines and proxy need a while to recover.
///
/// # Errors
/// When it could not be run; what the run found is in the report.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut ward = Ward::open(options.engines.max(2))?;
    let file = File::new(ward.urls())?;
    let app = app::build(config(&file)?)?;
    let probe = Probe::new(app.address)?;
    let orders = Orders {
        name: "warm-up",
        address: app.address,
        clients: options.clients.max(1),
        seed: options.seed,
        most: WARM_UP.div_ceil(options.clients.max(1)),
        pause: Duration::ZERO,
    };
    let panics = Panics::count();
    let result = storm(options, &mut ward, &probe, (&orders, file));
    // The probe's connections are closed: nothing is waited for.
    probe.runtime().block_on(app.drain());
    result.map(|report| Report {
        panics: panics.seen.load(Relaxed),
        ..report
    })
}

/// Counts panics, which are still told of as before, until it is dropped.
struct Panics {
    seen: Arc<AtomicU64>,
}

impl Panics {
    fn count() -> Self {
        let seen = Arc::<AtomicU64>::default();
        let (counted, tell) = (Arc::clone(&seen), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            counted.fetch_add(1, Relaxed);
            tell(panic);
        }));
        Self { seen }
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        // A thread that panics must not touch the hook.
        if !std::thread::panicking() {
            drop(std::panic::take_hook());
        }
    }
}

/// Warm-up, injuries, recovery, and what is left then.
fn storm(
    options: &Options,
    ward: &mut Ward,
    probe: &Probe,
    (orders, file): (&Orders, File),
) -> anyhow::Result<Report> {
    let mut answers = Crowd::start(orders.clone())?.join()?;
    let before_kib = resident()?;

    let mut injuries = BTreeMap::new();
    let plan = plan(options.seed, ward.len(), options.time);
    for injury in &plan {
        *injuries.entry(injury.name).or_default() += 1;
    }
    let crowd = Crowd::start(Orders {
        name: "storm",
        seed: options.seed.wrapping_add(1),
        most: usize::MAX,
        ..orders.clone()
    })?;
    let watcher = Watcher::start(orders.address, file, options.time)?;
    ward.suffer(&plan, options.time)?;
    answers.add(crowd.stop()?);
    let (samples, _file) = watcher.stop()?;

    let (calm, untrusted, recovered_after) = recover(ward, probe, orders)?;
    answers.add(calm);

    let mut in_flight = 0;
    wait(|| {
        in_flight = probe.metrics()?.in_flight() + ward.in_flight();
        Ok(in_flight == 0)
    })?;
    pause(SETTLE);
    let page = probe.metrics()?;
    let count = |name| page.single(name);
    Ok(Report {
        seed: options.seed,
        seconds: options.time.as_secs_f64(),
        engines: ward.len(),
        clients: orders.clients,
        answers,
        injuries,
        counted: page.counted(),
        in_flight,
        untrusted,
        recovered_after,
        memory: Memory {
            before_kib,
            after_kib: resident()?,
        },
        panics: 0,
        reloads: (
            // The first was there from the start.
            count("pilotfish_config_reloads_total").saturating_sub(1),
            count("pilotfish_config_reload_failures_total"),
        ),
        slopes: slopes(&samples),
        samples,
    })
}

/// A calm load until all engines are trusted and at work: what it saw, who is
/// not, and the seconds that it took.
fn recover(
    ward: &Ward,
    probe: &Probe,
    orders: &Orders,
) -> anyhow::Result<(Tally, Vec<String>, f64)> {
    // Engines that are on trial must be asked, or they stay on trial.
    let healed = Instant::now();
    let calm = Crowd::start(Orders {
        name: "calm",
        clients: orders.clients.min(4),
        seed: orders.seed.wrapping_add(2),
        most: usize::MAX,
        pause: Duration::from_millis(20),
        ..orders.clone()
    })?;
    let served = ward.served();
    let mut untrusted = Vec::new();
    wait(|| {
        untrusted = probe.untrusted()?;
        untrusted.extend(ward.idle_since(&served));
        Ok(untrusted.is_empty())
    })?;
    let recovered_after = healed.elapsed().as_secs_f64();
    Ok((calm.stop()?, untrusted, recovered_after))
}

/// Looks again and again, until it is as it should be or time is up.
fn wait(mut is_met: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let until = Instant::now() + RECOVERY;
    while !is_met()? && Instant::now() < until {
        pause(LOOK);
    }
    Ok(())
}

fn config(file: &File) -> anyhow::Result<Config> {
    let (settings, source) = file.load()?;
    Ok(Config {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        workers: 2,
        settings,
        dynamic: Some(source),
        drain: DrainSettings {
            settle: Duration::ZERO,
            timeout: Duration::from_secs(2),
        },
        ..Config::default()
    })
}
