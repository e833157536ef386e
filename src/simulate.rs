//! Many sidecars before many engines, in simulated time: what each policy does
//! to a trace of requests, in seconds instead of hours, and without a socket.
//!
//! The sidecars are the real ones: each has its own fleet, decides by the same
//! `policy::decide`, and counts by the same guards. Only the engines and the
//! clock are simulated ([`engine`], by the rules of `sim::speed`), and what
//! one sidecar sees of the others is what engines tell when they are asked.

pub mod engine;
pub mod report;
mod sidecar;
pub mod synthetic;
pub mod trace;

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;

use crate::config::Settings;
use crate::config::policies::PolicySpec;
use crate::sim::speed::Speed;
use engine::{Engine, Event};
use report::{Finished, Row, Slo, Tally};
use sidecar::Sidecar;
use trace::Request;

/// What is simulated, beside the trace.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Engines, all alike.
    pub engines: usize,
    /// Sidecars; each request comes to any of them.
    pub sidecars: usize,
    /// How fast an engine is.
    pub speed: Speed,
    /// Prompt tokens that an engine's prefix cache holds.
    pub cache_tokens: u64,
    /// How often each sidecar reads each engine's metrics.
    pub scrape_every: Duration,
    /// What counts as good.
    pub slo: Slo,
    /// Where all random numbers begin.
    pub seed: u64,
}

/// Requests a second that keep the engines busy to `load`, a share of their
/// slots, if every one always had the same number of requests.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "slots and requests are far below 2^52"
)]
pub fn rate_for(load: f64, requests: &[Request], scene: &Scene) -> f64 {
    let slots = load * scene.speed.max_running as f64;
    let token = scene.speed.decode(slots.round() as u64).as_secs_f64();
    let holds = |request: &Request| {
        let prefill = scene.speed.prefill(request.input_tokens as usize);
        prefill.as_secs_f64() + token * f64::from(request.output_tokens.saturating_sub(1))
    };
    let mean = requests.iter().map(holds).sum::<f64>() / requests.len().max(1) as f64;
    scene.engines as f64 * slots / mean
}

/// Runs the whole trace under one policy; `done` counts its requests.
#[must_use]
pub fn run(requests: &[Request], policy: &PolicySpec, scene: &Scene, done: &AtomicUsize) -> Row {
    let mut world = World::new(requests, policy, scene);
    for (id, request) in (0u32..).zip(requests) {
        world.until(request.at);
        world.arrive(id, request);
        done.fetch_add(1, Relaxed);
    }
    world.until(f64::INFINITY);
    let moved = world.sessions.moved();
    let name = policy.name.to_string();
    world.tally.row(name, &world.engines, moved)
}

/// Everything at one moment.
struct World<'a> {
    scene: &'a Scene,
    requests: &'a [Request],
    engines: Vec<Engine>,
    sidecars: Vec<Sidecar>,
    /// What happens next; engines' entries are void when their version is old.
    due: BinaryHeap<Due>,
    versions: Vec<u32>,
    /// Where each request is.
    open: HashMap<u32, Open>,
    sessions: Sessions,
    tally: Tally,
    rng: Rng,
    events: Vec<Event>,
}

/// A request under way.
struct Open {
    sidecar: usize,
    engine: usize,
    first: f64,
}

/// Something that is to happen.
#[derive(Debug, PartialEq)]
struct Due {
    at: f64,
    what: What,
}

#[derive(Debug, PartialEq)]
enum What {
    /// An engine gets on, if it is still of that version.
    Engine(usize, u32),
    /// A sidecar reads the engines' metrics.
    Scrape(usize),
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The soonest is the greatest: what a heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at)
    }
}

