//! `pilotfish bench`: what the proxy adds, measured on the spot against the
//! simulated engine, with nothing to download.
//!
//! Engine, proxy and load are separate processes: the proxy's CPU and system
//! calls are its own. The simulated engine is the slowest of the three, so the
//! CPU a request costs is what to compare, not requests/s.

mod child;
mod load;
mod syscalls;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use child::Child;
use load::{Load, Measured};

/// Requests before anything is measured.
const WARM_UP: usize = 200;
/// Connections of the load that is not one by one.
const CONNECTIONS: usize = 32;
/// Requests while system calls are counted: tracing is slow.
const TRACED: usize = 2000;

/// Runs the bench: `requests` for each line.
///
/// # Errors
/// When a process cannot be started, or a request fails.
pub fn run(requests: usize, as_json: bool) -> anyhow::Result<String> {
    let engine = Child::engine()?;
    let proxy = Child::proxy(&engine.url())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let report = runtime.block_on(async {
        let direct = Load::new(&engine.url())?;
        let through = Load::new(&proxy.url())?;
        measure(&direct, &through, &proxy, requests).await
    })?;
    if as_json {
        return Ok(format!("{report}\n"));
    }
    Ok(table(&report))
}

async fn measure(
    direct: &Load,
    through: &Load,
    proxy: &Child,
    requests: usize,
) -> anyhow::Result<Value> {
    for load in [direct, through] {
        load.run(CONNECTIONS, WARM_UP, false).await?;
    }
    let alone_direct = direct.run(1, requests, false).await?;
    let alone = through.run(1, requests, false).await?;
    let many_direct = direct.run(CONNECTIONS, requests, false).await?;
    let (cpu, allocations) = (proxy.cpu()?, through.allocations().await?);
    let many = through.run(CONNECTIONS, requests, false).await?;
    let (cpu_spent, after) = (proxy.cpu()? - cpu, through.allocations().await?);
    let streams_direct = direct.run(CONNECTIONS, requests / 10, true).await?;
    let cpu = proxy.cpu()?;
    let streams = through.run(CONNECTIONS, requests / 10, true).await?;
    let cpu_streams = proxy.cpu()? - cpu;
    let tracer = syscalls::Tracer::start(proxy.thread("worker-0")?);
    through.run(CONNECTIONS, TRACED, false).await?;
    let calls = tracer.stop();
    Ok(json!({
        "latency_us": {
            "direct": alone_direct.percentiles(),
            "through": alone.percentiles(),
            "added": added(&alone, &alone_direct),
        },
        "requests_per_second": {"direct": many_direct.rate(), "through": many.rate()},
        "cpu_us_per_request": per(cpu_spent, many.requests()),
        "streams": {
            "events_per_second": {
                "direct": streams_direct.event_rate(),
                "through": streams.event_rate(),
            },
            "cpu_us_per_event": per(cpu_streams, streams.events()),
        },
        "system_calls_per_request": calls.map(|calls| rounded(calls as f64 / TRACED as f64)),
        "allocations_per_request": after.zip(allocations)
            .map(|(after, before)| rounded((after - before) / many.requests() as f64)),
    }))
}

fn added(through: &Measured, direct: &Measured) -> Value {
    let (through, direct) = (through.percentiles(), direct.percentiles());
    let less = |name: &str| {
        let of = |value: &Value| value[name].as_i64().unwrap_or(0);
        of(&through) - of(&direct)
    };
    json!({"p50": less("p50"), "p90": less("p90"), "p99": less("p99")})
}

fn per(spent: Duration, count: u64) -> f64 {
    rounded(spent.as_secs_f64() * 1e6 / count.max(1) as f64)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn table(report: &Value) -> String {
    let mut out = format!(
        "{:<34}{:>12}{:>12}{:>12}\n",
        "", "direct", "through", "added"
    );
    let mut row = |name: &str, cells: [&Value; 3]| {
        let cell = |value: &Value| {
            if value.is_null() {
                String::new()
            } else {
                value.to_string()
            }
        };
        let [direct, through, added] = cells.map(cell);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<34}{direct:>12}{through:>12}{added:>12}");
    };
    let latency = &report["latency_us"];
    for name in ["p50", "p90", "p99"] {
        let cells = ["direct", "through", "added"].map(|kind| &latency[kind][name]);
        row(&format!("latency {name}, one by one, us"), cells);
    }
    let rate = &report["requests_per_second"];
    row(
        "requests/s, 32 connections",
        [&rate["direct"], &rate["through"], &Value::Null],
    );
    let streams = &report["streams"];
    let events = &streams["events_per_second"];
    row(
        "events/s, 32 streams",
        [&events["direct"], &events["through"], &Value::Null],
    );
    for (name, value) in [
        ("our CPU for a request, us", &report["cpu_us_per_request"]),
        ("our CPU for an event, us", &streams["cpu_us_per_event"]),
        (
            "system calls for a request",
            &report["system_calls_per_request"],
        ),
        (
            "allocations for a request",
            &report["allocations_per_request"],
        ),
    ] {
        row(name, [&Value::Null, value, &Value::Null]);
    }
    if report["system_calls_per_request"].is_null() {
        out.push_str("(system calls: this system does not let us trace the proxy)\n");
    }
    if report["allocations_per_request"].is_null() {
        out.push_str("(allocations: build with --features count-allocations)\n");
    }
    out
}
