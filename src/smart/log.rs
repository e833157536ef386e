//! The history on the disk: JSON lines, to which rows are only ever added.
//!
//! What was synced stays: rows are written behind the last byte that is known to
//! be on the disk, and a failure takes the file back to it. A process that dies
//! while it writes leaves a line without an end, which is cut off when the file
//! is opened again. A file that has grown long is written anew with its newest
//! rows, beside the old one, and takes its name when it is on the disk.

mod compact;
mod scan;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rapidhash::v3::rapidhash_v3;

use super::history::{self, Line, MOST_LINE, Names, Row, Skipped};
use scan::{Scan, scan};

/// Where a log ends: how much is before that, and what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// A hash of all lines, in their order.
    pub digest: u64,
}

impl Mark {
    fn add_line(&mut self, line: &[u8], length: u64) {
        self.bytes += length;
        let mixed = self.digest.rotate_left(23) ^ rapidhash_v3(line);
        self.digest = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn add(&mut self, line: &Line<'_>) {
        self.add_line(line.bytes, line.length);
    }
}

/// How long a log may be.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Rows that stay when it is written anew; it may have twice as many.
    rows: u64,
    /// Bytes that stay; it may have twice as many, and four times as many where
    /// it cannot be written anew.
    bytes: u64,
}

const LIMITS: Limits = Limits {
    rows: history::MOST_ROWS as u64,
    bytes: 256 << 20,
};

/// A log that is open; nobody else may write to it.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// What is on the disk.
    good: Mark,
    /// What is written; after a sync, the same.
    written: Mark,
    /// Whether there may be something behind `written`.
    has_rest: bool,
    /// Whether the disk may not know the file's name yet.
    is_nameless: bool,
    limits: Limits,
    /// After an attempt to write it anew has failed: the bytes at which to try again.
    again_at: u64,
}

/// What was in a log when it was opened.
#[derive(Debug)]
pub struct Found {
    /// The newest rows behind what was covered.
    pub rows: Vec<Row>,
    /// Whether the log begins with what was said to be covered.
    pub is_covered: bool,
    /// Lines that are no rows; they stay, and count for nothing.
    pub skipped: Skipped,
    /// Bytes of a last line without an end, which were cut off.
    pub torn: u64,
    /// Bytes that were covered, and are not there: what was acknowledged is lost.
    pub missing: u64,
    /// The models that have room, and those that were passed over.
    pub names: Names,
}

impl Log {
    /// Opens a log, or makes an empty one. Where it begins with `covered`, which
    /// tells of `models`, only the rows behind that are read; else all are.
    ///
    /// # Errors
    /// When the file cannot be read or mended.
    pub fn open(path: &Path, covered: Mark, models: Names) -> io::Result<(Self, Found)> {
        let new = compact::new_name(path);
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        let mut seen = scan(&file, length, covered, models)?;
        let mut is_covered = seen.is_covered;
        if !is_covered || !seen.names.further().is_empty() {
            let whole = scan(&file, length, Mark::default(), Names::default())?;
            // A model that seems to have no room may have got that of another, whose
            // rows have gone since.
            if !is_covered || whole.names.further().is_empty() {
                is_covered = false;
                seen = whole;
            }
        }
        let mut log = Self {
            path: path.to_owned(),
            file,
            good: Mark::default(),
            written: Mark::default(),
            has_rest: false,
            is_nameless: true,
            limits: LIMITS,
            again_at: 0,
        };
        let mut found = log.take(seen, length, is_covered)?;
        if !log.may_be_anew() {
            found.missing = covered.bytes.saturating_sub(log.good.bytes);
        }
        Ok((log, found))
    }

