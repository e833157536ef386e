//! The history: which models were asked what, whether they were right, and how
//! long their answers were.
//!
//! It is written as JSON lines, one object for each query, in the form of the
//! AIOS reference: `{"query", "input_token_length", "split", "outputs":
//! [{"model_name", "correctness", "output_token_length"}]}`; other keys are passed
//! over. Nothing in a file is believed: each line, name, list and number has a
//! bound, a line that is wrong is left out and told of, and what is held is the
//! newest part.

mod form;
mod lines;
mod newest;

use std::io::{self, BufRead};
use std::sync::Arc;

pub use form::{check_name, cut, parse, write};
pub use lines::{Line, Lines};
pub use newest::Newest;

/// Bytes of a query that are looked at and kept; what is longer is cut at a
/// character.
pub const MOST_QUERY: usize = 2048;
/// Models that one history may tell of; those that come later have no room.
pub const MOST_MODELS: usize = 64;
/// Rows that are held; older ones go first.
pub const MOST_ROWS: usize = 100_000;
/// Bytes of the rows that are held; older ones go first. A fit holds them too.
pub const MOST_HELD: usize = 96 << 20;
/// Bytes of a line that are read; longer lines are left out.
pub const MOST_LINE: usize = 4 << 20;
/// Outputs of one row; lines with more are left out.
pub const MOST_OUTPUTS: usize = 64;
/// Bytes of a model's name; lines with longer ones are left out.
pub const MOST_NAME: usize = 256;
/// Lines that were left out, of which the reason is told.
pub const MOST_TOLD: usize = 10;

/// One query, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its text, cut to [`MOST_QUERY`] bytes. Empty: it was no text; such a row
    /// tells of its models, not of queries like it.
    pub query: String,
    /// Its tokens.
    pub input_tokens: Option<u32>,
    /// What the models made of it: 1 to [`MOST_OUTPUTS`], each model once.
    pub outputs: Vec<Output>,
    /// What an evaluation may use it for.
    pub split: Option<Split>,
}

/// What one model made of a query: at least one of both is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Who answered.
    pub model: Arc<str>,
    /// How right the answer was, 0 to 1.
    pub score: Option<f32>,
    /// Tokens of the answer.
    pub tokens: Option<u32>,
}

/// What an evaluation may use a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// To learn, and to choose how (`train`, `val`, `validation`, `dev`).
    Train,
    /// To measure what was learned.
    Test,
}

impl Row {
    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn held(&self) -> usize {
        let outputs = self.outputs.capacity() * size_of::<Output>();
        size_of::<Self>() + self.query.capacity() + outputs
    }
}

/// The models of a history, each name held once.
#[derive(Debug, Default)]
pub struct Names {
    known: Vec<Arc<str>>,
    further: Vec<String>,
}

impl Names {
    /// These, as many as there is room for.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a Arc<str>>) -> Self {
        let mut all = Self::default();
        for name in names {
            if all.known.len() < MOST_MODELS && !all.has(name) {
                all.known.push(Arc::clone(name));
            }
        }
        all
    }

    fn has(&self, name: &str) -> bool {
        self.known.iter().any(|known| **known == *name)
    }

    /// Makes room, if there is none, by forgetting the names that nobody else holds:
    /// the rows that told of them have gone.
    pub fn make_room(&mut self) {
        if self.known.len() >= MOST_MODELS {
            self.known.retain(|name| Arc::strong_count(name) > 1);
        }
    }

    /// The name as it is held; `None`: it is one too many.
    pub fn get(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(known) = self.known.iter().find(|known| ***known == *name) {
            return Some(Arc::clone(known));
        }
        if self.known.len() < MOST_MODELS {
            let name: Arc<str> = name.into();
            self.known.push(Arc::clone(&name));
            return Some(name);
        }
        let is_new = self.further.iter().all(|known| known != name);
        if is_new && self.further.len() < MOST_TOLD {
            self.further.push(name.to_owned());
        }
        None
    }

    /// Those that have room.
    #[must_use]
    pub fn known(&self) -> &[Arc<str>] {
        &self.known
    }

    /// The first models of those that were one too many.
    #[must_use]
    pub fn further(&self) -> &[String] {
        &self.further
    }

    /// The same, which are forgotten then.
    pub fn take_further(&mut self) -> Vec<String> {
        std::mem::take(&mut self.further)
    }
}

/// Lines that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: usize,
    /// The first [`MOST_TOLD`]: the number of each, from 1, and what is wrong.
    pub first: Vec<(usize, String)>,
}

impl Skipped {
    /// One more.
    pub fn add(&mut self, line: usize, why: String) {
        self.count += 1;
        if self.first.len() < MOST_TOLD {
            self.first.push((line, why));
        }
    }
}

/// Rows as they are read, one after the other; nothing of the file is held.
#[derive(Debug)]
pub struct Reader<R> {
    lines: Lines<R>,
    names: Names,
    skipped: Skipped,
    has_begun: bool,
}

impl<R: BufRead> Reader<R> {
    /// Of lines that come from there; the models of `names` have their room.
    pub fn new(from: R, names: Names) -> Self {
        Self {
            lines: Lines::new(from),
            names,
            skipped: Skipped::default(),
            has_begun: false,
        }
    }

    /// The next row that is good; `None`: that was all.
    ///
    /// # Errors
    /// When there is no reading on, or the whole is a list; for what any other line
    /// says there is none.
    pub fn next_row(&mut self) -> io::Result<Option<Row>> {
        while let Some(line) = self.lines.next_line()? {
            let bytes = match line.number {
                1 => line.bytes.strip_prefix(b"\xef\xbb\xbf"),
                _ => None,
            };
            let bytes = bytes.unwrap_or(line.bytes);
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            if !self.has_begun && bytes.trim_ascii_start().starts_with(b"[") {
                let expected = "it is a list: JSON lines are expected, one object a line";
                return Err(io::Error::new(io::ErrorKind::InvalidData, expected));
            }
            self.has_begun = true;
            let row = if line.is_whole() {
                parse(bytes, &mut self.names)
            } else {
                Err(format!("has {} bytes, more than {MOST_LINE}", line.length))
            };
            match row {
                Ok(row) => return Ok(Some(row)),
                Err(why) => self.skipped.add(line.number, why),
            }
        }
        Ok(None)
    }

    /// The lines that were left out so far, and the models.
    #[must_use]
    pub fn into_parts(self) -> (Skipped, Names) {
        (self.skipped, self.names)
    }
}

/// A history that was read.
#[derive(Debug)]
pub struct Read {
    /// The newest rows, at most [`MOST_ROWS`] and [`MOST_HELD`] bytes, as they came.
    pub rows: Vec<Row>,
    /// Lines that were left out.
    pub skipped: Skipped,
    /// Rows before these, which had no room.
    pub older: usize,
    /// Models that were passed over, the first [`MOST_TOLD`] beyond
    /// [`MOST_MODELS`].
    pub further: Vec<String>,
}

/// Reads to the end.
///
/// # Errors
/// As [`Reader::next_row`].
pub fn read(from: impl BufRead) -> io::Result<Read> {
    let mut reader = Reader::new(from, Names::default());
    let mut newest = Newest::default();
    while let Some(row) = reader.next_row()? {
        newest.push(row);
    }
    let (skipped, names) = reader.into_parts();
    Ok(Read {
        older: newest.left(),
        rows: newest.into_rows(),
        skipped,
        further: names.further,
    })
}

#[cfg(test)]
mod tests;
