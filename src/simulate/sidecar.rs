//! One sidecar in simulated time: a real fleet and real decisions, on a clock
//! that someone else moves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::Scene;
use super::engine::Engine;
use super::trace::{BLOCK_TOKENS, Request};
use crate::config::Settings;
use crate::discovery::listed;
use crate::discovery::models::Cards;
use crate::fleet::attributes::{Live, Place};
use crate::fleet::engine::Outcome;
use crate::fleet::load::{Expected, InFlight};
use crate::fleet::ring::mix;
use crate::fleet::{Fleet, Model, Snapshot};
use crate::metrics::ModelRegistry;
use crate::policy::memory::{Fingerprint, Turn};
use crate::policy::{Asked, Moment, Question, Rules, Tried, decide};
use crate::scrape::stale_after;

/// The one model that all engines serve.
const MODEL: &str = "m";
/// Bytes that make a token, about.
const TOKEN_BYTES: u32 = 4;
/// Blocks at the end of a prompt that have a fingerprint each: a conversation's
/// last messages.
const LAST: usize = 8;

/// A sidecar.
pub(super) struct Sidecar {
    snapshot: Arc<Snapshot>,
    model: Arc<Model>,
    stale_after: Duration,
    rng: Rng,
    open: HashMap<u32, InFlight>,
}

impl Sidecar {
    pub(super) fn new(settings: &Settings, scene: &Scene, seed: u64) -> Self {
        let mut settings = settings.clone();
        let url = |n: usize| format!("http://engine-{n:04}:8000");
        let engines = (0..scene.engines).filter_map(|n| {
            let engine = crate::config::ListedEngine::new(&url(n), &[MODEL]);
            engine.ok()
        });
        settings.engines = engines.collect();
        let specs = listed::specs(&settings.engines, &Cards::default());
        let mut fleet = Fleet::new(ModelRegistry::default());
        fleet.apply(Arc::new(settings), specs);
        let snapshot = fleet.published().load_full();
        Self {
            // All engines of the trace's world serve it.
            model: snapshot
                .model(MODEL)
                .map_or_else(|| Arc::clone(&snapshot.all), Arc::clone),
            snapshot,
            stale_after: stale_after(scene.scrape_every),
            rng: Rng::with_seed(seed),
            open: HashMap::new(),
        }
    }

    /// Chooses an engine for a request that comes now; tells which, unless the
    /// policy refuses it.
    pub(super) fn send(&mut self, id: u32, request: &Request) -> Option<usize> {
        let policy = &self.snapshot.policies.default;
        let now = Duration::from_secs_f64(request.at);
        let prints = match &policy.memory {
            Some(_) => fingerprints(&request.blocks),
            None => Vec::new(),
        };
        let memory = policy.memory.as_ref();
        let mut prefix = memory.map_or_else(Default::default, |known| known.recall(&prints, now));
        // As the first message of the user is a conversation's own.
        prefix.root = request.session.map(|session| mix(session, 1));
        prefix = prefix.worth(prefix.root.map_or(Turn::None, |_| Turn::Later(u32::MAX)));
        let asked = Asked {
            key: request.session.map(|session| session.to_string()),
            prefix,
            prompt_tokens: u64::from(request.input_tokens),
            ..Asked::default()
        };
        let set = &self.model.candidates;
        let question = Question {
            set,
            asked: &asked,
            tried: &Tried::default(),
            moment: Moment {
                now,
                stale_after: self.stale_after,
                rules: Rules::of(&self.snapshot.settings),
            },
            bound: None,
        };
        let at = decide(&policy.spec.kind, &question, &mut self.rng).ok()?;
        let chosen = &set.list()[at];
        if let Some(memory) = memory {
            memory.learn(&prints, chosen.engine.key, now);
        }
        let expected = Expected::of(chosen, asked.prompt_tokens, None);
        let slot = InFlight::take(chosen, expected, self.moment(request.at));
        self.open.insert(id, slot);
        Some(at)
    }

    /// So many tokens of an answer pass.
    pub(super) fn delivered(&mut self, id: u32, tokens: u32, now: f64) {
        let moment = self.moment(now);
        if let Some(slot) = self.open.get_mut(&id) {
            slot.delivered(tokens, moment);
        }
    }

    /// An answer has ended.
    pub(super) fn done(&mut self, id: u32, engine: usize, output_tokens: u32) {
        let served = &self.model.candidates.list()[engine].served;
        served
            .output_tokens
            .fetch_add(u64::from(output_tokens), Relaxed);
        if let Some(slot) = self.open.remove(&id) {
            slot.settle(Outcome::Success);
        }
    }

    /// Reads what the engines tell of themselves.
    pub(super) fn scrape(&mut self, engines: &[Engine], now: f64) {
        for (one, engine) in self.model.candidates.list().iter().zip(engines) {
            let mut values = [None; Place::COUNT];
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
            for (attribute, count) in [
                (Live::RequestsRunning, engine.running()),
                (Live::RequestsWaiting, engine.waiting()),
            ] {
                values[attribute as usize] = Some(count as f64);
            }
            one.engine.told(&values, Duration::from_secs_f64(now));
        }
    }

    fn moment(&self, now: f64) -> Instant {
        self.snapshot.epoch + Duration::from_secs_f64(now)
    }
}

/// As `proxy/fingerprint.rs` takes them of a body: some short, some long, and
/// the last few.
fn fingerprints(blocks: &[u64]) -> Vec<Fingerprint> {
    let mut prints = Vec::with_capacity(32);
    let mut state = 0;
    for (count, block) in (1u32..).zip(blocks) {
        state = mix(state, *block);
        let is_marked = count <= 8
            || count.is_power_of_two()
            || (count.is_multiple_of(3) && (count / 3).is_power_of_two())
            || count as usize + LAST > blocks.len();
        if is_marked {
            prints.push(Fingerprint {
                hash: state,
                bytes: count.saturating_mul(BLOCK_TOKENS * TOKEN_BYTES),
            });
        }
    }
    prints
}