    /// Begins behind the last line that is whole.
    fn take(&mut self, seen: Scan, length: u64, is_covered: bool) -> io::Result<Found> {
        self.good = seen.mark;
        let mut torn = length - seen.mark.bytes;
        let mut rows = seen.rows;
        if let Some((row, line)) = seen.unended {
            // All of it is there but for its end.
            self.file.write_all_at(b"\n", length)?;
            self.good.add_line(&line, torn + 1);
            self.good.rows += 1;
            rows.push(row);
            torn = 0;
        } else if torn > 0 {
            self.file.set_len(self.good.bytes)?;
        }
        self.written = self.good;
        self.sync()?;
        Ok(Found {
            rows: rows.into_rows(),
            is_covered,
            skipped: seen.skipped,
            torn,
            missing: 0,
            names: seen.names,
        })
    }

    /// Whether it may be shorter than it was because it was written anew: then it
    /// is as long as may stay, less a line that had no room.
    fn may_be_anew(&self) -> bool {
        let Limits { rows, bytes } = self.limits;
        self.good.rows >= rows || self.good.bytes + MOST_LINE as u64 >= bytes
    }

    /// What is on the disk, whatever happens.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.good
    }

    /// Writes rows; they are safe after [`Log::sync`].
    ///
    /// # Errors
    /// When they cannot be written: then nothing since the last sync is kept.
    pub fn append(&mut self, rows: &[Row]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut mark = self.written;
        for row in rows {
            let start = bytes.len();
            history::write(row, &mut bytes);
            let line = &bytes[start..];
            mark.add_line(&line[..line.len() - 1], line.len() as u64);
            mark.rows += 1;
        }
        let put = self.put(&bytes, mark);
        if put.is_err() {
            self.undo();
        }
        put
    }

    fn put(&mut self, bytes: &[u8], mark: Mark) -> io::Result<()> {
        if mark.bytes > 4 * self.limits.bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the history is too long, and could not be written anew",
            ));
        }
        if self.has_rest {
            self.file.set_len(self.written.bytes)?;
            self.has_rest = false;
        }
        self.has_rest = true;
        self.file.write_all_at(bytes, self.written.bytes)?;
        self.has_rest = false;
        self.written = mark;
        Ok(())
    }

    /// Has the disk take what was written.
    ///
    /// # Errors
    /// When it does not: then nothing since the last sync is kept.
    pub fn sync(&mut self) -> io::Result<()> {
        let synced = self.sync_name().and_then(|()| self.file.sync_data());
        match synced {
            Ok(()) => self.good = self.written,
            Err(_) => self.undo(),
        }
        synced
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if self.is_nameless {
            super::store::sync_folder_of(&self.path)?;
            self.is_nameless = false;
        }
        Ok(())
    }

    fn undo(&mut self) {
        self.written = self.good;
        self.has_rest = self.file.set_len(self.good.bytes).is_err();
    }

    /// The rows that are on the disk now, to be read by anyone at any time.
    ///
    /// # Errors
    /// When the file cannot be shared.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        Ok(Snapshot {
            file: self.file.try_clone()?,
            mark: self.good,
        })
    }
}

#[cfg(test)]
impl Log {
    /// From now on nothing can be written.
    pub(super) fn break_for_test(&mut self) -> File {
        let broken = File::open(&self.path).unwrap_or_else(|error| panic!("{error}"));
        std::mem::replace(&mut self.file, broken)
    }

    /// From now on it may have twice so many rows.
    pub(super) fn limit_for_test(&mut self, rows: u64) {
        self.limits.rows = rows;
    }

    /// And now it can.
    pub(super) fn mend_for_test(&mut self, file: File) {
        self.file = file;
    }
}

/// A log as it was.
#[derive(Debug)]
pub struct Snapshot {
    file: File,
    mark: Mark,
}

impl Snapshot {
    /// Its newest rows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn rows(&self) -> io::Result<Vec<Row>> {
        let seen = scan(
            &self.file,
            self.mark.bytes,
            Mark::default(),
            Names::default(),
        )?;
        Ok(seen.rows.into_rows())
    }
}

#[cfg(test)]
mod tests;
