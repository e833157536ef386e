//! What belongs to the process: its workers, what the system says of it, and the
//! errors that it answers with.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

use super::{Kind, family, line, seconds, series, single, times};
use crate::metrics::{ProcessMetrics, WorkerMetrics};
use crate::proxy::error::{Code, Refusals};

/// Appends what is counted for the process as a whole.
pub(in crate::api) fn counts(out: &mut String, metrics: &ProcessMetrics) {
    let (retries, telling) = (&metrics.retries, &metrics.telling);
    let (overhead, queue) = ("pilotfish_overhead_seconds", "pilotfish_queue_seconds");
    let help = "Our own work: from the whole request to its being written.";
    family(out, overhead, Kind::Histogram, help);
    times(out, overhead, "", &metrics.overhead);
    let help = "How long requests waited for a place.";
    family(out, queue, Kind::Histogram, help);
    times(out, queue, "", &metrics.queue);
    let (name, help) = ("pilotfish_client_connections", "Open client connections.");
    let open = metrics.connections.get().to_string();
    single(out, name, Kind::Gauge, help, &open);
    for (name, help, count) in [
        (
            "pilotfish_client_connections_closed_idle_total",
            "Idle client connections closed to make room for others.",
            &metrics.closed_idle,
        ),
        (
            "pilotfish_accept_errors_total",
            "Client connections that could not be taken.",
            &metrics.accept_errors,
        ),
        (
            "pilotfish_retries_denied_total",
            "Requests not sent again, as the budget was spent.",
            &retries.denied,
        ),
        (
            "pilotfish_requests_refused_total",
            "Requests that got a 429 since there was no place.",
            &metrics.refused,
        ),
        (
            "pilotfish_access_log_dropped_total",
            "Lines of the access log that were lost.",
            &telling.lines_dropped,
        ),
        (
            "pilotfish_spans_exported_total",
            "Spans that the collector took.",
            &telling.spans_exported,
        ),
        (
            "pilotfish_spans_dropped_total",
            "Spans that were lost.",
            &telling.spans_dropped,
        ),
    ] {
        single(out, name, Kind::Counter, help, &count.get().to_string());
    }
    let name = "pilotfish_retries_total";
    let help = "Requests sent again before any answer, by reason.";
    family(out, name, Kind::Counter, help);
    for (reason, count) in retries.each() {
        series(out, name, ("reason", reason), count.get());
    }
}

/// Appends how late each worker's event loop was, its idle connections and its
/// tasks.
pub(in crate::api) fn workers(out: &mut String, workers: &[WorkerMetrics]) {
    let name = "pilotfish_worker_delay_seconds";
    let help = "How late a worker came to its timer, ten times a second: what any event waited.";
    family(out, name, Kind::Histogram, help);
    for (index, worker) in workers.iter().enumerate() {
        times(out, name, &format!("worker=\"{index}\""), &worker.delay);
    }
    let name = "pilotfish_upstream_idle_connections";
    let help = "Idle connections to engines in a worker's pool, as of its last sweep.";
    family(out, name, Kind::Gauge, help);
    for (index, worker) in workers.iter().enumerate() {
        let index = index.to_string();
        series(out, name, ("worker", &index), worker.idle_links());
    }
    let name = "pilotfish_worker_tasks";
    let help = "Tasks of a worker that have not ended: one a client connection, and a few more.";
    family(out, name, Kind::Gauge, help);
    for (index, worker) in workers.iter().enumerate() {
        let index = index.to_string();
        series(out, name, ("worker", &index), worker.tasks());
    }
}

/// Appends the requests that got an error of ours.
pub(in crate::api) fn refusals(out: &mut String, refusals: &Refusals) {
    let name = "pilotfish_refusals_total";
    let help = "Requests that got an error of our own, by its code.";
    family(out, name, Kind::Counter, help);
    for ((_, code), count) in Code::ALL.iter().zip(refusals.read()) {
        series(out, name, ("reason", code), count);
    }
}

/// What the system says of this process. What it does not tell has no series.
#[derive(Debug, Default)]
pub(in crate::api) struct Process {
    /// Unix seconds.
    started: Option<f64>,
}

