//! From a text to numbers: features for the linear model, a short vector for the
//! search of similar queries.
//!
//! Features are the text's words and pairs of words, weighted by TF-IDF and of
//! length 1 together, and its shape, each number against its own mean and
//! deviation. The vector is the words' part projected on the 53 directions in
//! which the history varies most (latent semantic analysis), then the shape.
//! Nothing is downloaded: all of it is learned from the history.

mod words;

pub(super) use words::{BUCKETS, Reader, SHAPE, mix};

/// Dimensions of the words' part of a vector.
pub(super) const DIRECTIONS: usize = 53;
/// Dimensions of a vector: two cache lines.
pub(super) const DIMENSIONS: usize = 64;
/// The shape's features, and one that is always there.
pub(super) const FIXED: usize = SHAPE + 1;
/// How much a deviation of the shape counts beside the words, whose length is 1.
/// (MMLU and GSM8K: 0.1 to 0.2 are as good, 0.03 and 0.4 are not.)
const SHAPE_WEIGHT: f32 = 0.12;
/// Deviations of the shape that count at most.
const MOST_DEVIATION: f32 = 3.0;
/// The feature that is always there.
const ALWAYS: f32 = 0.5;
/// What stands for 1 in a vector: a product of two is 2^28.
const ONE: f32 = 16384.0;

/// A vector: of length [`ONE`], or nothing but zeros.
pub(super) type Vector = [i16; DIMENSIONS];
/// The vector of what has no text: like nothing.
pub(super) const NOTHING: Vector = [0; DIMENSIONS];

/// What a text is made of, weighted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Features<'a> {
    /// Which buckets.
    pub(super) buckets: &'a [u16],
    /// The weight of each.
    pub(super) values: &'a [f32],
    /// The shape, and [`ALWAYS`].
    pub(super) fixed: &'a [f32; FIXED],
}

/// What is learned of texts alone.
#[derive(Debug, Clone)]
pub(super) struct Embedder {
    /// Weights of the buckets: the rarer, the higher.
    pub(super) idf: Box<[f32]>,
    /// Of each number of the shape: its mean, and 1 over its deviation.
    pub(super) shape: [[f32; 2]; SHAPE],
    /// For each bucket its share in each direction.
    pub(super) basis: Box<[[f32; DIRECTIONS]]>,
}

impl Embedder {
    /// The weight of a bucket that a text has so often, before the whole is of
    /// length 1.
    pub(super) fn weight(&self, bucket: u16, count: u8) -> f32 {
        (1.0 + f32::from(count).ln()) * self.idf[usize::from(bucket)]
    }

    /// The shape as features.
    pub(super) fn fixed(&self, shape: &[f32; SHAPE]) -> [f32; FIXED] {
        let mut fixed = [ALWAYS; FIXED];
        for ((out, number), [mean, scale]) in fixed.iter_mut().zip(shape).zip(self.shape) {
            let deviation = (number - mean) * scale;
            *out = deviation.clamp(-MOST_DEVIATION, MOST_DEVIATION) * SHAPE_WEIGHT;
        }
        fixed
    }

    /// The weights of what the reader has just read.
    pub(super) fn weigh(&self, reader: &Reader, values: &mut Vec<f32>) {
        values.clear();
        let weight = |bucket: &u16| self.weight(*bucket, reader.count(*bucket));
        values.extend(reader.met().iter().map(weight));
        to_one(values);
    }

    /// How much of a text is words and pairs that a fit to so many rows has not seen,
    /// or seldom: seen once, a half; ten times, a tenth.
    #[expect(clippy::cast_precision_loss, reason = "rows, less than 2^24")]
    pub(super) fn novelty(&self, features: Features<'_>, rows: usize) -> f32 {
        let all = 1.0 + rows as f32;
        let seen = |bucket: &u16| all / (self.idf[usize::from(*bucket)] - 1.0).exp();
        let each = features.buckets.iter().zip(features.values);
        let sum: f32 = each
            .map(|(bucket, value)| value * value / seen(bucket))
            .sum();
        sum.clamp(0.0, 1.0)
    }

    /// The vector of a text.
    pub(super) fn vector(&self, features: Features<'_>) -> Vector {
        let mut numbers = [0.0; DIMENSIONS];
        let (words, shape) = numbers.split_at_mut(DIRECTIONS);
        for (bucket, value) in features.buckets.iter().zip(features.values) {
            let direction = &self.basis[usize::from(*bucket)];
            for (sum, part) in words.iter_mut().zip(direction) {
                *sum += value * part;
            }
        }
        to_one(words);
        shape.copy_from_slice(&features.fixed[..SHAPE]);
        to_one(&mut numbers);
        #[expect(clippy::cast_possible_truncation, reason = "no more than ONE")]
        numbers.map(|number| (number * ONE).round() as i16)
    }
}

/// Makes a vector's length 1; zeros stay.
pub(super) fn to_one(vector: &mut [f32]) {
    let length = vector.iter().map(|one| one * one).sum::<f32>().sqrt();
    if length > f32::MIN_POSITIVE {
        vector.iter_mut().for_each(|one| *one /= length);
    }
}
