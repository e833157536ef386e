//! `pilotfish simulate`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::progress;
use crate::config::duration;
use crate::config::dynamic::DynamicFile;
use crate::config::policies::PolicySpec;
use crate::config::problem::Problems;
use crate::config::validate::{Format, load};
use crate::registry::Registry;
use crate::sim::speed::Speed;
use crate::simulate::report::{Row, Slo, table};
use crate::simulate::synthetic::{Kind, Synthetic, generate};
use crate::simulate::trace::{self, Request};
use crate::simulate::{Scene, rate_for, run};

/// Flags of `pilotfish simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// A trace: JSON lines of timestamp (ms), input_length, output_length,
    /// hash_ids (of 512 tokens each), optional session; all engines serve all.
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    trace: Option<PathBuf>,
    /// Without a trace: one that is made.
    #[arg(long, value_name = "KIND", default_value = "sessions", value_parser = PossibleValuesParser::new(Kind::ALL.map(|(_, name)| name)))]
    synthetic: String,
    /// Policies to compare, separated by commas; names of --config's too.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        default_value = "roundrobin,random,leastconnections,leastlatency,leastload,session,consistenthash,prefixaware"
    )]
    policies: Vec<String>,
    /// A dynamic configuration file with named policies.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Engines, all alike.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    engines: u16,
    /// Sidecars; each request comes to any of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    sidecars: u16,
    /// Share of the engines' slots that is busy on average; the trace is
    /// stretched to it [default: 0.85 when made, as it is when given].
    #[arg(long, value_name = "SHARE")]
    load: Option<f64>,
    /// Requests of a made trace.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    requests: u32,
    /// Mean prompt of a made trace, in tokens (of the new part, where prompts
    /// share one).
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    mean_input: u32,
    /// Mean answer of a made trace, in tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=8192))]
    mean_output: u32,
    /// Sequences that an engine runs at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_running: u16,
    /// Prompt tokens that an engine's prefix cache holds.
    #[arg(long, value_name = "TOKENS", default_value_t = 262_144)]
    cache_tokens: u64,
    /// How often each sidecar reads each engine's metrics.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    engine_stats_interval: Duration,
    /// A request is good within this time to its first token ...
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    slo_ttft: Duration,
    /// ... and this time between tokens, on average.
    #[arg(long, value_name = "DURATION", default_value = "60ms", value_parser = duration)]
    slo_itl: Duration,
    /// Where all random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the trace to this file, and simulate nothing.
    #[arg(long, value_name = "FILE")]
    write_trace: Option<PathBuf>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl SimulateArgs {
    /// Simulates, and prints a line for each policy.
    ///
    /// # Errors
    /// A trace or a policy that cannot be had.
    pub fn run(&self) -> anyhow::Result<()> {
        let scene = self.scene();
        let requests = self.requests(&scene)?;
        if let Some(path) = &self.write_trace {
            let file = std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            let mut file = std::io::BufWriter::new(file);
            trace::write(&requests, &mut file)?;
            return Ok(file.flush()?);
        }
        let policies = self.policies()?;
        let began = Instant::now();
        let rows = compare(&requests, &policies, &scene);
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
            return Ok(());
        }
        let span = requests.last().map_or(0.0, |last| last.at);
        writeln!(
            out,
            "{} requests in {span:.0} s, {} engines, {} sidecars; simulated in {:.1} s\n",
            requests.len(),
            self.engines,
            self.sidecars,
            began.elapsed().as_secs_f64()
        )?;
        out.write_all(table(&rows).as_bytes())?;
        for row in rows.iter().filter(|row| row.refused > 0) {
            writeln!(out, "{} refused {} requests", row.policy, row.refused)?;
        }
        Ok(())
    }

    fn scene(&self) -> Scene {
        Scene {
            engines: usize::from(self.engines),
            sidecars: usize::from(self.sidecars),
            speed: Speed {
                max_running: usize::from(self.max_running),
                ..Speed::default()
            },
            cache_tokens: self.cache_tokens,
            scrape_every: self.engine_stats_interval.max(Duration::from_millis(10)),
            slo: Slo {
                ttft: self.slo_ttft.as_secs_f64(),
                itl: self.slo_itl.as_secs_f64(),
            },
            seed: self.seed,
        }
    }

    /// The trace, at the load that was asked for.
    fn requests(&self, scene: &Scene) -> anyhow::Result<Vec<Request>> {
        if self.load.is_some_and(|load| !(load > 0.0 && load < 10.0)) {
            anyhow::bail!("--load is a share of the engines' slots: 0.85, say");
        }
        if let Some(path) = &self.trace {
            let mut requests = trace::read(path)?;
            if let (Some(load), Some(last)) = (self.load, requests.last()) {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
                let rate = requests.len() as f64 / last.at.max(1e-3);
                let factor = rate_for(load, &requests, scene) / rate;
                trace::scale(&mut requests, factor);
            }
            return Ok(requests);
        }
        let kind = Kind::named(&self.synthetic).unwrap_or(Kind::Sessions);
        let mut of = Synthetic {
            kind,
            requests: usize::try_from(self.requests).unwrap_or(usize::MAX),
            rate: 1.0,
            seed: self.seed,
            mean_input: f64::from(self.mean_input),
            mean_output: f64::from(self.mean_output),
        };
        // How long requests are does not depend on how often they come.
        let sample = Synthetic {
            requests: of.requests.min(20_000),
            ..of
        };
        of.rate = rate_for(self.load.unwrap_or(0.85), &generate(&sample), scene);
        Ok(generate(&of))
    }

    fn policies(&self) -> anyhow::Result<Vec<PolicySpec>> {
        let mut keys = match &self.config {
            Some(file) => load(file, Format::of(file))?.keys,
            None => DynamicFile::default(),
        };
        keys.service_discovery = Some("static".to_owned());
        if keys.engines.is_none() && keys.static_backends.is_none() {
            keys.static_backends = Some("http://engine".to_owned());
        }
        keys.session_key.get_or_insert_with(|| "session".to_owned());
        let mut policies = Vec::new();
        for name in &self.policies {
            keys.routing_logic = Some(name.clone());
            let resolved = Registry::default()
                .resolve(&keys)
                .map_err(|list| Problems {
                    of: format!("policy {name}"),
                    list,
                })?;
            policies.push(resolved.settings.routing.policy);
        }
        Ok(policies)
    }
}

/// One row for each policy, on as many threads as there are cores.
fn compare(requests: &[Request], policies: &[PolicySpec], scene: &Scene) -> Vec<Row> {
    let (done, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rows: Mutex<Vec<Option<Row>>> = Mutex::new(policies.iter().map(|_| None).collect());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(policies.len()))
            .map(|_| {
                scope.spawn(|| {
                    while let Some((at, policy)) = take(&next, policies) {
                        let row = run(requests, policy, scene, &done);
                        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                        rows[at] = Some(row);
                    }
                })
            })
            .collect();
        let all = requests.len() * policies.len();
        let is_over = || workers.iter().all(|one| one.is_finished());
        progress::show(all, "requests", || done.load(Relaxed), is_over);
    });
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.into_iter().flatten().collect()
}

fn take<'a>(next: &AtomicUsize, policies: &'a [PolicySpec]) -> Option<(usize, &'a PolicySpec)> {
    let at = next.fetch_add(1, Relaxed);
    policies.get(at).map(|policy| (at, policy))
}
