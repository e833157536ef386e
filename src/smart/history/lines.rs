//! Lines of a file, of which no more is held than may be.

use std::io::{self, BufRead};

use memchr::memchr;

use super::MOST_LINE;

/// Cuts what is read into lines.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    line: Vec<u8>,
    number: usize,
}

/// One line.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// What it says, without its end; of one that is too long, the beginning.
    pub bytes: &'a [u8],
    /// From 1.
    pub number: usize,
    /// Its bytes in the file, with its end.
    pub length: u64,
    /// Whether it has an end.
    pub has_end: bool,
}

impl Line<'_> {
    /// Whether all of it is there: at most [`MOST_LINE`] bytes.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() as u64 + u64::from(self.has_end) == self.length
    }
}

impl<R: BufRead> Lines<R> {
    /// Of what comes from there.
    pub fn new(from: R) -> Self {
        Self {
            from,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The next line; `None`: that was all.
    ///
    /// # Errors
    /// When there is no reading on.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut length = 0;
        let mut has_end = false;
        while !has_end {
            let piece = match self.from.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if piece.is_empty() {
                break;
            }
            let end = memchr(b'\n', piece);
            let text = &piece[..end.unwrap_or(piece.len())];
            let room = MOST_LINE - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            has_end = end.is_some();
            let taken = text.len() + usize::from(has_end);
            self.from.consume(taken);
            length += taken as u64;
        }
        if length == 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line {
            bytes: &self.line,
            number: self.number,
            length,
            has_end,
        }))
    }
}
