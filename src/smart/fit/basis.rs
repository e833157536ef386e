//! The directions in which texts vary most: the first right singular vectors of the
//! weighted words, by subspace iteration on a sample of the rows.
//!
//! The vectors themselves are not needed, only a basis of what they span: a cosine
//! does not change when both its vectors are turned.

use super::corpus::Corpus;
use crate::smart::embed::{BUCKETS, DIRECTIONS};

/// Rows that are looked at.
const SAMPLE: usize = 4_000;
/// Rounds: singular values that differ by a quarter are told apart.
const ROUNDS: usize = 6;

type Direction = [f32; DIRECTIONS];

/// For each bucket its share in each direction.
pub(super) fn basis(corpus: &Corpus) -> Box<[Direction]> {
    let rows = super::sample(corpus.rows(), SAMPLE);
    let mut random = fastrand::Rng::with_seed(2);
    let mut buckets: Vec<Direction> = (0..BUCKETS)
        .map(|_| std::array::from_fn(|_| random.f32() - 0.5))
        .collect();
    let mut texts = vec![[0.0; DIRECTIONS]; rows.len()];
    for _ in 0..ROUNDS {
        for (text, row) in texts.iter_mut().zip(&rows) {
            *text = [0.0; DIRECTIONS];
            let features = corpus.row(*row);
            for (bucket, value) in features.buckets.iter().zip(features.values) {
                add(text, *value, &buckets[usize::from(*bucket)]);
            }
        }
        orthonormal(&mut texts);
        buckets.fill([0.0; DIRECTIONS]);
        for (text, row) in texts.iter().zip(&rows) {
            let features = corpus.row(*row);
            for (bucket, value) in features.buckets.iter().zip(features.values) {
                add(&mut buckets[usize::from(*bucket)], *value, text);
            }
        }
    }
    orthonormal(&mut buckets);
    buckets.into()
}

fn add(sum: &mut Direction, value: f32, other: &Direction) {
    for (sum, part) in sum.iter_mut().zip(other) {
        *sum += value * part;
    }
}

/// Makes the columns orthonormal (Cholesky's QR); columns that depend on those
/// before them become zero.
#[expect(clippy::cast_possible_truncation, reason = "f32 is enough")]
fn orthonormal(rows: &mut [Direction]) {
    let mut gram = [[0.0_f64; DIRECTIONS]; DIRECTIONS];
    for row in rows.iter().filter(|row| row.iter().any(|one| *one != 0.0)) {
        for (i, one) in row.iter().enumerate() {
            for (sum, other) in gram[i][..=i].iter_mut().zip(row) {
                *sum += f64::from(one * other);
            }
        }
    }
    let most = (0..DIRECTIONS).map(|i| gram[i][i]).fold(0.0, f64::max);
    // The lower triangle of the factor takes the matrix's place.
    let mut scale = [0.0; DIRECTIONS];
    for j in 0..DIRECTIONS {
        let left = gram[j][j] - (0..j).map(|k| gram[j][k].powi(2)).sum::<f64>();
        // Beyond this nothing but rounding is left of the column.
        if left > most * 1e-6 {
            scale[j] = left.sqrt().recip();
        }
        for i in j + 1..DIRECTIONS {
            let known: f64 = (0..j).map(|k| gram[i][k] * gram[j][k]).sum();
            gram[i][j] = (gram[i][j] - known) * scale[j];
        }
    }
    let factor = gram.map(|row| row.map(|one| one as f32));
    let scale = scale.map(|one| one as f32);
    for row in rows
        .iter_mut()
        .filter(|row| row.iter().any(|one| *one != 0.0))
    {
        for j in 0..DIRECTIONS {
            let known: f32 = (0..j).map(|k| factor[j][k] * row[k]).sum();
            row[j] = (row[j] - known) * scale[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_orthonormal_and_dependent_ones_zero() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut rows: Vec<Direction> = (0..500)
            .map(|_| std::array::from_fn(|_| random.f32() - 0.3))
            .collect();
        for row in &mut rows {
            row[7] = row[3] * 2.0 - row[5];
        }
        orthonormal(&mut rows);
        for i in 0..DIRECTIONS {
            for j in 0..=i {
                let product: f32 = rows.iter().map(|row| row[i] * row[j]).sum();
                let expected = if i == j && i != 7 { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-3, "{i} {j}: {product}");
            }
        }
        orthonormal(&mut []);
        let mut zeros = vec![[0.0; DIRECTIONS]; 3];
        orthonormal(&mut zeros);
        assert!(zeros.iter().flatten().all(|one| *one == 0.0));
    }
}
