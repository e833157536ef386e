//! The thread beside the workers that predicts over a long history, keeps the
//! policies' multipliers, counts what came of choices, and decides in the shadow.
//!
//! Predictions come first: between two events it looks whether someone waits for
//! one. It begins when a policy first needs it, and ends when every worker and the
//! control thread are gone, after the last event.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::in_force::InForce;
use super::learner::{Learner, LearnerSpec, Teaching};
use super::predict::Scratch;
use super::running::Window;
use super::shadow;
use super::weigh::{self, Predicted, cost};
use super::worker::{Chosen, Ended, Event};
use crate::config::attribute::Live;
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::attributes::Freshness;
use crate::fleet::{Model, Snapshot};
use crate::metrics::Counter;

/// Predictions that may wait; with more, the models' means decide.
const MOST_ASKS: usize = 256;
/// Batches of events that may wait.
const MOST_BATCHES: usize = 64;
/// How often the load of models is looked at.
const TICK: Duration = Duration::from_millis(100);
/// The load of a policy's models is not looked at when it has chosen nothing for so
/// long.
const QUIET: Duration = Duration::from_secs(30);
/// Policies whose windows are kept; one more, and the oldest is forgotten.
const MOST_POLICIES: usize = 64;
/// How much the thread steps back, as the control thread does.
const NICE: i32 = 5;

/// A query for which someone waits.
#[derive(Debug)]
pub struct Ask {
    pub(super) query: String,
    pub(super) reply: oneshot::Sender<Predicted>,
}

/// A handle on it, for workers and the control thread.
#[derive(Debug, Clone, Default)]
pub struct Service(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Where the history is kept.
    folder: Option<PathBuf>,
    /// The greatest age of what engines tell that counts.
    stale_after: Duration,
    drain: DrainWatch,
    started: OnceLock<Started>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What there is once it has begun.
#[derive(Debug)]
pub struct Started {
    /// What is learned, and how to teach more.
    pub teaching: Teaching,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) events: mpsc::Sender<Vec<Event>>,
    /// Events that found no room.
    pub dropped: Counter,
    /// Predictions that were not waited for, or had no room.
    pub late: Counter,
}

impl Service {
    /// One that keeps its history in that folder, or only in memory.
    #[must_use]
    pub fn new(folder: Option<PathBuf>, stale_after: Duration, drain: DrainWatch) -> Self {
        Self(Arc::new(Inner {
            folder,
            stale_after,
            drain,
            ..Inner::default()
        }))
    }

    /// What there is, if it has begun.
    #[must_use]
    pub fn started(&self) -> Option<&Started> {
        self.0.started.get()
    }

    /// Begins, if it has not.
    ///
    /// # Errors
    /// When the folder cannot be used, or no thread can be made.
    pub fn start(&self, published: &Arc<ArcSwap<Snapshot>>) -> std::io::Result<()> {
        if self.started().is_some() {
            return Ok(());
        }
        let (teaching, learner) = Learner::start(LearnerSpec {
            folder: self.0.folder.clone(),
        })?;
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let (events, happened) = mpsc::channel(MOST_BATCHES);
        let thread = Thread {
            teaching: teaching.clone(),
            published: Arc::clone(published),
            stale_after: self.0.stale_after,
            drain: self.0.drain.clone(),
            scratch: Scratch::new(),
            windows: HashMap::new(),
        };
        let named = std::thread::Builder::new().name("smart".to_owned());
        let thread = named.spawn(move || {
            if let Err(error) = thread.run(asked, happened) {
                tracing::error!(%error, "smart routing has no thread: the models' means decide");
            }
        })?;
        self.threads().extend([thread, learner]);
        // Whoever starts it twice at once is the control thread alone.
        let _ = self.0.started.set(Started {
            teaching,
            asks,
            events,
            dropped: Counter::default(),
            late: Counter::default(),
        });
        Ok(())
    }

