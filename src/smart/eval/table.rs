//! The report as a table, for people: a block for each requirement, no line wider
//! than a terminal.

use std::fmt::Write as _;

use super::report::{Line, Report, Strategy};

/// The columns, from the left: what stands above them.
const HEADER: [[&str; 4]; COLUMNS] = [
    ["", "", "", "strategy"],
    ["", "", "", "quality "],
    ["", "", "", "cost"],
    ["", "", "", "strong"],
    ["", "random", "at this", "cost"],
    ["", "", "predicted", "quality"],
    ["", "", "realised -", "predicted"],
    ["", "", "", "cost/dual"],
    ["cost/dual", "at same", "predicted", "quality"],
];
const COLUMNS: usize = 9;
/// Characters of a name in the first column; what is longer is cut.
const MOST_NAME: usize = 23;
/// Characters of a name in a line of its own.
const MOST_NAME_IN_TEXT: usize = 36;
/// How many queries costs may be shown for.
const SCALES: [(f64, &str); 4] = [
    (1.0, " per query"),
    (1e3, " per 1,000 queries"),
    (1e6, " per 1,000,000 queries"),
    (1e9, " per 1,000,000,000 queries"),
];
/// Digits of a cost after the point.
const MOST_DIGITS: i32 = 6;
/// A mean that is as near to the requirement as this meets it.
const NEAR: f64 = 0.0005;

const LEGEND: &str = "\
each: the cheapest model of which an answer as good as required is predicted; average: answers
that are so in the mean, for queries that come one after the other, in an order of chance (file
order: as the lines stand); dual optimum: the same for the least cost by the predictions, all
queries known beforehand; oracle: the cheapest of the best answers; plain kNN: the published
method. strong: share of calls to the strong model; random at this cost: quality of the best
random mixture of models; predicted quality: of the answers taken; cost/dual: cost over the dual
optimum's; the last column: over that of a dual optimum asked for the predicted quality.
!: quality below the required one; ~: predicted quality is, so that cost/dual tells nothing;
inf: the dual optimum is free; -: there is none.
";

/// How costs are shown: all in the same way.
struct Scale {
    times: f64,
    per: &'static str,
    digits: i32,
}

impl Scale {
    /// The dearest line is 1 at least, the cheapest has three digits.
    fn of(report: &Report) -> Self {
        let costs = || report.strategies.iter().map(|line| line.cost);
        let most = costs().fold(0.0, f64::max);
        let least = costs().filter(|cost| *cost > 0.0);
        let least = least.reduce(f64::min).unwrap_or(1.0);
        // The share of strong calls is what it is.
        let (times, per) = if report.output_tokens.is_none() {
            SCALES[0]
        } else {
            let readable = |(times, _): &&(f64, &str)| most * times >= 1.0;
            let found = SCALES.iter().find(readable);
            *found.unwrap_or(&SCALES[if most > 0.0 { 3 } else { 0 }])
        };
        let digits = (2..MOST_DIGITS).find(|digits| least * times >= 10_f64.powi(2 - digits));
        Self {
            times,
            per,
            digits: digits.unwrap_or(MOST_DIGITS),
        }
    }

    fn show(&self, cost: f64) -> String {
        let cost = cost * self.times;
        let least = match self.digits {
            MOST_DIGITS => 1e-4,
            fewer => 0.5 * 0.1_f64.powi(fewer),
        };
        if cost >= 1e6 || (cost > 0.0 && cost < least) {
            return format!("{cost:.2e}");
        }
        fixed(cost, usize::try_from(self.digits).unwrap_or(0))
    }
}

/// With so many digits, and nothing that is -0.
fn fixed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    let is_zero = !text.contains(|sign: char| ('1'..='9').contains(&sign));
    match text.strip_prefix('-') {
        Some(zero) if is_zero => zero.to_owned(),
        _ => text,
    }
}

fn signed(number: f64, digits: usize) -> String {
    let text = fixed(number, digits);
    match text.starts_with('-') {
        true => text,
        false => format!("+{text}"),
    }
}

