//! The page behind `/metrics`, put together on the control thread.
//!
//! What it reads is atomics and what the control thread alone writes: no worker
//! ever waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::exposition::{self, Kind, Process, shown, single};
use super::host::Usage;
use super::{attributes, compatible};
use crate::fleet::Snapshot;
use crate::fleet::attributes::Freshness;
use crate::fleet::gate::Places;
use crate::fleet::stats::Windows;
use crate::metrics::{ModelMetrics, ModelRegistry, ProcessMetrics, WorkerMetrics};
use crate::proxy::error::Refusals;
use crate::tls::Tls;
use crate::upstream::Secure;

/// What the page is made from and what no snapshot has.
#[derive(Debug)]
pub struct Sources {
    metrics: Arc<ProcessMetrics>,
    models: Arc<Mutex<Vec<Arc<ModelMetrics>>>>,
    process: Process,
    /// Places, where requests in flight are limited.
    pub places: Places,
    /// What each worker tells of itself.
    pub workers: Arc<[WorkerMetrics]>,
    /// TLS of the public listener, if there is any.
    pub tls: Option<Arc<Tls>>,
    /// How engines that speak TLS are spoken to.
    pub secure: Arc<Secure>,
    /// Requests that got an error of ours.
    pub refusals: Arc<Refusals>,
}

impl Sources {
    /// Those of a process that counts in these, with so many workers.
    #[must_use]
    pub fn new(metrics: Arc<ProcessMetrics>, registry: &ModelRegistry, workers: usize) -> Self {
        Self {
            metrics,
            models: registry.rendered(),
            process: Process::this(),
            workers: (0..workers).map(|_| WorkerMetrics::default()).collect(),
            refusals: Arc::default(),
            tls: None,
            secure: Arc::default(),
            places: Places::default(),
        }
    }

    /// Looks after certificates, if there are any: the listener's, and what
    /// engines are shown.
    pub async fn watch_certificates(&self) {
        let counts = &self.metrics.tls;
        let of_listener = async {
            match &self.tls {
                Some(tls) => crate::tls::watching::run(tls, counts).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(of_listener, self.secure.watch(counts));
    }

    /// Appends the page, but for what the control thread tells of itself.
    pub fn page(&self, text: &mut String, snapshot: &Snapshot, windows: &Windows, by: Freshness) {
        exposition::counts(text, &self.metrics);
        // Only this thread ever locks it.
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        exposition::models(text, &models);
        drop(models);
        exposition::policies(text, &snapshot.policies);
        exposition::smart_policies(text, &snapshot.policies);
        exposition::refusals(text, &self.refusals);
        let waiting = self.places.waiting().to_string();
        let name = "pilotfish_requests_waiting";
        let help = "Requests that wait for a place.";
        single(text, name, Kind::Gauge, help, &waiting);
        let engines = shown(snapshot);
        exposition::engines(text, &engines, snapshot.epoch.elapsed());
        attributes::engines(text, &engines, snapshot, by);
        let rates = windows.rates(snapshot, Instant::now());
        compatible::engines(text, &engines, &rates);
        compatible::work(text, &engines);
        exposition::workers(text, &self.workers);
        let counts = &self.metrics.tls;
        let of_listener = self.tls.iter().flat_map(|tls| tls.expiries());
        let expiries: Vec<_> = of_listener.chain(self.secure.expiries()).collect();
        if self.tls.is_some() || !expiries.is_empty() {
            exposition::certificates(text, &expiries, counts);
        }
        if self.tls.is_some() {
            exposition::handshakes(text, counts);
        }
        exposition::process(text, &self.process);
    }
}

/// Appends how busy the machine is.
pub fn host(text: &mut String, usage: Usage) {
    compatible::host(text, usage);
}

/// Appends the count of allocations since the start.
#[cfg(feature = "count-allocations")]
pub fn allocations(text: &mut String) {
    let count = stats_alloc::INSTRUMENTED_SYSTEM.stats().allocations;
    let (name, help) = (
        "pilotfish_allocations_total",
        "Heap allocations since the start.",
    );
    single(text, name, Kind::Counter, help, &count.to_string());
}