impl Process {
    /// This one.
    pub(in crate::api) fn this() -> Self {
        let stat = read("/proc/self/stat");
        let boot = read("/proc/stat").as_deref().and_then(boot_time);
        let ticks = stat.as_deref().and_then(start_ticks).zip(boot);
        #[expect(clippy::cast_precision_loss, reason = "hundredths of a second")]
        let started = ticks.map(|(ticks, boot)| {
            boot + ticks as f64 / rustix::param::clock_ticks_per_second() as f64
        });
        Self { started }
    }
}

/// Appends the series that every exporter has of its process, and our version.
pub(in crate::api) fn process(out: &mut String, process: &Process) {
    let status = read("/proc/self/status").unwrap_or_default();
    let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| {
        let time = usage.user_time() + usage.system_time();
        seconds(u64::try_from(time.num_microseconds()).unwrap_or(0)).to_string()
    });
    let resident = number_of(&status, "VmRSS:").map(|kib| (kib * 1024).to_string());
    let threads = number_of(&status, "Threads:").map(|count| count.to_string());
    let most = getrlimit(Resource::RLIMIT_NOFILE).ok();
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            Kind::Counter,
            "CPU time of the process, its own and the system's for it.",
            cpu,
        ),
        (
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Resident memory of the process.",
            resident,
        ),
        (
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process was started, since the Unix epoch.",
            process.started.map(|at| at.to_string()),
        ),
        (
            "process_open_fds",
            Kind::Gauge,
            "Open file descriptors.",
            open_fds().map(|count| count.to_string()),
        ),
        (
            "process_max_fds",
            Kind::Gauge,
            "File descriptors that may be open.",
            most.map(|(soft, _)| soft.to_string()),
        ),
        (
            "process_threads",
            Kind::Gauge,
            "Threads of the process.",
            threads,
        ),
    ] {
        if let Some(value) = value {
            single(out, name, kind, help, &value);
        }
    }
    let (name, version) = ("pilotfish_build_info", env!("CARGO_PKG_VERSION"));
    family(out, name, Kind::Gauge, "1, with our version.");
    line(out, format_args!("{name}{{version=\"{version}\"}} 1"));
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A field of `/proc/self/status`.
fn number_of(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Since Linux 6.2 the folder's size is their count; before it is 0, and they
/// are counted one by one.
fn open_fds() -> Option<u64> {
    let size = std::fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let all = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the folder.
    Some(u64::try_from(all).ok()?.saturating_sub(1))
}

/// When the machine was started, Unix seconds (`proc_stat(5)`).
fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// When a process was started, in ticks since the machine was
/// (`proc_pid_stat(5)`, field 22). Its name may have blanks and parentheses.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_manual_has_them() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 5 0 8801 1 2 3";
        assert_eq!(start_ticks(stat), Some(8801));
        assert_eq!(boot_time("cpu 1\nbtime 1700000000\n"), Some(1.7e9));
        let status = "Name:\tx\nVmRSS:\t  1024 kB\nThreads:\t7\n";
        assert_eq!(number_of(status, "VmRSS:"), Some(1024));
        assert_eq!(number_of(status, "Threads:"), Some(7));
        assert_eq!(
            (start_ticks(""), boot_time(""), number_of("", "x")),
            (None, None, None)
        );
    }

    #[test]
    fn this_process_is_told_of() {
        let mut page = String::new();
        process(&mut page, &Process::this());
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(value("process_threads ") >= 1.0);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.unwrap().as_secs_f64() - value("process_start_time_seconds ");
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn every_worker_and_every_code_is_told_of() {
        let all = [WorkerMetrics::default(), WorkerMetrics::default()];
        all[1].set_idle_links(7);
        all[0].set_tasks(3);
        let mut page = String::new();
        workers(&mut page, &all);
        assert!(page.contains("pilotfish_upstream_idle_connections{worker=\"1\"} 7"));
        assert!(page.contains("pilotfish_worker_tasks{worker=\"0\"} 3"));
        assert!(page.contains("pilotfish_worker_delay_seconds_count{worker=\"0\"} 0"));
        let counts = Refusals::default();
        counts.count(Code::QueueFull);
        refusals(&mut page, &counts);
        assert!(page.contains("pilotfish_refusals_total{reason=\"queue_full\"} 1"));
        assert!(page.contains("pilotfish_refusals_total{reason=\"model_not_found\"} 0"));
    }
}