/// Without its middle, if it is long: both ends tell models apart.
fn cut(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    let end = (most - 2) / 2;
    let begin = most - 2 - end;
    let begin: String = name.chars().take(begin).collect();
    let end: String = name.chars().skip(count - end).collect();
    format!("{begin}..{end}")
}

impl Report {
    /// The report as a text, for people: at most 110 characters wide.
    #[must_use]
    pub fn text(&self) -> String {
        let scale = Scale::of(self);
        let mut text = self.head(&scale);
        text.push('\n');
        text += &self.table(&scale);
        text.push('\n');
        text += &self.foot();
        text.push('\n');
        text + LEGEND
    }

    fn head(&self, scale: &Scale) -> String {
        let from = match self.folds {
            Some(folds) => format!("{folds} folds, as no line has a split"),
            None => "as each line's split says".to_owned(),
        };
        let mut text = format!(
            "{} queries, learned from {} lines ({from}), seed {}\n",
            self.queries, self.train_rows, self.seed
        );
        let strong = self.models.iter().find(|model| model.is_strong);
        let strong = strong.map(|model| cut(&model.model, MOST_NAME_IN_TEXT));
        if let Some(lengths) = &self.output_tokens {
            let _ = writeln!(text, "cost: currency units{}", scale.per);
            let _ = writeln!(text, "tokens of answers: {lengths}");
        } else if let Some(strong) = &strong {
            let _ = writeln!(
                text,
                "cost: calls to {strong}{} (no prices given)",
                scale.per
            );
        }
        if let Some(strong) = strong {
            let _ = writeln!(text, "strong: {strong}, the best in what is learned from");
        }
        text
    }

    /// Headings between the lines have no columns.
    fn table(&self, scale: &Scale) -> String {
        let mut lines: Vec<Result<[String; COLUMNS], String>> = (0..HEADER[0].len())
            .map(|at| Ok(HEADER.map(|column| column[at].to_owned())))
            .collect();
        let mut block = None;
        let shown = |line: &&Line| line.strategy != Strategy::Random;
        for line in self.strategies.iter().filter(shown) {
            let own = (line.strategy == Strategy::Always, line.requirement);
            if block != Some(own) && line.strategy != Strategy::Oracle {
                block = Some(own);
                lines.push(Err(self.heading(line)));
            }
            lines.push(Ok(cells(line, scale)));
            if let (Some(quality), Some(cost)) = (line.quality_sd, line.cost_sd) {
                let (quality, cost) = (fixed(quality, 4), scale.show(cost));
                lines.push(Err(format!(
                    "    (the mean of 5 orders; standard deviation {quality}, of the cost {cost})"
                )));
            }
        }
        let mut widths = [0; COLUMNS];
        for cells in lines.iter().flatten() {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for line in lines {
            match line {
                Ok(cells) => text += row(&cells, &widths).trim_end(),
                Err(heading) => text += &heading,
            }
            text.push('\n');
        }
        text
    }

    fn heading(&self, line: &Line) -> String {
        let Some(requirement) = line.requirement else {
            let name = |is_it: fn(&Line) -> bool| {
                let found = self.strategies.iter().find(|line| is_it(line));
                let model = found.and_then(|line| line.model.as_deref());
                cut(model.unwrap_or("-"), MOST_NAME_IN_TEXT)
            };
            let (best, cheapest) = (name(|line| line.is_best), name(|line| line.is_cheapest));
            return format!("always the same (best: {best}, cheapest: {cheapest})");
        };
        let is_beyond =
            |one: &Line| one.requirement == line.requirement && one.is_feasible == Some(false);
        let beyond = match self.strategies.iter().any(is_beyond) {
            true => ", which is beyond reach by the predictions",
            false => "",
        };
        format!("required quality {requirement}{beyond}")
    }

    /// APGR and CPT, calibration.
    fn foot(&self) -> String {
        let number = |one: Option<f64>| one.map_or_else(|| "-".to_owned(), |one| fixed(one, 3));
        let mut text = String::new();
        if let Some(why) = &self.no_apgr_because {
            let _ = writeln!(text, "no APGR: {why}");
        } else {
            let _ = writeln!(
                text,
                "APGR     smart {}  plain kNN {}  difference {}{}",
                number(self.apgr),
                number(self.apgr_plain),
                number(self.apgr_difference),
                self.apgr_difference_interval
                    .map_or_else(String::new, |[low, high]| format!(
                        " (95 %: {} to {})",
                        fixed(low, 3),
                        fixed(high, 3)
                    ))
            );
            for (of, smart, plain) in [
                (50, self.cpt_50, self.cpt_50_plain),
                (80, self.cpt_80, self.cpt_80_plain),
            ] {
                let (smart, plain) = (number(smart), number(plain));
                let _ = writeln!(text, "CPT({of}%) smart {smart}  plain kNN {plain}");
            }
        }
        let _ = writeln!(
            text,
            "calibration error (10 bins)  smart {:.3}  plain kNN {:.3}",
            self.calibration_error, self.calibration_error_plain
        );
        text
    }
}

/// Names stand at the left, numbers at the right.
fn row(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut text = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        text += &match column {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        };
    }
    text
}

