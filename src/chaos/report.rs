//! What a run came to: for people, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::slope::{Slope, median};
use super::watcher::Sample;

/// Violations that are described.
const DESCRIBED: usize = 10;
/// Characters of a description.
const LONG: usize = 600;

/// What clients saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests that were wholly sent.
    pub sent: u64,
    /// Answers that came whole.
    pub whole: u64,
    /// Honest errors, by status.
    pub errors: BTreeMap<u16, u64>,
    /// Streams that were cut honestly.
    pub cut_streams: u64,
    /// Other answers that were cut honestly.
    pub cut_answers: u64,
    /// Clients that left in the midst of a stream.
    pub left_midway: u64,
    /// Clients that left before there was an answer.
    pub left_waiting: u64,
    /// Answers that are none of these.
    pub violations: u64,
    /// The first of those.
    pub described: Vec<String>,
    /// Heads that came, by status.
    #[serde(skip)]
    pub(super) statuses: BTreeMap<u16, u64>,
}

impl Tally {
    pub(super) fn violated(&mut self, what: String) {
        self.violations += 1;
        if self.described.len() < DESCRIBED {
            let mut what = what;
            if let Some((at, _)) = what.char_indices().nth(LONG) {
                what.truncate(at);
                what.push('…');
            }
            self.described.push(what);
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.whole += other.whole;
        self.cut_streams += other.cut_streams;
        self.cut_answers += other.cut_answers;
        self.left_midway += other.left_midway;
        self.left_waiting += other.left_waiting;
        self.violations += other.violations;
        self.described.extend(other.described);
        self.described.truncate(DESCRIBED);
        for (into, from) in [
            (&mut self.errors, other.errors),
            (&mut self.statuses, other.statuses),
        ] {
            for (status, count) in from {
                *into.entry(status).or_default() += count;
            }
        }
    }
}

/// Memory of the whole process: proxy, engines and clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// KiB after the warm-up.
    pub before_kib: u64,
    /// KiB after all has ended.
    pub after_kib: u64,
}

impl Memory {
    /// KiB that are allowed after all has ended.
    #[must_use]
    pub fn allowed_kib(self) -> u64 {
        self.before_kib + self.before_kib / 10 + (4 << 10)
    }
}

/// A run, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where all random numbers began.
    pub seed: u64,
    /// How long engines were injured.
    pub seconds: f64,
    /// Simulated engines.
    pub engines: usize,
    /// Clients.
    pub clients: usize,
    /// What the clients saw.
    pub answers: Tally,
    /// What happened to engines, by its name.
    pub injuries: BTreeMap<&'static str, u64>,
    /// Requests that the proxy counted, by status.
    pub counted: BTreeMap<String, u64>,
    /// Requests still in flight when all had ended, over proxy and engines.
    pub in_flight: u64,
    /// Engines that were not trusted, or had answered nothing, long after they
    /// had healed.
    pub untrusted: Vec<String>,
    /// Seconds until all were trusted again.
    pub recovered_after: f64,
    /// Memory before and after.
    pub memory: Memory,
    /// Panics of any thread.
    pub panics: u64,
    /// Configurations put in force while it ran, and refused.
    pub reloads: (u64, u64),
    /// How it was, second by second.
    pub samples: Vec<Sample>,
    /// What grew; empty where the run was too short to tell.
    pub slopes: Vec<Slope>,
}

impl Report {
    /// Whether every invariant held.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.invariants().iter().all(|(_, holds, _)| *holds)
    }

    /// The proxy counts each request once, under the status that the client
    /// saw; under which one it counts a client that left before is its affair.
    fn is_counted_once(&self) -> bool {
        let seen = |status: &u16| {
            self.counted
                .get(&status.to_string())
                .copied()
                .unwrap_or_default()
        };
        let mut statuses = self.answers.statuses.iter();
        statuses.all(|(status, count)| seen(status) >= *count)
            && self.all_counted() == self.answers.sent
    }

    fn all_counted(&self) -> u64 {
        self.counted.values().sum()
    }

    /// Each invariant, whether it held, and its figures.
    fn invariants(&self) -> [(&'static str, bool, String); 8] {
        let Memory {
            before_kib,
            after_kib,
        } = self.memory;
        let allowed = self.memory.allowed_kib();
        let recovered = if self.untrusted.is_empty() {
            format!("after {:.1} s", self.recovered_after)
        } else {
            self.untrusted.join(", ")
        };
        let violations = self.answers.violations;
        let (reloads, refused) = self.reloads;
        let grown = self.slopes.iter().filter(|slope| !slope.is_flat());
        let grown: Vec<_> = grown.map(|slope| slope.what).collect();
        [
            (
                "every byte as it must be",
                violations == 0,
                format!("{violations} violations"),
            ),
            (
                "every request counted once",
                self.is_counted_once(),
                format!("{} sent, {} counted", self.answers.sent, self.all_counted()),
            ),
            (
                "nothing left in flight",
                self.in_flight == 0,
                format!("{} in flight", self.in_flight),
            ),
            (
                "every engine trusted again",
                self.untrusted.is_empty(),
                recovered,
            ),
            (
                "memory",
                after_kib <= allowed,
                format!("{before_kib} KiB before, {after_kib} after, {allowed} allowed"),
            ),
            (
                "no panic",
                self.panics == 0,
                format!("{} panics", self.panics),
            ),
            (
                "every configuration taken",
                refused == 0 && (reloads > 0 || self.samples.len() < 10),
                format!("{reloads} put in force, {refused} refused"),
            ),
            (
                "nothing grows",
                grown.is_empty(),
                match (self.slopes.is_empty(), grown.is_empty()) {
                    (true, _) => "too short to tell".to_owned(),
                    (_, true) => "slopes within noise".to_owned(),
                    _ => grown.join(", "),
                },
            ),
        ]
    }

    /// The report for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Self {
            seed,
            seconds,
            engines,
            clients,
            answers,
            ..
        } = self;
        let mut out = format!(
            "chaos for {seconds:.0} s, {engines} engines, {clients} clients, seed {seed}\n"
        );
        let errors = answers.errors.iter();
        let mut rows = vec![("whole".to_owned(), answers.whole)];
        rows.extend(errors.map(|(status, count)| (format!("honest error {status}"), *count)));
        for (name, count) in [
            ("stream cut honestly", answers.cut_streams),
            ("answer cut honestly", answers.cut_answers),
            ("client left midway", answers.left_midway),
            ("client left waiting", answers.left_waiting),
            ("violation", answers.violations),
        ] {
            rows.push((name.to_owned(), count));
        }
        section(&mut out, "answers", &rows);
        let injuries = self.injuries.iter();
        let rows: Vec<_> = injuries
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        section(&mut out, "injuries", &rows);
        let counted = self.counted.iter();
        let rows: Vec<_> = counted
            .map(|(status, count)| (format!("status {status}"), *count))
            .collect();
        section(&mut out, "counted by the proxy", &rows);
        out.push_str("\ninvariants\n");
        for (name, holds, figures) in self.invariants() {
            let word = if holds { "holds" } else { "BROKEN" };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {name:<28}{word:>8}   {figures}");
        }
        self.flatness(&mut out);
        for violation in &answers.described {
            let _ = writeln!(out, "\n  {violation}");
        }
        out
    }
}

