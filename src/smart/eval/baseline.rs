//! What is compared with: the plain port of the published method. TF-IDF over
//! words and pairs of words, the sixteen nearest queries by cosine, the mean of
//! what each model made of them; no weights, no prior, no calibration. A model that none of them tells
//! of fails, for nothing.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::smart::history::Row;

/// Neighbours that are asked, as the published code does.
const NEIGHBOURS: usize = 16;

/// What a model would make of a query.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Guess {
    /// The share of right answers.
    pub quality: f64,
    /// Tokens of the answer.
    pub tokens: f64,
}

/// A history, by its words.
pub struct Plain<'a> {
    rows: &'a [Row],
    models: &'a [Arc<str>],
    words: HashMap<String, usize, FixedState>,
    /// For each word: how much it says, and the rows that have it, with its
    /// share of the row.
    postings: Vec<(f32, Vec<(u32, f32)>)>,
    /// Of the last query: each row's similarity.
    near: Vec<f32>,
}

impl<'a> Plain<'a> {
    /// Of those rows, for those models.
    #[must_use]
    pub fn fit(rows: &'a [Row], models: &'a [Arc<str>]) -> Self {
        let mut words: HashMap<String, usize, FixedState> = HashMap::default();
        let mut counts: Vec<Vec<(u32, f32)>> = Vec::new();
        for (row, number) in rows.iter().zip(0_u32..) {
            for word in split(&row.query) {
                let at = *words.entry(word).or_insert(counts.len());
                if at == counts.len() {
                    counts.push(Vec::new());
                }
                match counts[at].last_mut() {
                    Some((same, count)) if *same == number => *count += 1.0,
                    _ => counts[at].push((number, 1.0)),
                }
            }
        }
        let mut postings: Vec<_> = (counts.into_iter())
            .map(|list| (weight(rows.len(), list.len()), list))
            .collect();
        let mut norms = vec![0.0_f32; rows.len()];
        for (weight, list) in &mut postings {
            for (row, count) in list {
                *count *= *weight;
                norms[*row as usize] += *count * *count;
            }
        }
        for (row, share) in postings.iter_mut().flat_map(|(_, list)| list) {
            *share /= norms[*row as usize].sqrt();
        }
        Self {
            rows,
            models,
            words,
            postings,
            near: Vec::new(),
        }
    }

    /// One guess for each model.
    pub fn predict(&mut self, query: &str) -> Vec<Guess> {
        self.measure(query);
        let mut nearest: Vec<usize> = Vec::with_capacity(NEIGHBOURS + 1);
        for (row, near) in self.near.iter().enumerate() {
            let is_far = |other: &usize| self.near[*other] >= *near;
            if nearest.len() == NEIGHBOURS && nearest.last().is_some_and(is_far) {
                continue;
            }
            let at = nearest.partition_point(is_far);
            nearest.insert(at, row);
            nearest.truncate(NEIGHBOURS);
        }
        let guess = |model: &Arc<str>| {
            let rows = nearest.iter().map(|row| &self.rows[*row]);
            let outputs = || {
                let outputs = rows.clone().flat_map(|row| &row.outputs);
                outputs.filter(|output| output.model == *model)
            };
            Guess {
                quality: mean(outputs().filter_map(|one| one.score.map(f64::from))),
                tokens: mean(outputs().filter_map(|one| one.tokens.map(f64::from))),
            }
        };
        self.models.iter().map(guess).collect()
    }

    fn measure(&mut self, query: &str) {
        self.near.clear();
        self.near.resize(self.rows.len(), 0.0);
        let mut known: Vec<usize> = split(query)
            .filter_map(|word| self.words.get(&word).copied())
            .collect();
        known.sort_unstable();
        for same in known.chunk_by(|a, b| a == b) {
            let (weight, list) = &self.postings[same[0]];
            // The query's own length changes no order.
            let weight = weight * same.len() as f32;
            for (row, share) in list {
                self.near[*row as usize] += weight * share;
            }
        }
    }
}

fn mean(all: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = all.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The smoothed inverse document frequency, as is usual.
fn weight(rows: usize, with: usize) -> f32 {
    ((1 + rows) as f32 / (1 + with) as f32).ln() + 1.0
}

/// Words of two characters at least, in small letters, and pairs of them.
fn split(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let long = words.filter(|word| word.chars().nth(1).is_some());
    let mut before: Option<String> = None;
    long.flat_map(move |word| {
        let word = word.to_lowercase();
        let pair = before
            .replace(word.clone())
            .map(|before| before + " " + &word);
        std::iter::once(word).chain(pair)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smart::history::Output;

    fn row(query: &str, score: f32) -> Row {
        let output = |model: &str, score| Output {
            model: model.into(),
            score,
            tokens: Some(10),
        };
        Row {
            query: query.to_owned(),
            input_tokens: None,
            outputs: vec![output("a", Some(score)), output("b", None)],
            split: None,
        }
    }

    #[test]
    fn the_nearest_sixteen_decide() {
        let mut rows: Vec<Row> = (0..16).map(|_| row("sum of the squares", 1.0)).collect();
        rows.extend((0..40).map(|_| row("a poem about the sea", 0.0)));
        let models: Vec<Arc<str>> = vec!["a".into(), "b".into(), "c".into()];
        let mut plain = Plain::fit(&rows, &models);
        let squares = plain.predict("the SQUARES, and their sum");
        assert_eq!(
            squares[0],
            Guess {
                quality: 1.0,
                tokens: 10.0
            }
        );
        assert_eq!(
            squares[1],
            Guess {
                quality: 0.0,
                tokens: 10.0
            }
        );
        assert_eq!(squares[2], Guess::default());
        assert_eq!(plain.predict("a poem")[0].quality, 0.0);
        // No word in common: the first rows, as good as any.
        assert_eq!(plain.predict("")[0].quality, 1.0);
        assert_eq!(Plain::fit(&[], &models).predict("sum")[0], Guess::default());
    }
}
