//! Decisions that someone asked about, or that were sampled: all that they
//! were made from, so that each can be made again, bit for bit.
//!
//! Written by the workers, for explained requests only; read by the control
//! thread. A mutex guards the list, which no other request ever touches.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fastrand::Rng;

use crate::fleet::near::Nearness;
use crate::fleet::reading::Reading;
use crate::fleet::{EngineSpec, Model};
use crate::policy::explain::{Verdict, drawn, explain};
use crate::policy::reason::Choice;
use crate::policy::{Asked, Moment, Policy, Question, Refusal, Tried, choose};
use crate::smart::weigh::ModelChoice;

/// Decisions kept.
const MOST: usize = 1000;
/// Bytes kept with them.
const MOST_BYTES: usize = 32 << 20;
/// Decisions recorded in a second.
const MOST_A_SECOND: u64 = 200;

/// One decision, with all that it was made from.
#[derive(Debug)]
pub struct Record {
    /// Counts the records, from 1.
    pub id: u64,
    /// When it was made.
    pub at: SystemTime,
    /// The request's id.
    pub request_id: String,
    /// The snapshot that it saw.
    pub generation: u64,
    /// The inputs.
    pub inputs: Inputs,
    /// Who was chosen, by position; or why nobody was.
    pub chosen: Result<usize, Refusal>,
    /// How its model was chosen before, if by cost and quality.
    pub model_choice: Option<Arc<ModelChoice>>,
}

/// By [`Nearness`], why nobody was chosen among those that are nearer to us, where
/// they were asked.
pub type Nearer = [Option<Refusal>; Nearness::ALL.len()];

/// All that a decision is made from.
#[derive(Debug)]
pub struct Inputs {
    /// Who is asked.
    pub policy: Arc<Policy>,
    /// The candidates, with what is said of them.
    pub model: Arc<Model>,
    /// Those that were asked before.
    pub nearer: Nearer,
    /// What they were like.
    pub readings: Vec<Reading>,
    /// Whose turn it was.
    pub turn: usize,
    /// The request.
    pub asked: Asked,
    /// Who was tried before.
    pub tried: Tried,
    /// When.
    pub moment: Moment,
    /// Where the random generator stood.
    pub seed: u64,
}

impl Inputs {
    /// Takes down everything, as it is now.
    #[must_use]
    pub fn take(
        policy: &Arc<Policy>,
        model: &Arc<Model>,
        question: &Question<'_>,
        seed: u64,
    ) -> Self {
        Self {
            policy: Arc::clone(policy),
            model: Arc::clone(model),
            nearer: Nearer::default(),
            readings: question.set.readings(),
            turn: question.set.cursor.load(Relaxed),
            asked: question.asked.clone(),
            tried: question.tried.clone(),
            moment: question.moment,
            seed,
        }
    }

    /// Makes the decision, from these inputs alone; also tells how many turns
    /// it takes of those that the candidates share.
    pub fn decide(&self) -> (Result<usize, Refusal>, usize) {
        let (choice, turns) = self.choose();
        (choice.map(|choice| choice.at), turns)
    }

    /// The same, and by which branch.
    pub fn choose(&self) -> (Result<Choice, Refusal>, usize) {
        self.with_question(|question| {
            let mut rng = Rng::with_seed(self.seed);
            let chosen = choose(&self.policy.spec.kind, question, &mut rng);
            let now = question.set.cursor.load(Relaxed);
            (chosen, now.wrapping_sub(self.turn))
        })
    }

    /// Every candidate as the policy saw it, ranked.
    #[must_use]
    pub fn explain(&self) -> Vec<Verdict> {
        self.with_question(|question| explain(&self.policy.spec.kind, question))
    }

    /// The positions that were drawn at random.
    #[must_use]
    pub fn drawn(&self) -> Vec<usize> {
        self.with_question(|question| drawn(&self.policy.spec.kind, question, self.seed))
    }

