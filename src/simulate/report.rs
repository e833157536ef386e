//! What came of a simulated run: latencies, the share of requests served well
//! enough, and how evenly and how well the engines were used.

use serde::Serialize;

use super::engine::Engine;

/// A request that was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    /// Seconds to its first token.
    pub ttft: f64,
    /// Seconds to its last token.
    pub e2e: f64,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

/// What a request must keep to be served well enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    /// Seconds to its first token, at most.
    pub ttft: f64,
    /// Seconds between two of its tokens on average, at most.
    pub itl: f64,
}

impl Slo {
    fn is_kept(&self, by: &Finished) -> bool {
        let gaps = f64::from(by.output_tokens.saturating_sub(1).max(1));
        by.ttft <= self.ttft && (by.e2e - by.ttft) / gaps <= self.itl
    }
}

/// The requests of a run that were answered.
#[derive(Debug)]
pub struct Tally {
    slo: Slo,
    // Half the memory of f64, and exact enough for milliseconds in hours.
    ttft: Vec<f32>,
    e2e: Vec<f32>,
    good: u64,
    refused: u64,
}

/// One policy's results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The policy's name.
    pub policy: String,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that the policy refused.
    pub refused: u64,
    /// Seconds to the first token, the median.
    pub ttft_p50: f64,
    /// The same, of the slowest tenth.
    pub ttft_p90: f64,
    /// The same, of the slowest hundredth.
    pub ttft_p99: f64,
    /// Seconds to the last token, of the slowest hundredth.
    pub e2e_p99: f64,
    /// The share of requests within the objective.
    pub goodput: f64,
    /// The busiest engine's load over the mean of all; 1 is even.
    pub imbalance: f64,
    /// The share of prompt tokens that a prefix cache held.
    pub hit_rate: f64,
    /// The share of keys that changed their engine, if that was looked at.
    pub moved: Option<f64>,
}

impl Tally {
    /// Of no request yet.
    #[must_use]
    pub fn new(slo: Slo) -> Self {
        Self {
            slo,
            ttft: Vec::new(),
            e2e: Vec::new(),
            good: 0,
            refused: 0,
        }
    }

    /// One more request.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the digits beyond an f32's are not shown"
    )]
    pub fn add(&mut self, one: &Finished) {
        self.ttft.push(one.ttft as f32);
        self.e2e.push(one.e2e as f32);
        self.good += u64::from(self.slo.is_kept(one));
    }

    /// One that no engine got: it is not good.
    pub fn refuse(&mut self) {
        self.refused += 1;
    }

    /// The results, on these engines. Those of no request are 0, and even.
    #[must_use]
    pub fn row(mut self, policy: String, engines: &[Engine], moved: Option<f64>) -> Row {
        self.ttft.sort_unstable_by(f32::total_cmp);
        self.e2e.sort_unstable_by(f32::total_cmp);
        let requests = self.ttft.len() as u64;
        let prompt = engines.iter().map(Engine::prompt_tokens).sum();
        let hit = engines.iter().map(Engine::hit_tokens).sum();
        Row {
            policy,
            requests,
            ttft_p50: percentile(&self.ttft, 50),
            ttft_p90: percentile(&self.ttft, 90),
            ttft_p99: percentile(&self.ttft, 99),
            e2e_p99: percentile(&self.e2e, 99),
            refused: self.refused,
            goodput: share(self.good, requests + self.refused),
            imbalance: imbalance(engines),
            hit_rate: share(hit, prompt),
            moved,
        }
    }
}

/// The smallest value that so many hundredths of all do not exceed.
fn percentile(sorted: &[f32], hundredths: usize) -> f64 {
    let rank = (sorted.len() * hundredths).div_ceil(100);
    let value = sorted.get(rank.saturating_sub(1));
    value.map_or(0.0, |value| f64::from(*value))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run is far below 2^52 requests and tokens"
)]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn imbalance(engines: &[Engine]) -> f64 {
    let busy = || engines.iter().map(Engine::busy_seconds);
    let sum: f64 = busy().sum();
    if sum <= 0.0 {
        return 1.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a fleet is far below 2^52 engines"
    )]
    let count = engines.len() as f64;
    busy().fold(0.0, f64::max) * count / sum
}

/// The columns, from the left.
const HEADER: [&str; 10] = [
    "policy",
    "requests",
    "TTFT p50 (ms)",
    "p90 (ms)",
    "p99 (ms)",
    "e2e p99 (s)",
    "goodput",
    "imbalance",
    "hit rate",
    "moved",
];