    /// Waits for its threads: this must be the last handle.
    pub fn join(self) {
        let mut threads = self.threads();
        let all = std::mem::take(&mut *threads);
        drop(threads);
        drop(self);
        for thread in all {
            if thread.join().is_err() {
                tracing::error!("a thread of smart routing panicked");
            }
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.0
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's state.
struct Thread {
    teaching: Teaching,
    published: Arc<ArcSwap<Snapshot>>,
    stale_after: Duration,
    /// Whether we are stopping: then the shadow is not asked any more.
    drain: DrainWatch,
    scratch: Scratch,
    /// By the address of what is in force, which they keep alive.
    windows: HashMap<usize, Watched>,
}

/// A policy that chooses.
struct Watched {
    policy: Arc<InForce>,
    window: Window,
    last: Instant,
}

impl Thread {
    fn run(
        mut self,
        mut asked: mpsc::Receiver<Ask>,
        mut happened: mpsc::Receiver<Vec<Event>>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the thread of smart routing keeps its priority");
        }
        runtime.block_on(async {
            let mut tick = tokio::time::interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let mut watched = self.windows.values();
                let is_busy = watched.any(|watched| watched.last.elapsed() < QUIET);
                tokio::select! {
                    biased;
                    Some(ask) = asked.recv() => self.answer(ask),
                    batch = happened.recv() => match batch {
                        Some(batch) => self.take(batch, &mut asked),
                        // Every sender is gone, and nothing is left.
                        None => return,
                    },
                    _ = tick.tick(), if is_busy => self.look_at_loads(),
                }
            }
        });
        Ok(())
    }

    fn answer(&mut self, ask: Ask) {
        // Whoever asked may have gone.
        if !ask.reply.is_closed() {
            let predicted = self.predict(Some(&ask.query));
            let _ = ask.reply.send(predicted);
        }
    }

    fn predict(&mut self, query: Option<&str>) -> Predicted {
        Predicted::by(self.teaching.predictor(), query, &mut self.scratch)
    }

    fn take(&mut self, batch: Vec<Event>, asked: &mut mpsc::Receiver<Ask>) {
        let mut ended = Vec::with_capacity(batch.len());
        for event in batch {
            while let Ok(ask) = asked.try_recv() {
                self.answer(ask);
            }
            match event {
                Event::Chose(chosen) => self.chose(&chosen),
                Event::Ended(one) => {
                    self.ended(&one);
                    ended.push(one.learned);
                }
            }
        }
        self.teaching.tell(ended);
    }

    fn chose(&mut self, chosen: &Chosen) {
        let (choice, at) = (&chosen.choice, chosen.choice.chosen.at);
        let Some(one) = choice.weighed.get(at) else {
            return;
        };
        let quality = one.candidate.quality;
        chosen.policy.chose(&one.model, choice.chosen.why, quality);
        let key = Arc::as_ptr(&chosen.policy).addr();
        if !self.windows.contains_key(&key) {
            self.begin(chosen, key);
        }
        let Some(watched) = self.windows.get_mut(&key) else {
            return;
        };
        watched.last = Instant::now();
        let weighed = choice.weighed.iter();
        let (models, candidates): (Vec<_>, Vec<_>) = weighed
            .map(|one| (Arc::clone(&one.model), one.candidate))
            .unzip();
        let running = &watched.policy.running;
        (watched.window).observe(running, &models, &candidates, at);
    }

    /// A policy chooses for the first time: until it has chosen often enough, what it
    /// knows of requests is history.
    fn begin(&mut self, chosen: &Chosen, key: usize) {
        if self.windows.len() >= MOST_POLICIES {
            let oldest = self.windows.iter().min_by_key(|(_, watched)| watched.last);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.windows.remove(&oldest);
            }
        }
        let weighed = &chosen.choice.weighed;
        let models: Vec<_> = weighed.iter().map(|one| Arc::clone(&one.model)).collect();
        let mut window = Window::new();
        let rows = weigh::remembered(&self.teaching.predictor(), &models, |at, input, output| {
            Some(weigh::of_tokens(weighed[at].price?, input, output))
        });
        window.seed(&chosen.policy.running, &rows);
        let watched = Watched {
            policy: Arc::clone(&chosen.policy),
            window,
            last: Instant::now(),
        };
        self.windows.insert(key, watched);
    }

    fn ended(&mut self, ended: &Ended) {
        let learned = &ended.learned;
        let output = learned.output_tokens.map(f64::from);
        let output = output.or_else(|| Some(f64::from(learned.predicted?.tokens)));
        if let (Some(policy), Some(price), Some(output)) = (&ended.policy, ended.price, output) {
            policy.cost(cost(price, u64::from(learned.input_tokens), output));
        }
        let snapshot = self.published.load_full();
        let Some(policy) = &snapshot.policies.shadow else {
            return;
        };
        // What it decided itself is no news of it.
        let its_own = ended.policy.as_ref().zip(policy.smart.as_ref());
        let is_its_own = its_own.is_some_and(|(of, shadow)| Arc::ptr_eq(of, shadow));
        let is_ending = self.drain.phase() != DrainPhase::Run;
        if is_its_own || is_ending || !shadow::concerns(policy, &snapshot, &learned.model) {
            return;
        }
        let predicted = self.predict(learned.query.as_deref());
        let lengths = self.teaching.lengths();
        let decided = shadow::decide(
            (policy, &snapshot),
            (learned, ended.most_tokens),
            (&predicted, &lengths),
        );
        if let Some(chosen) = decided {
            self.chose(&chosen);
        }
    }

    /// Tells the policies that choose how much their models have to do, of how much
    /// they can.
    fn look_at_loads(&mut self) {
        // What nobody else has any more is no policy in force.
        self.windows.retain(|_, watched| {
            Arc::strong_count(&watched.policy) > 1 || watched.last.elapsed() < QUIET
        });
        let snapshot = self.published.load_full();
        let by = Freshness::new(snapshot.clock(Instant::now()), self.stale_after);
        for watched in self.windows.values_mut() {
            let running = &watched.policy.running;
            for name in watched.window.models() {
                if let Some(model) = snapshot.model(&name) {
                    let (in_flight, limit) = load(model, &snapshot, by);
                    watched.window.load(running, &name, in_flight, limit);
                }
            }
        }
    }
}

/// Requests that a model has, those that wait for a place too, and how many it can: as many as the
/// limits allow; and while some wait in an engine, no more than it works on.
fn load(model: &Model, snapshot: &Snapshot, by: Freshness) -> (f64, f64) {
    let admission = &snapshot.settings.admission;
    let (mut in_flight, mut can) = (0.0, 0.0);
    for one in model.candidates.list() {
        let has = f64::from(one.engine.in_flight.load(Relaxed));
        in_flight += has;
        if !one.engine.health.is_up(by.now) || one.spec.closed.is_some() {
            continue;
        }
        let waiting = one.engine.attributes.fresh(Live::RequestsWaiting, by);
        let limit = admission.max_per_engine.map_or(f64::INFINITY, f64::from);
        can += match waiting {
            Some(waiting) if waiting > 0.0 => limit.min((has - waiting).max(1.0)),
            _ => limit,
        };
    }
    // Whoever waits is not with an engine yet.
    let gate = model.gate.taken().saturating_add(model.gate.waiting());
    let of_model = admission.max_per_model.map_or(f64::INFINITY, f64::from);
    (in_flight.max(f64::from(gate)), can.min(of_model))
}
