//! The newest rows, as many as there may be.

use std::collections::VecDeque;

use super::{MOST_HELD, MOST_ROWS, Row};

/// Rows in the order in which they came: at most [`MOST_ROWS`], and [`MOST_HELD`]
/// bytes.
#[derive(Debug, Clone)]
pub struct Newest {
    rows: VecDeque<Row>,
    held: usize,
    left: usize,
    most: usize,
}

impl Default for Newest {
    fn default() -> Self {
        Self::of(MOST_HELD)
    }
}

impl Newest {
    /// None yet, and never more than so many bytes.
    #[must_use]
    pub fn of(most: usize) -> Self {
        Self {
            rows: VecDeque::new(),
            held: 0,
            left: 0,
            most,
        }
    }

    /// One more; the oldest go.
    pub fn push(&mut self, mut row: Row) {
        row.query.shrink_to_fit();
        row.outputs.shrink_to_fit();
        self.held += row.held();
        self.rows.push_back(row);
        while self.rows.len() > MOST_ROWS || self.held > self.most {
            let Some(oldest) = self.rows.pop_front() else {
                return;
            };
            self.held -= oldest.held();
            self.left += 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many have gone.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn into_rows(self) -> Vec<Row> {
        self.rows.into()
    }
}
