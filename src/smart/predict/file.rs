//! A predictor as a file: a head that names the form, the body, and a hash of it.
//!
//! Whatever is wrong with a file is found before anything is believed: the hash
//! first, then each count and number against what it may be.

use std::io::{self, Write};
use std::sync::Arc;

use super::{FitSummary, Means, Predictor, Remembered};
use crate::smart::embed::{BUCKETS, DIMENSIONS, DIRECTIONS, Embedder, FIXED, SHAPE};
use crate::smart::fit::{Fitted, Linear, REMEMBERED};
use crate::smart::history::{MOST_MODELS, MOST_NAME, MOST_ROWS};
use crate::smart::index::{Index, Outcome};

/// What a file begins with; the last digits are the form's version. Another number
/// of buckets, or another way to hash words, is another version.
const HEAD: &[u8; 16] = b"pilotfish-pred02";
/// No number of a fit is near it; sums of them stay finite.
const MOST_NUMBER: f32 = 1e6;
/// Bytes of a summary.
const MOST_SUMMARY: usize = 1 << 20;

/// Why a file is no predictor. It is made anew from the history.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PredictorError {
    /// It begins differently.
    #[error(
        "it is no predictor of this version: it does not begin with {head:?}; fit again",
        head = "pilotfish-pred02"
    )]
    Foreign,
    /// It is shorter than it says.
    #[error("it ends at byte {0}, within {1}; fit again")]
    Short(usize, &'static str),
    /// Its hash is not that of its body.
    #[error("its checksum is wrong: the file is damaged; fit again")]
    Damaged,
    /// A number is not what it may be.
    #[error("{0} is out of its bounds; fit again")]
    Bounds(&'static str),
}

impl Predictor {
    /// Writes it.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(HEAD)?;
        let mut out = Out { to, hash: START };
        out.count(self.fitted_rows)?;
        out.count(self.rows)?;
        out.count(self.models.len())?;
        for (model, means) in self.models.iter().zip(&self.means) {
            out.count(model.len())?;
            out.bytes(model.as_bytes())?;
            let sums = means.scores.iter().chain(&means.tokens);
            sums.copied()
                .try_for_each(|sum| out.bytes(&sum.to_le_bytes()))?;
            out.floats(&means.latest_quality)?;
            out.floats(&means.latest_length)?;
        }
        out.count(usize::from(self.fitted.is_some()))?;
        if let Some(fitted) = &self.fitted {
            out.fitted(fitted)?;
        }
        out.count(self.index.rows())?;
        for row in 0..self.index.rows() {
            let (vector, outcomes) = self.index.row(row);
            let mut bytes = [0; DIMENSIONS * 2];
            for (two, number) in bytes.chunks_exact_mut(2).zip(vector) {
                two.copy_from_slice(&number.to_le_bytes());
            }
            out.bytes(&bytes)?;
            out.count(outcomes.len())?;
            outcomes
                .iter()
                .try_for_each(|one| out.bytes(&one.bytes()))?;
        }
        let hash = out.hash;
        to.write_all(&hash.to_le_bytes())
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, PredictorError> {
        let body = bytes.strip_prefix(HEAD).ok_or(PredictorError::Foreign)?;
        let (body, hash) = body
            .split_last_chunk::<8>()
            .ok_or(PredictorError::Short(bytes.len(), "the checksum"))?;
        if hash_on(START, body) != u64::from_le_bytes(*hash) {
            return Err(PredictorError::Damaged);
        }
        let mut from = In { body, at: 0 };
        let predictor = from.predictor()?;
        if from.at != body.len() {
            return Err(PredictorError::Bounds("the length"));
        }
        Ok(predictor)
    }
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: 36 MB take 50 ms.
fn hash_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Writes and hashes.
struct Out<'a, W> {
    to: &'a mut W,
    hash: u64,
}

impl<W: Write> Out<'_, W> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash = hash_on(self.hash, bytes);
        self.to.write_all(bytes)
    }

    fn count(&mut self, count: usize) -> io::Result<()> {
        self.bytes(&(count as u64).to_le_bytes())
    }

    fn floats(&mut self, floats: &[f32]) -> io::Result<()> {
        floats
            .iter()
            .try_for_each(|one| self.bytes(&one.to_le_bytes()))
    }

    fn linear(&mut self, linear: &Linear) -> io::Result<()> {
        self.floats(&linear.base)?;
        self.floats(&linear.weights)
    }

    fn fitted(&mut self, fitted: &Fitted) -> io::Result<()> {
        let embedder = &fitted.embedder;
        self.floats(&embedder.idf)?;
        self.floats(embedder.shape.as_flattened())?;
        self.floats(embedder.basis.as_flattened())?;
        self.count(fitted.calibration.len())?;
        self.floats(fitted.calibration.as_flattened())?;
        self.linear(&fitted.quality)?;
        self.count(usize::from(fitted.length.is_some()))?;
        if let Some(length) = &fitted.length {
            self.linear(length)?;
        }
        self.floats(&[fitted.quality_prior, fitted.length_prior])?;
        self.count(fitted.remembered.len())?;
        for row in &fitted.remembered {
            self.floats(&[row.input_tokens])?;
            // What is not known is less than nothing.
            let models = row.models.iter().map(|one| one.unwrap_or([-1.0; 2]));
            self.floats(models.collect::<Vec<_>>().as_flattened())?;
        }
        let summary = serde_json::to_vec(&fitted.summary)?;
        self.count(summary.len())?;
        self.bytes(&summary)
    }
}

