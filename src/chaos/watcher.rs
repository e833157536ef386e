//! Looks at the process once a second while it works, has its pages made, and
//! changes its configuration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde::Serialize;

use super::file::File;
use super::probe::{Probe, descriptors, resident};
use super::ward::pause;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks for each change of the configuration.
const CHANGE: usize = 3;

/// What one look saw. Memory and descriptors are of proxy, engines and clients
/// together; tasks are the proxy's alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the beginning.
    pub at: f64,
    /// KiB in memory.
    pub resident_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Tasks of the proxy's workers.
    pub tasks: u64,
    /// Requests that the proxy has counted so far.
    pub requests: u64,
}

/// A watcher at work, on a thread of its own.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<(Vec<Sample>, File)>>,
}

impl Watcher {
    pub(super) fn start(address: SocketAddr, file: File, time: Duration) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || watch(address, file, time, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// What it has seen; the file says again what it said at first.
    pub(super) fn stop(self) -> anyhow::Result<(Vec<Sample>, File)> {
        self.stop.store(true, Relaxed);
        let joined = self.thread.join();
        joined.map_err(|_| anyhow!("the watcher's thread panicked"))?
    }
}

fn watch(
    address: SocketAddr,
    mut file: File,
    time: Duration,
    stop: &AtomicBool,
) -> anyhow::Result<(Vec<Sample>, File)> {
    let probe = Probe::new(address)?;
    let looks = usize::try_from(time.as_secs()).unwrap_or(0) + 2;
    // It must not itself be what grows.
    let mut samples = Vec::with_capacity(looks.min(1 << 20));
    let began = Instant::now();
    for turn in 1usize.. {
        let due = EVERY.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX));
        pause(due.saturating_sub(began.elapsed()));
        if stop.load(Relaxed) || samples.len() == samples.capacity() {
            break;
        }
        let page = probe.metrics()?;
        probe.untrusted()?;
        samples.push(Sample {
            at: began.elapsed().as_secs_f64(),
            resident_kib: resident()?,
            descriptors: descriptors()?,
            tasks: page.sum("pilotfish_worker_tasks"),
            requests: page.counted().values().sum(),
        });
        if turn % CHANGE == 0 {
            file.change()?;
        }
    }
    file.settle()?;
    Ok((samples, file))
}
