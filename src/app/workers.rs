//! Starting the threads: workers, all made alike.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;

use crate::api::Api;
use crate::config::Bounds;
use crate::config::forwarded::TrustedProxies;
use crate::fleet::Snapshot;
use crate::metrics::WorkerMetrics;
use crate::proxy::ProxySettings;
use crate::report::Outlets;
use crate::tls::Tls;
use crate::upstream::Secure;
use crate::{net, worker};

/// What all workers are made from.
pub(super) struct WorkerTemplate {
    pub(super) published: Arc<ArcSwap<Snapshot>>,
    pub(super) settings: ProxySettings,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) outlets: Outlets,
    pub(super) bounds: Bounds,
    pub(super) trusted: Arc<TrustedProxies>,
    pub(super) root_path: Arc<str>,
    pub(super) api: Api,
    pub(super) secure: Arc<Secure>,
    pub(super) told: Arc<[WorkerMetrics]>,
}

pub(super) type OpenCounts = Arc<[AtomicUsize]>;

/// Starts the workers. Once `build` has returned they hold the only senders to
/// the control thread: when they are gone, so is control.
pub(super) fn start_workers(
    template: &WorkerTemplate,
    listener: &StdListener,
) -> io::Result<(OpenCounts, Vec<JoinHandle<()>>)> {
    let open: OpenCounts = (template.told.iter())
        .map(|_| AtomicUsize::new(0))
        .collect();
    let mut threads = Vec::with_capacity(open.len() + 1);
    for index in 0..open.len() {
        let spec = worker::WorkerSpec {
            index,
            listener: net::share(listener)?,
            published: Arc::clone(&template.published),
            settings: template.settings.clone(),
            tls: template.tls.clone(),
            outlets: template.outlets.clone(),
            bounds: template.bounds.clone(),
            trusted: Arc::clone(&template.trusted),
            root_path: Arc::clone(&template.root_path),
            api: template.api.clone(),
            secure: Arc::clone(&template.secure),
            open: Arc::clone(&open),
            told: Arc::clone(&template.told),
        };
        threads.push(thread(&format!("worker-{index}"), move || {
            worker::run(spec)
        })?);
    }
    Ok((open, threads))
}

pub(super) fn thread(
    name: &str,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let named = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = body() {
                tracing::error!(thread = named, %error, "a thread could not start");
            }
        })
}
