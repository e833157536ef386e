//! `pilotfish smart eval`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};

use anyhow::Context as _;
use clap::Args;

use super::{print, with_bar};
use crate::smart::eval::{Options, Price, run, size};
use crate::smart::history::{self, Read};

/// Flags of `pilotfish smart eval`.
#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// JSON lines of query, outputs (model_name, correctness,
    /// output_token_length), optional input_token_length and split (train or
    /// test); - is the standard input. Without any split: folds. At most 100,000 lines are
    /// held; one of 600 bytes takes about 4 KB of memory.
    #[arg(value_name = "DATA")]
    data: String,
    /// Learn from so many lines, drawn by chance [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    train_rows: Option<u32>,
    /// Folds where no line has a split.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=100))]
    folds: u16,
    /// Where all random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A quality to ask for, 0 to 1; may be given several times, or separated
    /// by commas.
    #[arg(long, value_name = "QUALITY", value_delimiter = ',', default_values_t = [0.7, 0.75, 0.8], value_parser = quality)]
    requirement: Vec<f64>,
    /// What a token of the prompt and one of the answer cost: for all models, or
    /// for none of two (then a call to the strong one costs 1, to the other 0).
    #[arg(long, value_name = "MODEL=IN:OUT", value_parser = price)]
    price: Vec<(String, Price)>,
    /// JSON instead of a table; all its costs are per query.
    #[arg(long)]
    json: bool,
}

fn quality(text: &str) -> Result<f64, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (0.0..=1.0).contains(number));
    // The sum makes 0 of -0.
    let number = number.map(|number: f64| number + 0.0);
    number.ok_or_else(|| "a quality is from 0 to 1: 0.7, say".to_owned())
}

fn price(text: &str) -> Result<(String, Price), String> {
    let read = || {
        // A model's name may have anything but the last sign of each.
        let (model, both) = text.rsplit_once('=')?;
        let (input, output) = both.split_once(':')?;
        let number = |text: &str| {
            let number: f64 = text.trim().parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number)
        };
        let price = Price {
            input: number(input)?,
            output: number(output)?,
        };
        (!model.is_empty()).then(|| (model.to_owned(), price))
    };
    read().ok_or_else(|| "it is MODEL=IN:OUT, per token: gpt-4o=2.5e-6:1e-5, say".to_owned())
}

impl EvalArgs {
    /// Evaluates, and prints the table.
    ///
    /// # Errors
    /// A file that cannot be read, or that allows no comparison.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let read = self.read()?;
        let options = Options {
            train_rows: self
                .train_rows
                .map(|rows| usize::try_from(rows).unwrap_or(usize::MAX)),
            folds: usize::from(self.folds),
            seed: self.seed,
            requirements: self.requirement.clone(),
            prices: self.price.clone(),
        };
        let mut warnings = warnings(&read);
        let all = size(&read.rows, &options);
        let evaluate = |all| with_bar(all, "queries", |done| run(&read.rows, &options, done));
        let mut report = all.and_then(evaluate).with_context(|| {
            // What was left out is often why.
            warnings
                .iter()
                .fold(self.data.clone(), |text, warning| text + "; " + warning)
        })?;
        warnings.append(&mut report.warnings);
        report.warnings = warnings;
        if self.json {
            return print(&(serde_json::to_string_pretty(&report)? + "\n"));
        }
        for warning in &report.warnings {
            writeln!(std::io::stderr(), "warning: {warning}")?;
        }
        print(&report.text())
    }

    fn read(&self) -> anyhow::Result<Read> {
        let from: Box<dyn BufRead> = if self.data == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            let file = File::open(&self.data);
            Box::new(BufReader::new(
                file.with_context(|| format!("cannot read {}", self.data))?,
            ))
        };
        history::read(from).with_context(|| format!("cannot read {}", self.data))
    }
}

/// What of the file was not used.
fn warnings(read: &Read) -> Vec<String> {
    let mut all = Vec::new();
    if read.skipped.count > 0 {
        let told = read
            .skipped
            .first
            .iter()
            .map(|(line, why)| format!("line {line} {why}"));
        let told: Vec<String> = told.take(3).collect();
        let count = read.skipped.count;
        all.push(format!("lines left out: {count} ({})", told.join("; ")));
    }
    if read.older > 0 {
        let most = history::MOST_ROWS;
        all.push(format!(
            "the first {} lines are left out: {most} are the most",
            read.older
        ));
    }
    if !read.further.is_empty() {
        let names = read.further.join(", ");
        let most = history::MOST_MODELS;
        all.push(format!("more than {most} models; passed over: {names}"));
    }
    all
}