impl Report {
    /// How it was minute by minute, and what grew.
    fn flatness(&self, out: &mut String) {
        if self.slopes.is_empty() {
            return;
        }
        out.push_str("\nminute  requests/s  memory KiB  descriptors  tasks\n");
        let minute = |sample: &Sample| sample.at.div_euclid(60.0);
        let mut before = 0;
        for part in self
            .samples
            .chunk_by(|one, next| minute(one) == minute(next))
        {
            let last = &part[part.len() - 1];
            let of = |read: fn(&Sample) -> u64| median(part.iter().map(read));
            let asked = last.requests - before;
            before = last.requests;
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{:>6.0}{:>12}{:>12.0}{:>13.0}{:>7.0}",
                minute(last) + 1.0,
                asked / u64::try_from(part.len()).unwrap_or(1),
                of(|sample| sample.resident_kib),
                of(|sample| sample.descriptors),
                of(|sample| sample.tasks)
            );
        }
        out.push_str("\nfigure            median    growth/h     noise/h   grown  allowed\n");
        for slope in &self.slopes {
            let _ = writeln!(
                out,
                "{:<14}{:>10.0}{:>12.1}{:>12.1}{:>8.1}{:>9.1}",
                slope.what,
                slope.median,
                slope.per_hour,
                slope.noise_per_hour,
                slope.grown,
                slope.allowed
            );
        }
    }
}

fn section(out: &mut String, title: &str, rows: &[(String, u64)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n{title}");
    for (name, count) in rows {
        let _ = writeln!(out, "  {name:<28}{count:>8}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(grown: f64) -> Slope {
        Slope {
            what: "tasks",
            median: 20.0,
            per_hour: grown,
            noise_per_hour: 200.0,
            grown,
            allowed: 200.0,
        }
    }

    fn good() -> Report {
        Report {
            seed: 1,
            seconds: 5.0,
            engines: 5,
            clients: 16,
            answers: Tally {
                sent: 10,
                whole: 8,
                errors: [(502, 1)].into(),
                left_waiting: 1,
                statuses: [(200, 8), (502, 1)].into(),
                ..Tally::default()
            },
            injuries: [("killed", 2)].into(),
            counted: [("200", 8), ("499", 1), ("502", 1)]
                .map(|(status, count)| (status.to_owned(), count))
                .into(),
            in_flight: 0,
            untrusted: Vec::new(),
            recovered_after: 1.0,
            memory: Memory {
                before_kib: 20_000,
                after_kib: 26_000,
            },
            panics: 0,
            reloads: (3, 0),
            samples: Vec::new(),
            slopes: vec![slope(100.0)],
        }
    }

    #[test]
    fn each_invariant_alone_makes_a_run_bad() {
        assert!(good().is_good(), "{}", good().table());
        let breaks: [fn(&mut Report); 9] = [
            |report| report.answers.violated("x".repeat(10_000)),
            |report| report.answers.sent += 1,
            |report| {
                report.counted.insert("502".to_owned(), 0);
                report.counted.insert("499".to_owned(), 2);
            },
            |report| report.in_flight = 1,
            |report| report.untrusted.push("http://x".to_owned()),
            |report| report.memory.after_kib = 26_097,
            |report| report.panics = 1,
            |report| report.reloads.1 = 1,
            |report| report.slopes.push(slope(201.0)),
        ];
        for (at, breaks) in breaks.iter().enumerate() {
            let mut report = good();
            breaks(&mut report);
            let table = report.table();
            assert!(!report.is_good(), "{at}");
            assert_eq!(table.matches("BROKEN").count(), 1, "{table}");
            assert!(table.len() < 2000, "{table}");
        }
    }
}
