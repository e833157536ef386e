//! What all workers' proxies share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::error::Refusals;
use super::facts::Budget;
use super::infer::sessions::Sessions;
use crate::auth::Auth;
use crate::decisions::DecisionLog;
use crate::drain::DrainWatch;
use crate::fleet::gate::Places;
use crate::metrics::ProcessMetrics;
use crate::registry::Registry;
use crate::smart::service::Service;

/// What all workers' proxies share.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Bytes of bodies held by the process.
    pub budget: Budget,
    /// Process-wide handles.
    pub metrics: Arc<ProcessMetrics>,
    /// Whether we are stopping.
    pub drain: DrainWatch,
    /// Whether each choice of an engine is logged.
    pub log_requests: bool,
    /// Where decisions that are to be explained are kept.
    pub decisions: Arc<DecisionLog>,
    /// The greatest age of what engines told that counts.
    pub stale_after: Duration,
    /// Places, where requests in flight are limited.
    pub places: Places,
    /// Requests that got an error of ours.
    pub refusals: Arc<Refusals>,
    /// Policies that are registered.
    pub registry: Arc<ArcSwap<Registry>>,
    /// How many workers share a process's budget of retries.
    pub workers: usize,
    /// Who may call; `None`: whoever can connect.
    pub auth: Option<Arc<Auth>>,
    /// Which blocks the sessions of `/v1/infer` were given.
    pub sessions: Arc<Sessions>,
    /// Whether errors of `/v1/infer` have the status 200, as in the reference.
    pub aios_compat_errors: bool,
    /// What is learned of models.
    pub smart: Service,
}