fn cells(line: &Line, scale: &Scale) -> [String; COLUMNS] {
    let optional =
        |one: Option<f64>, form: fn(f64) -> String| one.map_or_else(|| "-".to_owned(), form);
    let misses = |quality: f64| line.requirement.is_some_and(|asked| quality < asked - 1e-9);
    let is_average = matches!(
        line.strategy,
        Strategy::SmartAverage | Strategy::SmartAverageInOrder
    );
    let to_dual = match line.predicted_quality {
        Some(predicted) if is_average && misses(predicted + NEAR) => "~".to_owned(),
        Some(_) if is_average => optional(line.cost_ratio_to_dual, |one| fixed(one, 3)),
        _ => "-".to_owned(),
    };
    let mark = if misses(line.quality) { '!' } else { ' ' };
    [
        name(line),
        format!("{}{mark}", fixed(line.quality, 4)),
        scale.show(line.cost),
        format!("{} %", fixed(line.strong_share * 100.0, 1)),
        optional(line.random_quality, |one| fixed(one, 4)),
        optional(line.predicted_quality, |one| fixed(one, 4)),
        optional(line.quality_gap, |one| signed(one, 4)),
        to_dual,
        optional(line.cost_ratio_at_equal_quality, |one| fixed(one, 3)),
    ]
}

