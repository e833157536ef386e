//! Starting the threads that tell of requests: the one that writes the access
//! log, and the one that exports spans; and waiting for them at the end.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::thread;
use crate::access::writer::{self, Log};
use crate::config::{AccessLog, GRPC_PORT, LogTarget, Otlp, TraceSettings};
use crate::metrics::Telling;
use crate::report::{LogOutlet, Outlets, SpanOutlet};
use crate::trace::context::Sampler;
use crate::trace::export::{self, Exporter};

/// How much these threads step back, of 19, as the control thread does.
const NICE: i32 = 5;
/// How long the last lines and spans may take; what takes them may hang.
const LAST: Duration = Duration::from_secs(5);

/// Starts what the configuration asks for.
///
/// # Errors
/// A log that cannot be opened, or TLS without a certificate that is trusted.
pub(super) fn start(
    log: Option<AccessLog>,
    traces: Option<TraceSettings>,
    telling: &Telling,
) -> anyhow::Result<(Outlets, Vec<JoinHandle<()>>)> {
    let mut outlets = Outlets::default();
    let mut threads = Vec::new();
    if let Some(settings) = log {
        let (outlet, thread) = start_log(settings, telling)?;
        outlets.log = Some(outlet);
        threads.push(thread);
    }
    if let Some(settings) = traces {
        let (outlet, thread) = start_traces(settings, telling)?;
        outlets.spans = Some(outlet);
        threads.push(thread);
    }
    Ok((outlets, threads))
}

fn start_log(
    settings: AccessLog,
    telling: &Telling,
) -> anyhow::Result<(LogOutlet, JoinHandle<()>)> {
    let name = match &settings.to {
        LogTarget::Stdout => "standard output".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    };
    let log = Log::open(settings.to, telling.lines_dropped.clone())
        .with_context(|| format!("cannot open the access log {name}"))?;
    let (queue, lines) = mpsc::channel(writer::QUEUE);
    let outlet = LogOutlet {
        form: settings.form,
        queue,
        dropped: telling.lines_dropped.clone(),
    };
    let thread = behind("access-log", move || writer::run(log, lines))?;
    Ok((outlet, thread))
}

fn start_traces(
    settings: TraceSettings,
    telling: &Telling,
) -> anyhow::Result<(SpanOutlet, JoinHandle<()>)> {
    let (queue, ended) = mpsc::channel(export::QUEUE);
    let outlet = SpanOutlet {
        sampler: Sampler::new(settings.sample),
        queue,
        dropped: telling.spans_dropped.clone(),
    };
    let collector = &settings.collector;
    if collector.speaks == Otlp::Http && collector.port == GRPC_PORT {
        tracing::warn!(
            "--otel-endpoint: port {GRPC_PORT} is usually gRPC's, but http(s):// is OTLP over HTTP \
             (usually port 4318); for gRPC write HOST:{GRPC_PORT}"
        );
    }
    let exporter = Exporter::new(settings, telling).context("cannot export traces")?;
    let thread = behind("traces", move || exporter.run(ended))?;
    Ok((outlet, thread))
}

/// A thread that leaves the cores to requests.
fn behind(
    name: &str,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread(name, move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the thread keeps its priority");
        }
        body()
    })
}

/// Waits for the last lines and spans, for a while: a pipe may be stuck.
pub(super) async fn finish(threads: &[JoinHandle<()>]) {
    let deadline = Instant::now() + LAST;
    while !threads.iter().all(JoinHandle::is_finished) {
        if Instant::now() > deadline {
            tracing::warn!("the last of the access log or of the traces was not taken in time");
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