/// The rows as a text in columns, under a header.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let header = HEADER.map(str::to_owned);
    let lines: Vec<_> = std::iter::once(header)
        .chain(rows.iter().map(cells))
        .collect();
    let mut widths = [0; HEADER.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            // Names stand at the left, numbers at the right.
            text += &match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; HEADER.len()] {
    let milliseconds = |seconds: f64| format!("{:.0}", seconds * 1000.0);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    [
        row.policy.clone(),
        row.requests.to_string(),
        milliseconds(row.ttft_p50),
        milliseconds(row.ttft_p90),
        milliseconds(row.ttft_p99),
        format!("{:.2}", row.e2e_p99),
        percent(row.goodput),
        format!("{:.2}", row.imbalance),
        percent(row.hit_rate),
        row.moved.map_or_else(|| "-".to_owned(), percent),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::speed::Speed;
    use crate::simulate::trace::Request;

    const SLO: Slo = Slo {
        ttft: 1.0,
        itl: 0.125,
    };

    fn finished(ttft: f64, e2e: f64, output_tokens: u32) -> Finished {
        Finished {
            ttft,
            e2e,
            output_tokens,
        }
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut tally = Tally::new(SLO);
        for hundredth in (1..=100).rev() {
            let ttft = f64::from(hundredth) / 64.0;
            tally.add(&finished(ttft, ttft * 2.0, 1000));
        }
        let row = tally.row("one".to_owned(), &[], None);
        assert_eq!(row.requests, 100);
        assert_eq!(row.ttft_p50 * 64.0, 50.0);
        assert_eq!(row.ttft_p90 * 64.0, 90.0);
        assert_eq!(row.ttft_p99 * 64.0, 99.0);
        assert_eq!(row.e2e_p99 * 32.0, 99.0);
        assert_eq!(row.goodput, 0.64);
        assert_eq!((row.imbalance, row.hit_rate), (1.0, 0.0));
        let none = Tally::new(SLO).row("none".to_owned(), &[], None);
        assert_eq!((none.ttft_p99, none.goodput), (0.0, 0.0));
        assert_eq!(percentile(&[3.0], 50), 3.0);
    }

    #[test]
    fn goodput_needs_both() {
        for (one, is_kept) in [
            (finished(1.0, 1.0, 1), true),
            (finished(1.0, 2.0, 9), true),
            (finished(1.0, 2.0, 8), false),
            (finished(1.1, 1.1, 9), false),
        ] {
            assert_eq!(SLO.is_kept(&one), is_kept, "{one:?}");
        }
    }

    #[test]
    fn engines_are_summed() {
        let request = Request {
            at: 0.0,
            input_tokens: 1024,
            output_tokens: 2,
            blocks: vec![1, 2],
            session: None,
            model: None,
        };
        let mut engines = [0, 1, 2, 3].map(|_| Engine::new(Speed::default(), 1 << 20));
        // One request on the first, two on the second, none on the others.
        for (last, engine) in (0u32..2).zip(&mut engines) {
            for id in 0..=last {
                let at = f64::from(id);
                engine.advance(at, &mut Vec::new());
                engine.arrive(id, &request, at);
            }
            engine.advance(9.0, &mut Vec::new());
        }
        let row = Tally::new(SLO).row("some".to_owned(), &engines, Some(0.25));
        assert_eq!(row.hit_rate, 1023.0 / 3072.0);
        let busy = [engines[0].busy_seconds(), engines[1].busy_seconds()];
        assert!((row.imbalance - 4.0 * busy[1] / (busy[0] + busy[1])).abs() < 1e-9);
        assert!(row.imbalance > 2.0);
    }

    #[test]
    fn columns_stand_under_each_other() {
        let row = Row {
            policy: "round-robin".to_owned(),
            requests: 1_000_000,
            refused: 0,
            ttft_p50: 0.0421,
            ttft_p90: 1.0,
            ttft_p99: 23.4567,
            e2e_p99: 99.999,
            goodput: 0.98765,
            imbalance: 1.0,
            hit_rate: 0.0,
            moved: None,
        };
        let moved = Row {
            policy: "ä".to_owned(),
            moved: Some(1.0),
            ..row.clone()
        };
        assert_eq!(
            table(&[row, moved]),
            "\
policy       requests  TTFT p50 (ms)  p90 (ms)  p99 (ms)  e2e p99 (s)  goodput  imbalance  hit rate    moved
round-robin   1000000             42      1000     23457       100.00   98.8 %       1.00     0.0 %        -
ä             1000000             42      1000     23457       100.00   98.8 %       1.00     0.0 %  100.0 %
"
        );
    }
}
