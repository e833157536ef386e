//! Reading a log from its beginning.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::Mark;
use crate::smart::history::{self, Lines, Names, Newest, Row, Skipped};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// What is in a log.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where its last whole line ends.
    pub(super) mark: Mark,
    /// The newest rows behind what was covered.
    pub(super) rows: Newest,
    /// Whether it begins with what was said to be covered.
    pub(super) is_covered: bool,
    /// The last line, if nothing but its end is missing.
    pub(super) unended: Option<(Row, Vec<u8>)>,
    /// Lines that are no rows.
    pub(super) skipped: Skipped,
    /// The models that have room, and those that were passed over.
    pub(super) names: Names,
}

/// Reads so many bytes of a file, and moves nothing that others use.
#[derive(Debug)]
pub(super) struct At<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> At<'a> {
    /// From its beginning.
    pub(super) fn new(file: &'a File, end: u64) -> BufReader<Self> {
        BufReader::with_capacity(PIECE, Self { file, at: 0, end })
    }
}

impl Read for At<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let room = to.len().min(left);
        let read = self.file.read_at(&mut to[..room], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads so many bytes; only what is behind `covered` is looked at, if the log
/// begins with that; `names` are the models of that. Models of which only rows told
/// that are no more among the newest leave their room to others.
pub(super) fn scan(file: &File, bytes: u64, covered: Mark, mut names: Names) -> io::Result<Scan> {
    let mut lines = Lines::new(At::new(file, bytes));
    let mut seen = Scan {
        mark: Mark::default(),
        rows: Newest::default(),
        is_covered: covered.bytes == 0,
        unended: None,
        skipped: Skipped::default(),
        names: Names::default(),
    };
    while let Some(line) = lines.next_line()? {
        if !line.has_end {
            let row = line
                .is_whole()
                .then(|| history::parse(line.bytes, &mut names));
            if let Some(Ok(row)) = row.filter(|_| seen.is_covered) {
                seen.unended = Some((row, line.bytes.to_vec()));
            }
            break;
        }
        seen.mark.add(&line);
        if !seen.is_covered {
            seen.mark.rows = covered.rows;
            seen.is_covered = seen.mark == covered;
            if seen.mark.bytes >= covered.bytes && !seen.is_covered {
                break;
            }
            continue;
        }
        if line.bytes.trim_ascii().is_empty() {
            continue;
        }
        names.make_room();
        let row = if line.is_whole() {
            history::parse(line.bytes, &mut names)
        } else {
            Err(format!("has {} bytes", line.length))
        };
        match row {
            Ok(row) => {
                seen.mark.rows += 1;
                seen.rows.push(row);
            }
            Err(why) => seen.skipped.add(line.number, why),
        }
    }
    seen.names = names;
    Ok(seen)
}