/// Reads, and believes nothing.
struct In<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], PredictorError> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.body.get(self.at..end));
        let bytes = bytes.ok_or(PredictorError::Short(HEAD.len() + self.body.len(), what))?;
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], PredictorError> {
        let bytes = self.bytes(N, what)?.first_chunk::<N>();
        bytes.copied().ok_or(PredictorError::Bounds(what))
    }

    fn count(&mut self, most: usize, what: &'static str) -> Result<usize, PredictorError> {
        let count = u64::from_le_bytes(self.array(what)?);
        let count = usize::try_from(count).ok().filter(|count| *count <= most);
        count.ok_or(PredictorError::Bounds(what))
    }

    fn floats(&mut self, count: usize, what: &'static str) -> Result<Vec<f32>, PredictorError> {
        let bytes = self.bytes(count * 4, what)?.as_chunks::<4>().0;
        let floats: Vec<f32> = bytes.iter().map(|one| f32::from_le_bytes(*one)).collect();
        let are_sound = floats.iter().all(|one| one.abs() <= MOST_NUMBER);
        are_sound
            .then_some(floats)
            .ok_or(PredictorError::Bounds(what))
    }

    fn few<const N: usize>(&mut self, what: &'static str) -> Result<[f32; N], PredictorError> {
        let floats = self.floats(N, what)?;
        Ok(std::array::from_fn(|at| floats[at]))
    }

    /// A sum that may be negative, and how many it is of; and what belongs to it.
    fn latest<const N: usize>(&mut self, what: &'static str) -> Result<[f32; N], PredictorError> {
        let sums = self.few(what)?;
        let has_count = sums[1] >= 0.0;
        has_count
            .then_some(sums)
            .ok_or(PredictorError::Bounds(what))
    }

    /// A sum and how many it is of.
    fn sum(&mut self, what: &'static str) -> Result<[f64; 2], PredictorError> {
        let sum = f64::from_le_bytes(self.array(what)?);
        let count = f64::from_le_bytes(self.array(what)?);
        let is_sum = |one: f64| (0.0..=1e18).contains(&one);
        let pair = is_sum(sum) && is_sum(count) && (count >= 1.0 || sum == 0.0);
        pair.then_some([sum, count])
            .ok_or(PredictorError::Bounds(what))
    }

    fn predictor(&mut self) -> Result<Predictor, PredictorError> {
        let fitted_rows = self.count(MOST_ROWS, "the rows of the fit")?;
        let rows = self.count(MOST_ROWS, "the number of rows")?;
        let models = self.count(MOST_MODELS, "the number of models")?;
        let mut predictor = Predictor {
            fitted_rows,
            rows,
            ..Predictor::default()
        };
        for _ in 0..models {
            let length = self.count(MOST_NAME, "a model's name")?;
            let name = self.bytes(length, "a model's name")?;
            let name = std::str::from_utf8(name);
            let name = name.map_err(|_| PredictorError::Bounds("a model's name"))?;
            predictor.models.push(Arc::from(name));
            predictor.means.push(Means {
                scores: self.sum("a model's scores")?,
                tokens: self.sum("a model's tokens")?,
                latest_quality: self.latest("a model's latest scores")?,
                latest_length: self.latest("a model's latest lengths")?,
            });
        }
        if self.count(1, "whether it was fitted")? == 1 {
            predictor.fitted = Some(Arc::new(self.fitted(models)?));
        }
        predictor.index = self.index(models, rows)?;
        Ok(predictor)
    }

    fn linear(&mut self, models: usize) -> Result<Linear, PredictorError> {
        let width = models + 1;
        Ok(Linear {
            base: self.floats(width, "a linear model")?,
            weights: self
                .floats((BUCKETS + FIXED) * width, "a linear model")?
                .into(),
        })
    }

    fn fitted(&mut self, models: usize) -> Result<Fitted, PredictorError> {
        let idf = self.floats(BUCKETS, "the words' weights")?.into();
        let mut shape = [[0.0; 2]; SHAPE];
        let numbers = self.floats(SHAPE * 2, "the shape's means")?;
        shape.as_flattened_mut().copy_from_slice(&numbers);
        let basis = self.floats(BUCKETS * DIRECTIONS, "the directions")?;
        let basis = basis.as_chunks::<DIRECTIONS>().0.into();
        let models = self.count(models, "the models of the fit")?;
        let calibration = self.floats(models * 2, "the calibration")?;
        let quality = self.linear(models)?;
        let has_length = self.count(1, "whether it tells lengths")? == 1;
        let length = has_length.then(|| self.linear(models)).transpose()?;
        let [quality_prior, length_prior] = self.few("the prior weights")?;
        if quality_prior <= 0.0 || length_prior <= 0.0 {
            return Err(PredictorError::Bounds("the prior weights"));
        }
        let remembered = self.remembered(models)?;
        let bytes = self.count(MOST_SUMMARY, "the summary")?;
        let summary = self.bytes(bytes, "the summary")?;
        let summary: Result<FitSummary, _> = serde_json::from_slice(summary);
        Ok(Fitted {
            embedder: Embedder { idf, shape, basis },
            quality,
            length,
            quality_prior,
            length_prior,
            calibration: calibration.as_chunks::<2>().0.to_vec(),
            remembered,
            summary: summary.map_err(|_| PredictorError::Bounds("the summary"))?,
        })
    }

    fn remembered(&mut self, models: usize) -> Result<Vec<Remembered>, PredictorError> {
        let what = "a remembered row";
        let rows = self.count(REMEMBERED, "the remembered rows")?;
        let row = |from: &mut Self| {
            let input_tokens = from.floats(1, what)?[0];
            let numbers = from.floats(models * 2, what)?;
            let model = |two: &[f32; 2]| (two[0] >= 0.0).then_some(*two);
            let is_sound = |two: &[f32; 2]| two[0] <= 1.0 && (two[0] < 0.0 || two[1] >= 0.0);
            let numbers = numbers.as_chunks::<2>().0;
            if input_tokens < 0.0 || !numbers.iter().all(is_sound) {
                return Err(PredictorError::Bounds(what));
            }
            Ok(Remembered {
                input_tokens,
                models: numbers.iter().map(model).collect(),
            })
        };
        (0..rows).map(|_| row(self)).collect()
    }

    fn index(&mut self, models: usize, most: usize) -> Result<Index, PredictorError> {
        let rows = self.count(most, "the number of rows that teach")?;
        let mut index = Index::default();
        let mut outcomes = Vec::new();
        for _ in 0..rows {
            let bytes: [u8; DIMENSIONS * 2] = self.array("a vector")?;
            let mut vector = [0; DIMENSIONS];
            for (number, two) in vector.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *number = i16::from_le_bytes(*two);
            }
            outcomes.clear();
            for _ in 0..self.count(MOST_MODELS, "the outcomes of a row")? {
                outcomes.push(Outcome::of_bytes(self.array("an outcome")?));
            }
            let are_known = outcomes.iter().all(|one| usize::from(one.model) < models);
            if !are_known || !Index::may_hold(&vector) {
                return Err(PredictorError::Bounds("a row"));
            }
            index.push(vector, &outcomes);
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::smart::history::{Output, Row};
    use crate::smart::predict::Scratch;

    fn bytes(predictor: &Predictor) -> Vec<u8> {
        let mut bytes = Vec::new();
        predictor.write(&mut bytes).unwrap();
        bytes
    }

    fn predictor() -> Predictor {
        let row = |at: u16| Row {
            query: format!("question {at} about {}", at % 5),
            input_tokens: None,
            outputs: vec![Output {
                model: Arc::from("a model"),
                score: Some(f32::from(at % 2)),
                tokens: Some(u32::from(at)),
            }],
            split: None,
        };
        let rows: Vec<Row> = (0..60).map(row).collect();
        Predictor::fit(rows[..40].to_vec(), &mut |_| {}).with(&rows[40..])
    }

    /// A body with its right hash, as if by somebody who knows how.
    fn signed(body: &[u8]) -> Vec<u8> {
        let hash = hash_on(START, body).to_le_bytes();
        [HEAD, body, &hash].concat()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for written in [
            predictor(),
            Predictor::empty(),
            Predictor::empty().with(&[]),
        ] {
            let read = Predictor::read(&bytes(&written)).unwrap();
            assert!(bytes(&read) == bytes(&written));
            assert_eq!(read.rows(), written.rows());
            assert_eq!(read.fitted_rows(), written.fitted_rows());
            assert_eq!(read.models(), written.models());
            let (mut one, mut other) = (Scratch::new(), Scratch::new());
            written.predict(Some("question 7 about 2"), &mut one);
            read.predict(Some("question 7 about 2"), &mut other);
            assert_eq!(one.predictions(), other.predictions());
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let whole = bytes(&predictor());
        let read = |bytes: &[u8]| Predictor::read(bytes).unwrap_err();
        assert_eq!(read(b""), PredictorError::Foreign);
        assert_eq!(read(b"pilotfish-pred99 and more"), PredictorError::Foreign);
        assert!(matches!(read(HEAD), PredictorError::Short(16, _)));
        assert_eq!(read(&whole[..whole.len() - 1]), PredictorError::Damaged);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 16;
        assert_eq!(read(&flipped), PredictorError::Damaged);
        let body = &whole[HEAD.len()..whole.len() - 8];
        assert!(Predictor::read(&signed(body)).is_ok());
        let longer = signed(&[body, &[0]].concat());
        assert_eq!(read(&longer), PredictorError::Bounds("the length"));
        let shorter = signed(&body[..body.len() - 3]);
        assert!(matches!(
            read(&shorter),
            PredictorError::Short(_, "an outcome")
        ));
        assert!(read(&shorter).to_string().contains("fit again"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Garbage, even with the right hash, is an error or a sound predictor.
        #[test]
        fn nothing_makes_it_panic(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            new in any::<[u8; 8]>(),
        ) {
            let _ = Predictor::read(&body);
            let _ = Predictor::read(&signed(&body));
            let mut whole = SMALL.with(Clone::clone);
            // The tables are large: what is between them is hit half of the time.
            let end = if new[0] % 2 == 0 { whole.len() } else { 200 };
            let at = at.index(end - 8);
            whole[at..at + 8].copy_from_slice(&new);
            if let Ok(predictor) = Predictor::read(&signed(&whole)) {
                let mut scratch = Scratch::new();
                predictor.predict(Some("question 7 about 2"), &mut scratch);
                prop_assert!(scratch.predictions().iter().all(|one| !one.quality.is_nan()));
            }
        }
    }

    thread_local! {
        static SMALL: Vec<u8> = {
            let whole = bytes(&predictor());
            whole[HEAD.len()..whole.len() - 8].to_vec()
        };
    }
}