impl<'a> World<'a> {
    fn new(requests: &'a [Request], policy: &PolicySpec, scene: &'a Scene) -> Self {
        let mut rng = Rng::with_seed(scene.seed);
        let make = || Engine::new(scene.speed.clone(), scene.cache_tokens);
        let mut settings = Settings::default();
        settings.routing.policy = policy.clone();
        let sidecars: Vec<Sidecar> = (0..scene.sidecars)
            .map(|_| Sidecar::new(&settings, scene, rng.u64(..)))
            .collect();
        let every = scene.scrape_every.as_secs_f64();
        let first = (0..scene.sidecars).map(|sidecar| Due {
            at: every * rng.f64(),
            what: What::Scrape(sidecar),
        });
        Self {
            scene,
            requests,
            engines: (0..scene.engines).map(|_| make()).collect(),
            due: first.collect(),
            sidecars,
            versions: vec![0; scene.engines],
            open: HashMap::new(),
            sessions: Sessions::default(),
            tally: Tally::new(scene.slo),
            rng,
            events: Vec::new(),
        }
    }

    /// Everything that happens up to that moment.
    fn until(&mut self, moment: f64) {
        while self.due.peek().is_some_and(|due| due.at <= moment) {
            let Some(Due { at, what }) = self.due.pop() else {
                return;
            };
            match what {
                What::Engine(engine, version) if version == self.versions[engine] => {
                    self.advance(engine, at);
                }
                What::Engine(..) => {}
                What::Scrape(_) if self.open.is_empty() && moment == f64::INFINITY => {}
                What::Scrape(sidecar) => {
                    self.sidecars[sidecar].scrape(&self.engines, at);
                    let at = at + self.scene.scrape_every.as_secs_f64();
                    self.due.push(Due { at, what });
                }
            }
        }
    }

    fn arrive(&mut self, id: u32, request: &Request) {
        let sidecar = self.rng.usize(..self.sidecars.len());
        let Some(engine) = self.sidecars[sidecar].send(id, request) else {
            return self.tally.refuse();
        };
        if let Some(session) = request.session {
            self.sessions.turn(session, engine);
        }
        let open = Open {
            sidecar,
            engine,
            first: 0.0,
        };
        self.open.insert(id, open);
        self.advance(engine, request.at);
        self.engines[engine].arrive(id, request, request.at);
        self.schedule(engine);
    }

    /// One engine, up to that moment.
    fn advance(&mut self, engine: usize, now: f64) {
        let mut events = std::mem::take(&mut self.events);
        self.engines[engine].advance(now, &mut events);
        for event in events.drain(..) {
            self.take(&event, now);
        }
        self.events = events;
        self.schedule(engine);
    }

    fn schedule(&mut self, engine: usize) {
        self.versions[engine] = self.versions[engine].wrapping_add(1);
        if let Some(at) = self.engines[engine].next_event() {
            let what = What::Engine(engine, self.versions[engine]);
            self.due.push(Due { at, what });
        }
    }

    fn take(&mut self, event: &Event, now: f64) {
        let (Event::FirstToken(id) | Event::Progress(id, _) | Event::Done(id)) = *event;
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let sidecar = &mut self.sidecars[open.sidecar];
        match event {
            Event::FirstToken(_) => {
                open.first = now;
                sidecar.delivered(id, 1, now);
            }
            Event::Progress(_, tokens) => sidecar.delivered(id, *tokens, now),
            Event::Done(_) => {
                let request = &self.requests[id as usize];
                sidecar.done(id, open.engine, request.output_tokens);
                self.tally.add(&Finished {
                    ttft: open.first - request.at,
                    e2e: now - request.at,
                    output_tokens: request.output_tokens,
                });
                self.open.remove(&id);
            }
        }
    }
}

/// Where each session was last.
#[derive(Default)]
struct Sessions {
    last: HashMap<u64, usize>,
    turns: u64,
    moves: u64,
}

impl Sessions {
    fn turn(&mut self, session: u64, engine: usize) {
        if let Some(before) = self.last.insert(session, engine) {
            self.turns += 1;
            self.moves += u64::from(before != engine);
        }
    }

    /// The share of later turns that went to another engine than the one before.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 turns")]
    fn moved(&self) -> Option<f64> {
        (self.turns > 0).then(|| self.moves as f64 / self.turns as f64)
    }
}

#[cfg(test)]
mod tests;
