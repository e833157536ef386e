//! Made-up traces, the same for the same seed: heavy-tailed lengths, and
//! arrivals and prefixes of the kinds that set routing policies apart.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::f64::consts::TAU;

use fastrand::Rng;

use super::trace::{BLOCK_TOKENS, Request};

/// Longest prompt, in tokens.
const MOST_INPUT: u32 = 32_768;
/// Longest answer, in tokens.
const MOST_OUTPUT: u32 = 8192;
/// How heavy the tails of the lengths are.
const INPUT_SIGMA: f64 = 1.0;
const OUTPUT_SIGMA: f64 = 1.2;

/// How much faster than the mean requests come in a burst, and between two.
const BURST_PACE: f64 = 4.0;
const CALM_PACE: f64 = 0.25;
/// Seconds of a burst, and between two, on average: together with the paces
/// the mean is kept.
const BURST_SECONDS: f64 = 5.0;
const CALM_SECONDS: f64 = 20.0;

/// System prompts that independent requests share.
const SHARED_PROMPTS: usize = 100;
/// System prompts that conversations share.
const SESSION_PROMPTS: usize = 20;
/// Turns of a conversation, on average.
const TURNS: f64 = 6.0;
/// Seconds from one turn to the next, on average.
const THINK_SECONDS: f64 = 10.0;

/// What is typical of a made-up trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Independent requests at an even rate, with nothing in common.
    Poisson,
    /// The same, in bursts.
    Bursty,
    /// Independent requests that share system prompts, some of them often.
    Prefixes,
    /// Conversations, whose every turn repeats what came before.
    Sessions,
}

impl Kind {
    /// All kinds, by their names.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Poisson, "poisson"),
        (Self::Bursty, "bursty"),
        (Self::Prefixes, "prefixes"),
        (Self::Sessions, "sessions"),
    ];

    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(kind, _)| *kind)
    }
}

/// What to make up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    /// What is typical of it.
    pub kind: Kind,
    /// How many requests.
    pub requests: usize,
    /// Requests a second, on average; above 0.
    pub rate: f64,
    /// The same seed makes the same trace.
    pub seed: u64,
    /// Prompt tokens that a request does not share by design, on average: all
    /// of them, what follows the system prompt, or a turn's question. At
    /// least 1.
    pub mean_input: f64,
    /// Tokens of an answer, on average; at least 1. Bounds on the lengths make
    /// very long means a little shorter.
    pub mean_output: f64,
}

/// Makes up a trace, by time.
#[must_use]
pub fn generate(of: &Synthetic) -> Vec<Request> {
    let mut rng = Rng::with_seed(of.seed);
    match of.kind {
        Kind::Poisson => poisson(of, &mut rng),
        Kind::Bursty => bursty(of, &mut rng),
        Kind::Prefixes => prefixes(of, &mut rng),
        Kind::Sessions => Conversations::new(of, rng).requests(),
    }
}

fn poisson(of: &Synthetic, rng: &mut Rng) -> Vec<Request> {
    let mut at = 0.0;
    let mut one = |_| {
        at += exponential(rng, 1.0 / of.rate);
        request(of, rng, at, &[])
    };
    (0..of.requests).map(&mut one).collect()
}

fn bursty(of: &Synthetic, rng: &mut Rng) -> Vec<Request> {
    let (mut at, mut pace) = (0.0, CALM_PACE);
    let mut change = exponential(rng, CALM_SECONDS);
    let mut requests = Vec::with_capacity(of.requests);
    while requests.len() < of.requests {
        let next = at + exponential(rng, 1.0 / (of.rate * pace));
        if next < change {
            at = next;
            requests.push(request(of, rng, at, &[]));
            continue;
        }
        // An exponential gap has no memory: it may be drawn again.
        at = change;
        let seconds;
        (pace, seconds) = if pace == CALM_PACE {
            (BURST_PACE, BURST_SECONDS)
        } else {
            (CALM_PACE, CALM_SECONDS)
        };
        change += exponential(rng, seconds);
    }
    requests
}

