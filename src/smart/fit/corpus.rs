//! The rows of a fit as numbers: what their texts are made of, and what came of
//! them.

use std::sync::Arc;

use crate::smart::embed::{BUCKETS, Embedder, FIXED, Features, Reader, SHAPE, mix, to_one};
use crate::smart::history::{MOST_MODELS, Row};

/// Words and pairs that are held at most, 36 MB; older rows are then not trained
/// on. (Enough for 60,000 questions of a hundred words.)
const MOST_FEATURES: usize = 6_000_000;
/// The same times models, in a fit of at most half a minute on one core.
const MOST_WORK: usize = 96_000_000;
/// Parts of the rows, each predicted from the others.
pub(super) const FOLDS: u8 = 4;

/// Texts of a fit, oldest first.
#[derive(Debug, Default)]
pub(super) struct Corpus {
    ends: Vec<usize>,
    buckets: Vec<u16>,
    values: Vec<f32>,
    fixed: Vec<[f32; FIXED]>,
    /// Hashes of the texts.
    texts: Vec<u64>,
}

/// Figures of rows: for each row the models' and theirs.
#[derive(Debug, Default)]
pub(super) struct Figures {
    ends: Vec<usize>,
    /// The model's place, and its figure.
    pub(super) all: Vec<(u8, f32)>,
}

impl Figures {
    /// Where the figures of a row stand in [`Self::all`].
    pub(super) fn of(&self, row: usize) -> std::ops::Range<usize> {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        from..self.ends[row]
    }

    pub(super) fn end_row(&mut self) {
        self.ends.push(self.all.len());
    }
}

impl Corpus {
    /// Reads the newest rows, as many as are trained on; the words' weights and the
    /// shape's means follow from them. The embedder has no basis yet.
    pub(super) fn read(rows: &[Row], models: usize) -> (Self, Embedder) {
        let mut reader = Reader::default();
        let most = MOST_FEATURES.min(MOST_WORK / models.max(1));
        let mut taken = 0;
        let mut room = most;
        for row in rows.iter().rev() {
            reader.read(&row.query);
            match room.checked_sub(reader.met().len()) {
                Some(left) => room = left,
                None => break,
            }
            taken += 1;
        }
        let rows = &rows[rows.len() - taken..];
        let mut corpus = Self::default();
        corpus.buckets.reserve_exact(most - room);
        corpus.values.reserve_exact(most - room);
        let mut shapes = Vec::with_capacity(rows.len());
        for row in rows {
            shapes.push(reader.read(&row.query));
            let counts = reader.met().iter().map(|bucket| reader.count(*bucket));
            corpus.values.extend(counts.map(f32::from));
            corpus.buckets.extend_from_slice(reader.met());
            corpus.ends.push(corpus.buckets.len());
            corpus.texts.push(hash(&row.query));
        }
        let embedder = Embedder {
            idf: corpus.idf(),
            shape: means(&shapes),
            basis: Box::default(),
        };
        corpus.weigh(&embedder, &shapes);
        (corpus, embedder)
    }

    pub(super) fn rows(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn row(&self, row: usize) -> Features<'_> {
        let range = self.range(row);
        Features {
            buckets: &self.buckets[range.clone()],
            values: &self.values[range],
            fixed: &self.fixed[row],
        }
    }

    /// Which part a row belongs to: the same for the same text.
    #[expect(clippy::cast_possible_truncation, reason = "a few folds")]
    pub(super) fn fold(&self, row: usize) -> u8 {
        (self.texts[row] % u64::from(FOLDS)) as u8
    }

    /// Which rows have the same text, counted from the first of those before.
    pub(super) fn twins(&self, before: &[Row]) -> Twins {
        let before = before.iter().map(|row| hash(&row.query));
        let texts: Vec<u64> = before.chain(self.texts.iter().copied()).collect();
        let mut sorted: Vec<(u64, usize)> = texts.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        Twins { texts, sorted }
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        from..self.ends[row]
    }

    #[expect(clippy::cast_precision_loss, reason = "rows, less than 2^24")]
    fn idf(&self) -> Box<[f32]> {
        let mut rows_with = vec![0_u32; BUCKETS];
        for bucket in &self.buckets {
            rows_with[usize::from(*bucket)] += 1;
        }
        let rows = self.ends.len() as f32;
        let idf = |with: u32| ((1.0 + rows) / (1.0 + with as f32)).ln() + 1.0;
        rows_with.into_iter().map(idf).collect()
    }

    /// From counts to weights.
    fn weigh(&mut self, embedder: &Embedder, shapes: &[[f32; SHAPE]]) {
        for (bucket, value) in self.buckets.iter().zip(&mut self.values) {
            #[expect(clippy::cast_possible_truncation, reason = "it was an u8")]
            #[expect(clippy::cast_sign_loss, reason = "it was an u8")]
            let count = *value as u8;
            *value = embedder.weight(*bucket, count);
        }
        for row in 0..self.rows() {
            let range = self.range(row);
            to_one(&mut self.values[range]);
        }
        self.fixed = shapes.iter().map(|shape| embedder.fixed(shape)).collect();
    }
}

fn hash(query: &str) -> u64 {
    let bytes = query.bytes();
    bytes.fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// Which rows have the same text.
#[derive(Debug)]
pub(super) struct Twins {
    texts: Vec<u64>,
    /// Texts and their rows.
    sorted: Vec<(u64, usize)>,
}

impl Twins {
    /// A row, and those that have the same text.
    pub(super) fn of(&self, row: usize) -> impl Iterator<Item = usize> {
        let text = self.texts[row];
        let from = self.sorted.partition_point(|one| one.0 < text);
        let same = self.sorted[from..].iter();
        same.take_while(move |one| one.0 == text).map(|one| one.1)
    }
}

/// The mean and 1 over the deviation of each number of the shape.
#[expect(clippy::cast_precision_loss, reason = "rows, less than 2^24")]
#[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
fn means(shapes: &[[f32; SHAPE]]) -> [[f32; 2]; SHAPE] {
    std::array::from_fn(|at| {
        let rows = shapes.len().max(1) as f64;
        let numbers = || shapes.iter().map(|shape| f64::from(shape[at]));
        let mean = numbers().sum::<f64>() / rows;
        let variance = numbers().map(|one| (one - mean).powi(2)).sum::<f64>() / rows;
        let scale = if variance > 1e-9 {
            variance.sqrt().recip()
        } else {
            0.0
        };
        [mean as f32, scale as f32]
    })
}

/// The models that rows tell of, in order of appearance.
pub(in crate::smart) fn models(rows: &[Row]) -> Vec<Arc<str>> {
    let mut models: Vec<Arc<str>> = Vec::new();
    for output in rows.iter().flat_map(|row| &row.outputs) {
        if models.len() == MOST_MODELS {
            break;
        }
        if models.iter().all(|known| **known != *output.model) {
            models.push(Arc::clone(&output.model));
        }
    }
    models
}
