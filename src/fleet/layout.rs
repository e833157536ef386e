//! What of a candidate set is the same for every request: weights, their sums,
//! whose turn it is, hashes, rings, columns of metadata. Made once, when the
//! set is published, and shared by all models that the same engines serve.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Candidate;
use super::engine::Closed;
use super::ring::Ring;
use crate::config::attribute::number;
use crate::config::dynamic::Cost;

/// Turns of a weighted round at most: for each engine, and in a small set.
const MOST_TURNS: [f64; 2] = [8.0, 16_384.0];
/// Beyond so many engines, rendezvous hashing is replaced by a ring: looking at
/// each would take too long.
pub const MOST_RENDEZVOUS: usize = 1000;

/// The layout of one candidate set, by positions in its list.
#[derive(Debug, Default)]
pub struct Layout {
    /// Configured shares; never negative, never all zero.
    pub weights: Vec<f64>,
    /// Whether all are the same.
    pub is_even: bool,
    /// Running sums of the weights.
    pub cumulative: Vec<f64>,
    /// A round of turns, when weights differ.
    pub turns: Vec<u32>,
    /// The engines' hashes: of the URLs, the same in every process.
    pub hashes: Vec<u64>,
    /// The engines' keys with their positions, sorted.
    pub by_key: Vec<(u64, u32)>,
    /// What kind of work each does, where its `model_type` label tells.
    pub capabilities: Vec<Option<Capability>>,
    /// Whether its labels say that it has no GPU (`gpu: none`, `device: cpu`).
    pub lacks_gpu: Vec<bool>,
    /// Why each is to get nothing new.
    pub closed: Vec<Option<Closed>>,
    /// For each configured column of metadata a number for each engine; NaN:
    /// it has none.
    pub columns: Vec<Vec<f64>>,
    /// The reference's ring, where a policy needs it.
    pub ring: Option<Arc<Ring<u128>>>,
    /// A ring of our own, for sets beyond [`MOST_RENDEZVOUS`], where a policy
    /// needs it.
    pub points: Option<Ring<u64>>,
    /// What tokens cost at most, of the engines that tell.
    pub cost: Option<Cost>,
}

impl Layout {
    /// The layout of these candidates.
    #[must_use]
    pub fn new(list: &[Candidate], columns: &[String]) -> Self {
        let closed: Vec<Option<Closed>> = list.iter().map(|one| one.spec.closed).collect();
        let mut weights: Vec<f64> = list.iter().map(|one| one.spec.traits.weight).collect();
        if weights.iter().all(|weight| *weight <= 0.0) {
            // Nobody is preferred, so everyone is.
            weights.fill(1.0);
        }
        for (weight, closed) in weights.iter_mut().zip(&closed) {
            if closed.is_some() {
                *weight = 0.0;
            }
        }
        let is_even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let mut sum = 0.0;
        let cumulative = weights.iter().map(|weight| {
            sum += weight;
            sum
        });
        let cumulative = cumulative.collect();
        let hashes: Vec<u64> = list.iter().map(|one| one.engine.hash).collect();
        let keys = list.iter().map(|one| one.engine.key);
        let mut by_key: Vec<(u64, u32)> = keys.zip(0..).collect();
        by_key.sort_unstable();
        let column = |path: &String| {
            let values = list
                .iter()
                .map(|one| number(&one.spec.traits.metadata, path));
            values.collect()
        };
        Self {
            turns: if is_even { Vec::new() } else { turns(&weights) },
            is_even,
            cumulative,
            by_key,
            columns: columns.iter().map(column).collect(),
            capabilities: list.iter().map(capability).collect(),
            lacks_gpu: list.iter().map(lacks_gpu).collect(),
            ring: None,
            points: None,
            cost: dearest(list),
            closed,
            hashes,
            weights,
        }
    }

    /// About what it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let ring = self.ring.as_ref().map_or(0, |ring| ring.bytes());
        let points = self.points.as_ref().map_or(0, Ring::bytes);
        let each = 64 + 8 * self.columns.len();
        self.weights.len() * each + self.turns.len() * 4 + ring + points
    }

    /// The position of the engine with that key.
    #[must_use]
    pub fn position(&self, key: u64) -> Option<usize> {
        let found = self.by_key.binary_search_by_key(&key, |(key, _)| *key);
        found.ok().map(|at| self.by_key[at].1 as usize)
    }
}

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Text, from text or a conversation.
    Generate,
    /// Vectors.
    Embed,
    /// Scores of texts against each other.
    Rank,
    /// Text from speech.
    Transcribe,
    /// Speech from text.
    Synthesize,
    /// Images.
    Image,
}