fn prefixes(of: &Synthetic, rng: &mut Rng) -> Vec<Request> {
    let prompts = shared_prompts(rng, SHARED_PROMPTS, 2..=16);
    // Zipf's law: the second is half as popular as the first, and so on.
    let mut sum = 0.0;
    let mut popularity = Vec::with_capacity(prompts.len());
    for rank in (1u32..).take(prompts.len()) {
        sum += 1.0 / f64::from(rank);
        popularity.push(sum);
    }
    let mut at = 0.0;
    let mut one = |_| {
        at += exponential(rng, 1.0 / of.rate);
        let drawn = rng.f64() * sum;
        let rank = popularity.partition_point(|upto| *upto <= drawn);
        request(of, rng, at, prompts.get(rank).map_or(&[], Vec::as_slice))
    };
    (0..of.requests).map(&mut one).collect()
}

/// Prompts of so many whole blocks.
fn shared_prompts(
    rng: &mut Rng,
    prompts: usize,
    length: std::ops::RangeInclusive<usize>,
) -> Vec<Vec<u64>> {
    let mut one = |_| {
        let blocks = rng.usize(length.clone());
        (0..blocks).map(|_| rng.u64(..)).collect()
    };
    (0..prompts).map(&mut one).collect()
}

/// A request of its own after a shared front of whole blocks.
fn request(of: &Synthetic, rng: &mut Rng, at: f64, front: &[u64]) -> Request {
    let before = tokens_of(front);
    let own = lognormal(rng, of.mean_input, INPUT_SIGMA, MOST_INPUT - before);
    let input_tokens = before + own;
    let mut blocks = front.to_vec();
    extend(&mut blocks, rng, input_tokens);
    Request {
        at,
        input_tokens,
        output_tokens: lognormal(rng, of.mean_output, OUTPUT_SIGMA, MOST_OUTPUT),
        blocks,
        session: None,
        model: None,
    }
}

/// Tokens of a shared front of whole blocks.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a shared front has few blocks"
)]
fn tokens_of(front: &[u64]) -> u32 {
    front.len() as u32 * BLOCK_TOKENS
}

/// Adds new blocks until there are enough for so many tokens.
fn extend(blocks: &mut Vec<u64>, rng: &mut Rng, tokens: u32) {
    let blocks_now = tokens.div_ceil(BLOCK_TOKENS) as usize;
    blocks.reserve(blocks_now.saturating_sub(blocks.len()));
    while blocks.len() < blocks_now {
        blocks.push(rng.u64(..));
    }
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    // From 0 up to but not including 1: its logarithm must be finite.
    -(1.0 - rng.f64()).ln() * mean
}

/// A length from 1 to `most`, whose mean is `mean` but for the bounds.
fn lognormal(rng: &mut Rng, mean: f64, sigma: f64, most: u32) -> u32 {
    // Box and Muller's normal distribution.
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos();
    let drawn = (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the bounds are those of a u32"
    )]
    let length = drawn.round().clamp(1.0, f64::from(most)) as u32;
    length
}

/// A conversation that goes on.
#[derive(Debug)]
struct Conversation {
    id: u64,
    /// What the next question follows.
    tokens: u32,
    blocks: Vec<u64>,
}