fn name(line: &Line) -> String {
    let of = match line.strategy {
        Strategy::Always => {
            let model = line.model.as_deref().unwrap_or("-");
            return format!("  {}", cut(model, MOST_NAME));
        }
        Strategy::Random => "  random",
        Strategy::PlainEach => "  plain kNN, each",
        Strategy::SmartEach => "  smart, each",
        Strategy::SmartAverage => "  smart, average",
        Strategy::SmartAverageInOrder => "  smart, file order",
        Strategy::Dual => "  dual optimum",
        Strategy::Oracle => "oracle",
    };
    of.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smart::eval::report::Model;

    fn line(strategy: Strategy, requirement: Option<f64>, numbers: [f64; 3]) -> Line {
        let [quality, cost, predicted] = numbers;
        Line {
            strategy,
            model: None,
            requirement,
            queries: 10,
            quality,
            cost,
            strong_share: 0.0,
            quality_sd: None,
            cost_sd: None,
            predicted_quality: Some(predicted),
            quality_gap: Some(quality - predicted),
            cost_ratio_to_dual: Some(1.25),
            cost_ratio_at_equal_quality: Some(f64::INFINITY),
            random_quality: Some(0.5),
            is_feasible: None,
            is_best: false,
            is_cheapest: false,
        }
    }

    fn report(costs: [f64; 2]) -> Report {
        let name = "a-house/".to_owned() + &"very-".repeat(40) + "long-name-8b";
        let always = Line {
            model: Some(name.clone()),
            is_best: true,
            ..line(Strategy::Always, None, [0.9, costs[1], 0.9])
        };
        let of = |strategy, numbers| line(strategy, Some(0.705), numbers);
        Report {
            cost_unit: "currency units per query".to_owned(),
            output_tokens: Some("as the lines tell".to_owned()),
            models: vec![Model {
                model: name,
                queries: 10,
                quality: 0.9,
                train_quality: None,
                is_strong: true,
            }],
            strategies: vec![
                always,
                of(Strategy::Random, [0.7, costs[0], 0.7]),
                of(Strategy::SmartEach, [0.71, costs[0], 0.72]),
                Line {
                    quality_sd: Some(0.001),
                    cost_sd: Some(costs[0] / 10.0),
                    ..of(Strategy::SmartAverage, [0.7, costs[0], 0.70499])
                },
                of(Strategy::SmartAverageInOrder, [0.705, costs[0], 0.69]),
                Line {
                    is_feasible: Some(false),
                    ..of(Strategy::Dual, [0.66, costs[0], 0.66])
                },
                line(Strategy::Oracle, None, [1.0, costs[0], 1.0]),
            ],
            ..Report::default()
        }
    }

    #[test]
    fn marks_say_what_a_number_is_worth() {
        let text = report([0.001, 0.02]).text();
        let row = |name: &str| {
            let found = text
                .lines()
                .find(|line| line.trim_start().starts_with(name));
            let found = found.unwrap_or_else(|| panic!("{name}: {text}"));
            found
                .split_whitespace()
                .skip(name.split(' ').count())
                .collect::<Vec<_>>()
        };
        let each = [
            "0.7100", "1.00", "0.0", "%", "0.5000", "0.7200", "-0.0100", "-", "inf",
        ];
        assert_eq!(row("smart, each"), each);
        // Missed, but not by what was predicted.
        let average = [
            "0.7000!", "1.00", "0.0", "%", "0.5000", "0.7050", "-0.0050", "1.250", "inf",
        ];
        assert_eq!(row("smart, average"), average);
        assert_eq!(row("smart, file order")[..2], ["0.7050", "1.00"]);
        assert_eq!(row("smart, file order")[7], "~");
        assert_eq!(row("dual optimum")[..1], ["0.6600!"]);
        assert_eq!(row("dual optimum")[6], "+0.0000");
        assert!(
            text.contains("required quality 0.705, which is beyond reach"),
            "{text}"
        );
        assert!(
            text.contains("standard deviation 0.0010, of the cost 0.10)"),
            "{text}"
        );
        assert!(
            text.contains("cost: currency units per 1,000 queries"),
            "{text}"
        );
        assert!(
            !text.contains("\n  random") && !text.contains("-0.0 "),
            "{text}"
        );
    }

    #[test]
    fn every_cost_can_be_read_and_no_line_is_too_wide() {
        let cases = [
            ([0.0, 0.0], "0.00", "per query"),
            ([0.1, 0.2], "100.00", "per 1,000 queries"),
            ([2e-9, 4e-8], "2.00", "per 1,000,000,000 queries"),
            ([2e-15, 4e-14], "2.00e-6", "per 1,000,000,000 queries"),
            ([0.000_012, 70.0], "1.20e-5", "per query"),
            ([5e12, 9e12], "5.00e12", "per query"),
        ];
        for (costs, shown, per) in cases {
            let text = report(costs).text();
            let each = text.lines().find(|line| line.contains("smart, each"));
            let cells: Vec<&str> = each.unwrap_or("").split_whitespace().collect();
            assert_eq!(cells.get(3), Some(&shown), "{text}");
            assert!(text.contains(&format!("currency units {per}\n")), "{text}");
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(110), "{text}");
        }
        assert_eq!(cut("claude-large-2024-10", 12), "claud..24-10");
        assert_eq!(cut("zwölf-zeichn", 12), "zwölf-zeichn");
        assert_eq!(
            (fixed(-0.000_04, 3), fixed(-0.4, 0)),
            ("0.000".into(), "0".into())
        );
    }
}
