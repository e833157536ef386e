//! What is looked at beside the answers: the proxy's own pages, and memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::wire::Wire;

/// Longest wait for a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the proxy for its own pages.
#[derive(Debug)]
pub(super) struct Probe {
    runtime: Runtime,
    address: SocketAddr,
}

impl Probe {
    pub(super) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self { runtime, address })
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    fn page(&self, path: &str) -> anyhow::Result<String> {
        let asked = async {
            let mut wire = Wire::connect(self.address).await?;
            let get = format!("GET {path} HTTP/1.1\r\nhost: chaos\r\n\r\n");
            wire.send(get.as_bytes()).await?;
            let head = wire.head().await.map_err(|bad| anyhow!(bad))?;
            let head = head.context("no answer")?;
            let (body, is_whole) = wire.body().await.map_err(|bad| anyhow!(bad))?;
            ensure!(head.status == 200 && is_whole, "status {}", head.status);
            Ok(String::from_utf8(body)?)
        };
        let asked = self
            .runtime
            .block_on(async { timeout(PATIENCE, asked).await });
        asked
            .map_err(anyhow::Error::from)
            .and_then(|page| page)
            .with_context(|| format!("cannot read {path}"))
    }

    pub(super) fn metrics(&self) -> anyhow::Result<Page> {
        self.page("/metrics").map(Page)
    }

    /// Engines that are not trusted with traffic as any other.
    pub(super) fn untrusted(&self) -> anyhow::Result<Vec<String>> {
        let page: Value = serde_json::from_str(&self.page("/engines")?)?;
        let engines = page.as_array().context("/engines is no list")?;
        let untrusted = engines.iter().filter(|engine| !is_trusted(engine));
        let names = untrusted.map(|engine| engine["engine_id"].as_str().unwrap_or("?").to_owned());
        Ok(names.collect())
    }
}

/// Whether an entry of `/engines` says that all is well.
fn is_trusted(engine: &Value) -> bool {
    let state = engine.get("state").and_then(Value::as_str);
    engine["is_set_aside"] != true && state.is_none_or(|state| state == "healthy")
}

/// A page of metrics.
#[derive(Debug)]
pub(super) struct Page(String);

impl Page {
    fn of(&self, family: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(family)?.rsplit_once(' ')?;
            Some((labels.strip_prefix('{')?, value.parse().ok()?))
        })
    }

    /// Requests that the proxy says are on their way.
    pub(super) fn in_flight(&self) -> u64 {
        let families = ["pilotfish_engine_in_flight", "pilotfish_requests_in_flight"];
        // One that went below zero is as wrong as one above.
        let gauges = families.iter().flat_map(|family| self.of(family));
        gauges.map(|(_, value)| count(value.abs())).sum()
    }

    /// The sum of a family's series.
    pub(super) fn sum(&self, family: &str) -> u64 {
        self.of(family).map(|(_, value)| count(value)).sum()
    }

    /// A series without labels.
    pub(super) fn single(&self, name: &str) -> u64 {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| count(value.parse().unwrap_or(0.0)))
    }

    /// Requests that the proxy has counted, by status.
    pub(super) fn counted(&self) -> BTreeMap<String, u64> {
        let mut counted = BTreeMap::new();
        for (labels, value) in self.of("pilotfish_requests_total") {
            let status = labels.split_once("status=\"").map_or("?", |(_, rest)| rest);
            let status = status.split('"').next().unwrap_or("?");
            *counted.entry(status.to_owned()).or_default() += count(value);
        }
        counted
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of requests"
)]
fn count(value: f64) -> u64 {
    value as u64
}

/// KiB of this process that are in memory.
pub(super) fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(number.context("no VmRSS in /proc/self/status")?.parse()?)
}

/// Descriptors that this process has open.
pub(super) fn descriptors() -> anyhow::Result<u64> {
    let open = std::fs::read_dir("/proc/self/fd")?.count();
    Ok(u64::try_from(open)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_are_read() {
        let page = Page(
            "# TYPE pilotfish_requests_total counter\n\
             pilotfish_requests_total{model=\"m\",status=\"200\"} 7\n\
             pilotfish_requests_total{model=\"n\",status=\"200\"} 2\n\
             pilotfish_requests_total{model=\"m\",status=\"499\"} 1\n\
             pilotfish_requests_in_flight{model=\"m\"} 3\n\
             pilotfish_engine_in_flight{engine=\"http://a\"} 2\n\
             pilotfish_worker_tasks{worker=\"0\"} 4\n\
             pilotfish_worker_tasks{worker=\"1\"} 5\n\
             pilotfish_config_reloads_total 6\n"
                .to_owned(),
        );
        let counted = BTreeMap::from([("200".to_owned(), 9), ("499".to_owned(), 1)]);
        assert_eq!((page.counted(), page.in_flight()), (counted, 5));
        assert_eq!(page.sum("pilotfish_worker_tasks"), 9);
        assert_eq!(page.single("pilotfish_config_reloads_total"), 6);
        assert!(resident().unwrap() > 100 && descriptors().unwrap() > 2);
    }

    #[test]
    fn both_ways_to_say_that_an_engine_is_well() {
        for (engine, trusted) in [
            (json!({"is_set_aside": false}), true),
            (json!({"is_set_aside": true}), false),
            (json!({"state": "healthy"}), true),
            (json!({"state": "probation"}), false),
            (json!({"is_set_aside": true, "state": "healthy"}), false),
        ] {
            assert_eq!(is_trusted(&engine), trusted, "{engine}");
        }
    }
}
