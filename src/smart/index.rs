//! Past queries, each a vector and what came of it; and the search of those that
//! are most like a new one.
//!
//! The search looks at every row. Vectors of 64 x 16 bits are two cache lines, and
//! their product is what SSE2 has an instruction for: 5 ns a row without `unsafe`
//! and without a choice at run time. Rows stand in chunks that indexes share, so
//! that a row more costs one chunk, not a copy of all.

use std::sync::Arc;

use super::embed::{DIMENSIONS, Vector};
use super::history::MOST_ROWS;

/// Rows of a chunk.
const CHUNK: usize = 1024;
/// The product of a vector with itself is 2^28; its upper bits are counted.
const SHIFT: u32 = 19;
/// Steps of likeness that are told apart in the search.
const STEPS: usize = 1 << (28 - SHIFT);

/// What one model made of one query, beside what was expected of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outcome {
    /// The model's place in the list of models.
    pub(super) model: u8,
    quality: i16,
    length: i16,
}

/// There is no such figure.
const NONE: i16 = i16::MIN;
/// What stands for 1 in a quality (-1 to 1), and in a length (-8 to 8).
const QUALITY: f32 = 32_000.0;
const LENGTH: f32 = 4_000.0;

impl Outcome {
    /// Of a model: how much better it was than expected (-1 to 1), and how much
    /// longer its answer (in its mean lengths, cut at 8).
    pub(super) fn new(model: u8, quality: Option<f32>, length: Option<f32>) -> Self {
        let pack = |value: Option<f32>, unit: f32| {
            #[expect(clippy::cast_possible_truncation, reason = "clamped")]
            value.map_or(NONE, |value| {
                (value * unit).clamp(-32_000.0, 32_000.0) as i16
            })
        };
        Self {
            model,
            quality: pack(quality, QUALITY),
            length: pack(length, LENGTH),
        }
    }

    /// How much better than expected.
    pub(super) fn quality(self) -> Option<f32> {
        (self.quality != NONE).then(|| f32::from(self.quality) / QUALITY)
    }

    /// How much longer than expected.
    pub(super) fn length(self) -> Option<f32> {
        (self.length != NONE).then(|| f32::from(self.length) / LENGTH)
    }

    /// As it is written to a file.
    pub(super) fn bytes(self) -> [u8; 5] {
        let [a, b] = self.quality.to_le_bytes();
        let [c, d] = self.length.to_le_bytes();
        [self.model, a, b, c, d]
    }

    /// As it was read from a file.
    pub(super) fn of_bytes([model, a, b, c, d]: [u8; 5]) -> Self {
        Self {
            model,
            quality: i16::from_le_bytes([a, b]),
            length: i16::from_le_bytes([c, d]),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Chunk {
    vectors: Vec<Vector>,
    /// Where the outcomes of each row end.
    ends: Vec<u32>,
    outcomes: Vec<Outcome>,
}

impl Chunk {
    fn outcomes(&self, row: usize) -> &[Outcome] {
        let from = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.outcomes[from as usize..self.ends[row] as usize]
    }
}

/// The rows, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    chunks: Vec<Arc<Chunk>>,
    /// Rows of the first chunk that have left.
    left: usize,
    rows: usize,
}

/// A past query that is like the one asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Neighbour {
    /// Its row, counted from the oldest that is held.
    pub(super) row: usize,
    /// How alike: the cosine, more than 0.
    pub(super) likeness: f32,
}

/// Buffers of a search.
#[derive(Debug, Default)]
pub(super) struct Search {
    products: Vec<i32>,
    /// What was found, oldest first.
    pub(super) found: Vec<Neighbour>,
}

impl Index {
    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a vector is short enough for its products.
    pub(super) fn may_hold(vector: &Vector) -> bool {
        let square = |one: &i16| i64::from(*one) * i64::from(*one);
        vector.iter().map(square).sum::<i64>() < 1 << 29
    }

    /// Adds a row; one too many, and the oldest leaves.
    pub(super) fn push(&mut self, vector: Vector, outcomes: &[Outcome]) {
        let is_full = |chunk: &Arc<Chunk>| chunk.vectors.len() == CHUNK;
        if self.chunks.last().is_none_or(is_full) {
            self.chunks.push(Arc::default());
        }
        if let Some(last) = self.chunks.last_mut() {
            let chunk = Arc::make_mut(last);
            chunk.vectors.push(vector);
            chunk.outcomes.extend_from_slice(outcomes);
            #[expect(clippy::cast_possible_truncation, reason = "64 a row at most")]
            chunk.ends.push(chunk.outcomes.len() as u32);
        }
        self.rows += 1;
        if self.rows > MOST_ROWS {
            self.rows -= 1;
            self.left += 1;
        }
        if self.left == CHUNK {
            self.left = 0;
            self.chunks.remove(0);
        }
    }

    /// A row's vector, and what came of it.
    pub(super) fn row(&self, row: usize) -> (&Vector, &[Outcome]) {
        let at = row + self.left;
        let chunk = &self.chunks[at / CHUNK];
        (&chunk.vectors[at % CHUNK], chunk.outcomes(at % CHUNK))
    }

