//! What a history tells of its models, in columns.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::smart::history::Row;

/// A sum, and of how many.
#[derive(Debug, Default)]
struct Sum(f64, u32);

impl Sum {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.0 += value;
            self.1 += 1;
        }
    }

    fn mean(&self, digits: usize) -> String {
        match self.1 {
            0 => "-".to_owned(),
            count => format!("{:.digits$}", self.0 / f64::from(count)),
        }
    }
}

#[derive(Debug, Default)]
struct Model {
    rows: usize,
    score: Sum,
    tokens: Sum,
}

/// A line for each model, those with most rows first; "-": nothing is known.
pub(super) fn models(rows: &[Row]) -> String {
    let mut models: BTreeMap<&str, Model> = BTreeMap::new();
    for output in rows.iter().flat_map(|row| &row.outputs) {
        let model = models.entry(&output.model).or_default();
        model.rows += 1;
        model.score.add(output.score.map(f64::from));
        model.tokens.add(output.tokens.map(f64::from));
    }
    let mut models: Vec<_> = models.into_iter().collect();
    models.sort_by_key(|(_, model)| std::cmp::Reverse(model.rows));
    let names = models.iter().map(|(name, _)| name.chars().count());
    let width = names.max().unwrap_or(0).max("model".len());
    let mut text = String::new();
    // A string takes everything.
    let _ = writeln!(
        text,
        "{:width$} {:>8} {:>11} {:>12}",
        "model", "rows", "mean score", "mean tokens"
    );
    for (name, model) in models {
        let (score, tokens) = (model.score.mean(3), model.tokens.mean(1));
        let rows = model.rows;
        let _ = writeln!(text, "{name:width$} {rows:>8} {score:>11} {tokens:>12}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smart::history::Output;

    #[test]
    fn a_line_for_each_model() {
        let output = |model: &str, score, tokens| Output {
            model: model.into(),
            score,
            tokens,
        };
        let row = |outputs| Row {
            query: String::new(),
            input_tokens: None,
            outputs,
            split: None,
        };
        let rows = [
            row(vec![output("small", Some(1.0), Some(10))]),
            row(vec![
                output("small", Some(0.5), None),
                output("a-larger-one", None, Some(7)),
            ]),
        ];
        let lines = [
            "model            rows  mean score  mean tokens",
            "small               2       0.750         10.0",
            "a-larger-one        1           -          7.0",
        ];
        assert_eq!(models(&rows).lines().collect::<Vec<_>>(), lines);
        assert_eq!(models(&[]).lines().count(), 1);
    }
}