    fn with_question<T>(&self, answer: impl FnOnce(&Question<'_>) -> T) -> T {
        let set = self.model.candidates.frozen(&self.readings, self.turn);
        answer(&Question {
            set: &set,
            asked: &self.asked,
            tried: &self.tried,
            moment: self.moment,
            bound: None,
        })
    }

    /// What it alone keeps in memory.
    fn bytes(&self) -> usize {
        let key = self.asked.key.as_ref().map_or(0, String::len);
        let readings: usize = self.readings.iter().map(Reading::bytes).sum();
        let told = self.asked.advice.bytes() + self.policy.bytes;
        size_of_val(self.readings.as_slice()) + readings + size_of::<Record>() + key + told
    }

    /// About what its model's engines keep in memory, when nobody else does.
    fn shared_bytes(&self) -> usize {
        const ENGINE: usize = size_of::<crate::fleet::Engine>() + size_of::<EngineSpec>() + 512;
        let candidates = &self.model.candidates;
        let near = self.model.near.iter().map(|near| {
            let set = &near.candidates;
            size_of_val(set.list()) + set.layout.bytes()
        });
        candidates.list().len() * ENGINE + candidates.layout.bytes() + near.sum::<usize>()
    }
}

/// The last decisions.
#[derive(Debug, Default)]
pub struct DecisionLog {
    last: AtomicU64,
    /// The second of the fleet's clock above, records of it below.
    rate: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

impl Kept {
    /// What a record adds to those that are there, or leaves when it goes.
    fn weight(&self, record: &Record) -> usize {
        let model = &record.inputs.model;
        let mut others = self.records.iter().rev();
        let is_shared = others.any(|other| Arc::ptr_eq(&other.inputs.model, model));
        let shared = if is_shared {
            0
        } else {
            record.inputs.shared_bytes()
        };
        record.inputs.bytes() + shared
    }
}

impl DecisionLog {
    /// Whether one more decision may be recorded in this second: to take down
    /// everything costs more than to decide, and any client may ask for it.
    #[must_use]
    pub fn has_room(&self, now: Duration) -> bool {
        let second = now.as_secs() << 32;
        let before = self.rate.load(Relaxed);
        let count = if before >> 32 << 32 == second {
            before & 0xffff_ffff
        } else {
            0
        };
        // Workers that come at the same moment may be counted once.
        self.rate
            .store(second | (count + 1).min(MOST_A_SECOND + 1), Relaxed);
        count < MOST_A_SECOND
    }

    /// A number for the next record.
    pub fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Relaxed) + 1
    }

    /// Keeps a decision; the oldest give way.
    pub fn keep(&self, record: Record) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += kept.weight(&record);
        kept.records.push_back(Arc::new(record));
        while kept.records.len() > MOST || (kept.bytes > MOST_BYTES && kept.records.len() > 1) {
            if let Some(oldest) = kept.records.pop_front() {
                let weight = kept.weight(&oldest);
                kept.bytes = kept.bytes.saturating_sub(weight);
            }
        }
    }

    /// The decision of that number.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Record>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.records.iter().find(|one| one.id == id).map(Arc::clone)
    }

    /// The last so many, the newest first.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<Arc<Record>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = kept.records.iter().rev().take(count);
        newest.map(Arc::clone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::fleet::testing::{fleet, spec};
    use crate::policy::Rules;

    fn record(log: &DecisionLog, policy: &Arc<Policy>, model: &Arc<Model>) -> Record {
        let asked = Asked::default();
        let question = Question {
            set: &model.candidates,
            asked: &asked,
            tried: &Tried::default(),
            moment: Moment {
                now: Duration::ZERO,
                stale_after: Duration::ZERO,
                rules: Rules::of(&Settings::default()),
            },
            bound: None,
        };
        let inputs = Inputs::take(policy, model, &question, 1);
        Record {
            id: log.next_id(),
            at: SystemTime::now(),
            request_id: String::new(),
            generation: 1,
            chosen: inputs.decide().0,
            model_choice: None,
            inputs,
        }
    }

    #[test]
    fn the_oldest_give_way_by_number_and_by_weight() {
        let (log, mut fleet) = (DecisionLog::default(), fleet());
        fleet.reconcile(vec![spec("http://a:1", &["m"])]);
        let snapshot = fleet.published().load_full();
        let policy = &snapshot.policies.default;
        for _ in 0..MOST + 10 {
            log.keep(record(&log, policy, snapshot.model("m").unwrap()));
        }
        assert_eq!(log.newest(usize::MAX).len(), MOST);
        assert!(log.get(10).is_none() && log.get(11).is_some());

        let urls: Vec<String> = (0..2000).map(|n| format!("http://e{n}:1")).collect();
        for _ in 0..40 {
            fleet.reconcile(urls.iter().map(|url| spec(url, &["m"])).collect());
            let snapshot = fleet.published().load_full();
            log.keep(record(&log, policy, snapshot.model("m").unwrap()));
        }
        let kept = log.kept.lock().unwrap();
        assert!(kept.bytes <= MOST_BYTES && kept.records.len() < 30);
        let weights = kept
            .records
            .iter()
            .map(|one| one.inputs.bytes() + one.inputs.shared_bytes());
        assert_eq!(
            kept.bytes,
            weights.sum::<usize>(),
            "each has a set of its own"
        );
    }

    #[test]
    fn so_many_a_second() {
        let log = DecisionLog::default();
        let at = Duration::from_secs;
        let granted = (0..1000).filter(|_| log.has_room(at(5))).count();
        assert_eq!(granted as u64, MOST_A_SECOND);
        assert!(log.has_room(at(6)));
    }
}