/// Conversations, by the times of their turns.
struct Conversations<'a> {
    of: &'a Synthetic,
    rng: Rng,
    prompts: Vec<Vec<u64>>,
    begun: u64,
    /// All there were; those that ended are empty.
    list: Vec<Conversation>,
    /// The next turns: when, as bits, which for times order as the times do,
    /// and whose.
    turns: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<'a> Conversations<'a> {
    fn new(of: &'a Synthetic, mut rng: Rng) -> Self {
        Self {
            of,
            prompts: shared_prompts(&mut rng, SESSION_PROMPTS, 1..=2),
            rng,
            begun: 0,
            list: Vec::new(),
            turns: BinaryHeap::new(),
        }
    }

    fn requests(mut self) -> Vec<Request> {
        let mut requests = Vec::with_capacity(self.of.requests);
        let mut start = self.next_start(0.0);
        while requests.len() < self.of.requests {
            let (at, which) = match self.turns.peek() {
                Some(Reverse((at, which))) if f64::from_bits(*at) <= start => {
                    let turn = (f64::from_bits(*at), *which);
                    self.turns.pop();
                    turn
                }
                _ => {
                    let begins = start;
                    start = self.next_start(begins);
                    let conversation = self.begin();
                    self.list.push(conversation);
                    (begins, self.list.len() - 1)
                }
            };
            requests.push(self.turn(at, which));
        }
        requests
    }

    /// When the next conversation begins. Of all requests one in [`TURNS`]
    /// begins one in the long run; at first more do, for those that began
    /// before the trace, so that the rate is even from its start.
    fn next_start(&mut self, mut at: f64) -> f64 {
        loop {
            at += exponential(&mut self.rng, 1.0 / self.of.rate);
            let before = (TURNS - 1.0) * (-at / THINK_SECONDS).exp();
            if self.rng.f64() * TURNS < 1.0 + before {
                return at;
            }
        }
    }

    fn begin(&mut self) -> Conversation {
        let prompt = self.rng.usize(..self.prompts.len());
        let blocks = self.prompts[prompt].clone();
        self.begun += 1;
        Conversation {
            id: self.begun,
            tokens: tokens_of(&blocks),
            blocks,
        }
    }

    /// The next turn of a conversation. One that fills the longest prompt
    /// ends, and another goes on in its place, so that the rate stays.
    fn turn(&mut self, at: f64, which: usize) -> Request {
        let question = lognormal(&mut self.rng, self.of.mean_input, INPUT_SIGMA, MOST_INPUT);
        if self.list[which].tokens + question > MOST_INPUT {
            self.list[which] = self.begin();
        }
        let output_tokens = lognormal(
            &mut self.rng,
            self.of.mean_output,
            OUTPUT_SIGMA,
            MOST_OUTPUT,
        );
        let one = &mut self.list[which];
        let input_tokens = (one.tokens + question).min(MOST_INPUT);
        extend(&mut one.blocks, &mut self.rng, input_tokens);
        one.tokens = input_tokens + output_tokens;
        let session = Some(one.id);
        // Going on with the same chance each time makes their number geometric.
        let blocks = if self.rng.f64() * TURNS < TURNS - 1.0 {
            let next = at + exponential(&mut self.rng, THINK_SECONDS);
            self.turns.push(Reverse((next.to_bits(), which)));
            one.blocks.clone()
        } else {
            std::mem::take(&mut one.blocks)
        };
        Request {
            at,
            input_tokens,
            output_tokens,
            blocks,
            session,
            model: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn of(kind: Kind) -> Synthetic {
        Synthetic {
            kind,
            requests: 100_000,
            rate: 2.0,
            seed: 7,
            mean_input: 600.0,
            mean_output: 200.0,
        }
    }

    fn mean(values: impl ExactSizeIterator<Item = u32>) -> f64 {
        let count = values.len() as f64;
        values.map(f64::from).sum::<f64>() / count
    }

    fn is_near(value: f64, expected: f64, share: f64) -> bool {
        (value / expected - 1.0).abs() < share
    }

    #[test]
    fn kinds_have_names() {
        for (kind, name) in Kind::ALL {
            assert_eq!(Kind::named(name), Some(kind));
        }
        assert_eq!(Kind::named("Poisson"), None);
    }

    #[test]
    fn the_same_seed_makes_the_same_trace() {
        for (kind, name) in Kind::ALL {
            let few = Synthetic {
                requests: 500,
                ..of(kind)
            };
            assert_eq!(generate(&few), generate(&few), "{name}");
            let other = Synthetic { seed: 8, ..few };
            assert_ne!(generate(&few), generate(&other), "{name}");
        }
    }

    #[test]
    fn rates_lengths_and_blocks_are_as_asked() {
        for (kind, name) in Kind::ALL {
            let requests = generate(&of(kind));
            assert_eq!(requests.len(), 100_000);
            assert!(requests.is_sorted_by(|one, other| one.at <= other.at));
            let rate = 100_000.0 / requests[99_999].at;
            assert!(is_near(rate, 2.0, 0.05), "{name}: {rate}");
            let output = mean(requests.iter().map(|one| one.output_tokens));
            assert!(is_near(output, 200.0, 0.1), "{name}: {output}");
            if matches!(kind, Kind::Poisson | Kind::Bursty) {
                let input = mean(requests.iter().map(|one| one.input_tokens));
                assert!(is_near(input, 600.0, 0.1), "{name}: {input}");
            }
            for one in &requests {
                let blocks = one.input_tokens.div_ceil(BLOCK_TOKENS) as usize;
                assert_eq!(one.blocks.len(), blocks);
                assert!((1..=MOST_INPUT).contains(&one.input_tokens));
                assert!((1..=MOST_OUTPUT).contains(&one.output_tokens));
                assert_eq!(one.session.is_some(), kind == Kind::Sessions);
            }
        }
    }

    #[test]
    fn the_rate_is_even_from_the_start_with_sessions() {
        let requests = generate(&Synthetic {
            rate: 1000.0,
            ..of(Kind::Sessions)
        });
        for second in [1.0, 5.0, 20.0, 50.0] {
            let count = requests.partition_point(|one| one.at < second) as f64;
            assert!(is_near(count, second * 1000.0, 0.1), "{second}: {count}");
        }
    }

    #[test]
    fn bursts_are_far_from_even() {
        // Counts of a Poisson process vary as much as their mean.
        let dispersion = |kind| {
            let requests = generate(&of(kind));
            let mut rest = requests.as_slice();
            let counts: Vec<f64> = (1..=9000)
                .map(|window| {
                    let end = f64::from(window) * 5.0;
                    let count = rest.partition_point(|one| one.at < end);
                    rest = &rest[count..];
                    count as f64
                })
                .collect();
            let mean = counts.iter().sum::<f64>() / 9000.0;
            let squares = counts.iter().map(|count| (count - mean).powi(2));
            squares.sum::<f64>() / 9000.0 / mean
        };
        assert!(is_near(dispersion(Kind::Poisson), 1.0, 0.1));
        assert!(dispersion(Kind::Bursty) > 5.0);
    }

    #[test]
    fn only_what_is_meant_to_be_shared_is() {
        for kind in [Kind::Poisson, Kind::Bursty] {
            let mut seen = HashSet::new();
            for one in generate(&of(kind)) {
                assert!(one.blocks.iter().all(|block| seen.insert(*block)));
            }
        }
        let requests = generate(&of(Kind::Prefixes));
        let mut fronts: HashMap<u64, u32> = HashMap::new();
        for one in &requests {
            *fronts.entry(one.blocks[0]).or_default() += 1;
            assert!(one.input_tokens > 2 * BLOCK_TOKENS);
        }
        assert_eq!(fronts.len(), SHARED_PROMPTS);
        let mut counts: Vec<u32> = fronts.into_values().collect();
        counts.sort_unstable();
        // The hundredth harmonic number is 5.187.
        assert!(is_near(f64::from(counts[99]), 100_000.0 / 5.187, 0.05));
        assert!(is_near(f64::from(counts[98]), 50_000.0 / 5.187, 0.05));
    }

    #[test]
    fn each_turn_of_a_session_repeats_the_one_before() {
        let requests = generate(&of(Kind::Sessions));
        let mut last: HashMap<u64, (&Request, u32)> = HashMap::new();
        let (mut gaps, mut fronts) = (Vec::new(), HashSet::new());
        for one in &requests {
            let turns = match last.get(&one.session.unwrap()) {
                None => 1,
                Some((before, turns)) => {
                    assert!(one.blocks.starts_with(&before.blocks));
                    assert!(one.input_tokens > before.input_tokens + before.output_tokens);
                    gaps.push(one.at - before.at);
                    turns + 1
                }
            };
            last.insert(one.session.unwrap(), (one, turns));
            fronts.insert(one.blocks[0]);
        }
        assert_eq!(fronts.len(), SESSION_PROMPTS);
        let gap = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!(is_near(gap, THINK_SECONDS, 0.05), "{gap}");
        let turns = mean(last.values().map(|(_, turns)| *turns));
        // Those that fill the longest prompt are cut in two.
        assert!(is_near(turns, TURNS, 0.1), "{turns}");
    }
}