    /// The rows that are most like a vector, `most` at most; of those that are
    /// equally alike the newest. Those of `except` are passed over.
    pub(super) fn search(
        &self,
        vector: &Vector,
        most: usize,
        except: impl IntoIterator<Item = usize>,
        search: &mut Search,
    ) {
        search.products.clear();
        for (at, chunk) in self.chunks.iter().enumerate() {
            let from = if at == 0 { self.left } else { 0 };
            let products = chunk.vectors[from..].iter().map(|row| product(row, vector));
            search.products.extend(products);
        }
        for row in except {
            search.products[row] = 0;
        }
        let (least, mut places) = threshold(&search.products, most);
        search.found.clear();
        for (row, value) in search.products.iter().enumerate().rev() {
            if *value < least {
                continue;
            }
            // The last step may have more rows than there are places.
            if step(*value) == step(least) {
                if places == 0 {
                    continue;
                }
                places -= 1;
            }
            #[expect(clippy::cast_precision_loss, reason = "a likeness needs no 28 bits")]
            let likeness = *value as f32 / (1_u32 << 28) as f32;
            search.found.push(Neighbour { row, likeness });
        }
        search.found.reverse();
    }
}

fn product(one: &Vector, other: &Vector) -> i32 {
    let mut sum = 0;
    for at in 0..DIMENSIONS {
        sum += i32::from(one[at]) * i32::from(other[at]);
    }
    sum
}

fn step(product: i32) -> usize {
    usize::try_from(product >> SHIFT).map_or(0, |step| step.min(STEPS - 1))
}

/// The least product of the `most` highest, as far as steps tell; and how many of
/// its step are among them. What is not alike at all never is.
fn threshold(products: &[i32], most: usize) -> (i32, usize) {
    let mut counts = [0_usize; STEPS];
    for value in products {
        counts[step(*value)] += 1;
    }
    let mut above = 0;
    for at in (1..STEPS).rev() {
        if above + counts[at] >= most {
            #[expect(clippy::cast_possible_truncation, reason = "512 steps")]
            let least = (at as i32) << SHIFT;
            return (least, most - above);
        }
        above += counts[at];
    }
    (1 << SHIFT, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(at: usize, other: i16) -> Vector {
        let mut vector = [0; DIMENSIONS];
        vector[at] = 16_000;
        vector[(at + 1) % DIMENSIONS] = other;
        vector
    }

    fn rows(search: &Search) -> Vec<usize> {
        search.found.iter().map(|one| one.row).collect()
    }

    #[test]
    fn the_most_alike_are_found() {
        let mut index = Index::default();
        for row in 0..3000_usize {
            let outcome = Outcome::new(u8::try_from(row % 7).unwrap(), Some(0.5), None);
            index.push(vector(row % 50, 0), &[outcome]);
        }
        let mut search = Search::default();
        index.search(&vector(7, 100), 60, None, &mut search);
        assert_eq!(search.found.len(), 60);
        assert!(search.found.iter().all(|one| one.row % 50 == 7));
        index.search(&vector(7, 100), 5, Some(2957), &mut search);
        assert_eq!(rows(&search), [2707, 2757, 2807, 2857, 2907], "the newest");
        assert_eq!(index.row(2907).1[0].model, 2);
        index.search(&vector(7, 0), 5000, None, &mut search);
        assert_eq!(search.found.len(), 60, "what is not alike is no neighbour");
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        let mut search = Search::default();
        Index::default().search(&vector(0, 0), 10, None, &mut search);
        assert!(search.found.is_empty());
    }

    #[test]
    fn the_oldest_leave_and_others_keep_what_they_had() {
        let mut index = Index::default();
        for row in 0..MOST_ROWS {
            index.push(vector(row % 60, 0), &[]);
        }
        let before = index.clone();
        let outcome = Outcome::new(3, None, Some(-0.25));
        for _ in 0..CHUNK + 5 {
            index.push(vector(61, 0), &[outcome]);
        }
        assert_eq!(index.rows(), MOST_ROWS);
        assert_eq!(before.rows(), MOST_ROWS);
        let (last, outcomes) = index.row(MOST_ROWS - 1);
        assert_eq!((last, outcomes), (&vector(61, 0), &[outcome][..]));
        assert_eq!(index.row(0).0, &vector((CHUNK + 5) % 60, 0));
        assert!(before.row(MOST_ROWS - 1).1.is_empty());
        let mut search = Search::default();
        index.search(&vector(61, 0), 2000, None, &mut search);
        assert_eq!(search.found.len(), CHUNK + 5);
    }

    #[test]
    fn outcomes_are_kept_as_they_are() {
        let outcome = Outcome::new(9, Some(-0.5), Some(100.0));
        assert_eq!(outcome.quality(), Some(-0.5));
        assert_eq!(outcome.length(), Some(8.0));
        let none = Outcome::new(9, None, None);
        assert_eq!((none.quality(), none.length()), (None, None));
        assert_eq!(Outcome::of_bytes(outcome.bytes()), outcome);
    }
}