impl Capability {
    /// What an OpenAI-like path asks for.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" | "/v1/completions" | "/v1/responses" | "/v1/messages" => {
                Self::Generate
            }
            "/v1/embeddings" | "/pooling" => Self::Embed,
            "/v1/rerank" | "/v2/rerank" | "/rerank" | "/v1/score" | "/score" | "/classify" => {
                Self::Rank
            }
            "/v1/audio/transcriptions" | "/v1/audio/translations" => Self::Transcribe,
            "/v1/audio/speech" => Self::Synthesize,
            "/v1/images/generations" => Self::Image,
            _ => return None,
        })
    }

    /// The reference router's model types.
    fn of_type(name: &str) -> Option<Self> {
        Some(match name {
            "chat" | "completion" | "vision" | "messages" => Self::Generate,
            "embeddings" => Self::Embed,
            "rerank" | "score" => Self::Rank,
            "transcription" => Self::Transcribe,
            "speech" => Self::Synthesize,
            "image" => Self::Image,
            _ => return None,
        })
    }
}

fn capability(one: &Candidate) -> Option<Capability> {
    let labels = &one.spec.traits.labels;
    labels
        .get("model_type")
        .and_then(|name| Capability::of_type(name))
}

fn lacks_gpu(one: &Candidate) -> bool {
    let label = |name: &str| one.spec.traits.labels.get(name).map(String::as_str);
    matches!(label("gpu"), Some("none" | "false")) || label("device") == Some("cpu")
}

/// One round: each engine as often as its weight says, and evenly spread over
/// it. The next turn is always that of the engine that is due first.
fn turns(weights: &[f64]) -> Vec<u32> {
    let least = (weights.iter().copied())
        .filter(|weight| *weight > 0.0)
        .fold(f64::INFINITY, f64::min);
    let sum: f64 = weights.iter().sum();
    // So that the lightest has one turn; or a hundred, when they do not divide.
    let whole = |scale: f64| {
        let off = |weight: &f64| (weight * scale - (weight * scale).round()).abs() > 1e-6;
        !weights.iter().any(off)
    };
    let scales = (1..=100).map(|times| f64::from(times) / least);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 engines")]
    let most = (MOST_TURNS[0] * weights.len() as f64).max(MOST_TURNS[1]);
    let scale = scales
        .clone()
        .find(|scale| whole(*scale))
        .unwrap_or(100.0 / least)
        .min(most / sum);
    let counts = weights.iter().map(|weight| count(weight * scale, *weight));
    let mut due: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
    let counts: Vec<u64> = counts.collect();
    for (index, count) in (0..).zip(&counts) {
        if let Some(every) = PERIOD.checked_div(*count) {
            due.push(Reverse((first(index, every), index)));
        }
    }
    let length: u64 = counts.iter().sum();
    let mut round = Vec::new();
    while round.len() as u64 != length
        && let Some(Reverse((at, index))) = due.pop()
    {
        round.push(index);
        due.push(Reverse((at + PERIOD / counts[index as usize], index)));
    }
    round
}

/// When an engine is due at first: spread by the golden ratio, or all engines
/// of one weight would be due together.
fn first(index: u32, every: u64) -> u64 {
    // The fraction of index times the golden ratio, in 2^32nds.
    let part = index.wrapping_mul(2_654_435_769).wrapping_add(1 << 31);
    ((every >> 16) * u64::from(part)) >> 16
}

/// The length of a round, in units in which engines are due.
const PERIOD: u64 = 1 << 40;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by MOST_TURNS, never negative"
)]
fn count(turns: f64, weight: f64) -> u64 {
    let least = if weight > 0.0 { 1.0 } else { 0.0 };
    turns.round().max(least) as u64
}

/// The highest prices of these.
fn dearest(list: &[Candidate]) -> Option<Cost> {
    let costs = list.iter().filter_map(|one| one.spec.traits.cost);
    costs.reduce(|a, b| Cost {
        input_per_mtok: a.input_per_mtok.max(b.input_per_mtok),
        output_per_mtok: a.output_per_mtok.max(b.output_per_mtok),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_fair_and_smooth() {
        assert_eq!(turns(&[2.0, 1.0]), [1, 0, 0]);
        assert_eq!(turns(&[5.0, 1.0, 1.0]), [0, 1, 0, 0, 0, 2, 0]);
        assert_eq!(turns(&[0.5, 0.0, 1.5]).len(), 4);
        let thirds = turns(&[1.0, 1.0 / 3.0]);
        assert_eq!(thirds.iter().filter(|turn| **turn == 0).count(), 3);
        let odd = turns(&[1.0, std::f64::consts::PI]);
        assert_eq!(odd.len(), 414);
        let far = turns(&[1e-9, 1.0, 1.0]);
        assert!(far.len() <= 16_386 && far.contains(&0));
        let mut many = vec![1.0; 5000];
        many.resize(10_000, 1.5);
        assert_eq!(turns(&many).len(), 25_000);
    }
}
