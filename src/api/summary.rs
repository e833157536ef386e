//! `--log-stats`: a table of the engines, now and then, in the log.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use super::compatible::prefilling;
use crate::fleet::attributes::{Freshness, Live};
use crate::fleet::stats::Rates;
use crate::fleet::{Candidate, Snapshot};
use crate::telemetry::{self, LogFormat};

/// Engines that one table shows at most.
const MOST: usize = 100;

/// One engine's line.
struct Row<'a> {
    engine: &'a str,
    rates: Rates,
    pending: u32,
    running: u32,
    finished: u64,
    kv_cache: Option<f64>,
    state: &'static str,
    ejections: u64,
}

impl<'a> Row<'a> {
    fn of(candidate: &'a Candidate, rates: &HashMap<u64, Rates>, by: Freshness) -> Self {
        let engine = &candidate.engine;
        Self {
            engine: engine.url.text(),
            rates: rates.get(&engine.key).copied().unwrap_or_default(),
            pending: prefilling(engine),
            running: engine.answering.load(Relaxed),
            finished: super::exposition::finished(engine),
            kv_cache: engine.attributes.fresh(Live::KvCacheUsage, by),
            state: engine.health.word(by.now),
            ejections: engine.health.ejections(),
        }
    }
}

/// Logs the engines: a table for people, an event for each for machines.
pub fn log(snapshot: &Snapshot, rates: &HashMap<u64, Rates>, by: Freshness) {
    let candidates = snapshot.all.candidates.list();
    let rows: Vec<Row<'_>> = (candidates.iter().take(MOST))
        .map(|one| Row::of(one, rates, by))
        .collect();
    let uptime = by.now.as_secs();
    if telemetry::format() == Some(LogFormat::Json) {
        for row in rows {
            tracing::info!(
                engine = row.engine,
                qps = row.rates.qps,
                ttft_seconds = row.rates.ttft,
                itl_seconds = row.rates.itl,
                pending = row.pending,
                running = row.running,
                finished = row.finished,
                kv_cache_usage = row.kv_cache,
                state = row.state,
                ejections = row.ejections,
                uptime_seconds = uptime,
                "engine statistics"
            );
        }
        return;
    }
    let left = candidates.len().saturating_sub(MOST);
    tracing::info!("{}", table(&rows, uptime, left));
}

fn table(rows: &[Row<'_>], uptime: u64, left: usize) -> String {
    let width = rows
        .iter()
        .map(|row| row.engine.len())
        .max()
        .unwrap_or(0)
        .max(6);
    let mut text = format!(
        "engines, up {uptime} s\n{:<width$} {:>8} {:>10} {:>10} {:>8} {:>8} {:>10} {:>6} {:>8} {:>8}",
        "engine",
        "QPS",
        "TTFT ms",
        "ITL ms",
        "pending",
        "running",
        "finished",
        "KV %",
        "state",
        "ejected"
    );
    let millis = |seconds: Option<f64>| {
        seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1}", seconds * 1e3))
    };
    for row in rows {
        text.push_str(&format!(
            "\n{:<width$} {:>8.2} {:>10} {:>10} {:>8} {:>8} {:>10} {:>6} {:>8} {:>8}",
            row.engine,
            row.rates.qps,
            millis(row.rates.ttft),
            millis(row.rates.itl),
            row.pending,
            row.running,
            row.finished,
            (row.kv_cache).map_or_else(|| "-".to_owned(), |part| format!("{:.0}", part * 100.0)),
            row.state,
            row.ejections,
        ));
    }
    if left > 0 {
        text.push_str(&format!("\nand {left} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |engine, qps| Row {
            engine,
            rates: Rates {
                qps,
                ttft: Some(0.0423),
                ..Rates::default()
            },
            pending: 1,
            running: 2,
            finished: 3,
            kv_cache: Some(0.42),
            state: "healthy",
            ejections: 2,
        };
        let rows = [row("http://a:1", 1.5), row("http://longer:8000", 200.0)];
        let text = table(&rows, 61, 7);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("up 61 s"));
        assert!(
            lines[1..4].iter().all(|line| line.len() == lines[1].len()),
            "{text}"
        );
        assert!(
            lines[2].contains("42.3")
                && lines[2].contains(" - ")
                && lines[2].ends_with("healthy        2"),
            "{text}"
        );
        assert_eq!(lines[4], "and 7 more");
    }
}
