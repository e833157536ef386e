//! Writing a log anew, with its newest rows.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::scan::At;
use super::{Limits, Log, Mark};
use crate::smart::history::{self, Lines, Names};

/// What is written before it takes the log's name.
pub(super) fn new_name(path: &Path) -> PathBuf {
    path.with_extension("jsonl.new")
}

impl Log {
    /// Writes the log anew if it has grown too long. `true`: it was, and what was
    /// covered of it is no more where it was.
    ///
    /// # Errors
    /// When that could not be done: the log is as it was, and can be used.
    pub fn compact(&mut self) -> io::Result<bool> {
        let is_long =
            self.good.rows > 2 * self.limits.rows || self.good.bytes > 2 * self.limits.bytes;
        if !is_long || self.good.bytes < self.again_at {
            return Ok(false);
        }
        let new = new_name(&self.path);
        let written = self.newest(&new).and_then(|written| {
            fs::rename(&new, &self.path)?;
            Ok(written)
        });
        match written {
            Ok((file, mark)) => {
                self.file = file;
                (self.good, self.written) = (mark, mark);
                self.has_rest = false;
                self.is_nameless = true;
                self.again_at = 0;
                // What comes next is not safe before this was done.
                self.sync()?;
                Ok(true)
            }
            Err(error) => {
                // What was half written only takes room.
                let _ = fs::remove_file(&new);
                self.again_at = self.good.bytes + self.good.bytes / 10;
                Err(error)
            }
        }
    }

    /// The newest rows in a file of their own, on the disk.
    fn newest(&self, path: &Path) -> io::Result<(File, Mark)> {
        let kept = kept(&self.file, self.good.bytes, self.limits)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut out = BufWriter::with_capacity(256 << 10, &file);
        let mut mark = Mark::default();
        let mut line = Vec::new();
        for (at, length) in kept {
            line.resize(length, 0);
            self.file.read_exact_at(&mut line, at)?;
            out.write_all(&line)?;
            mark.add_line(&line[..length - 1], length as u64);
            mark.rows += 1;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        Ok((file, mark))
    }
}

/// Where the newest rows are, and how long: lines that are none have gone.
fn kept(file: &File, end: u64, limits: Limits) -> io::Result<VecDeque<(u64, usize)>> {
    let mut lines = Lines::new(At::new(file, end));
    let mut kept = VecDeque::new();
    let (mut at, mut bytes) = (0, 0);
    while let Some(line) = lines.next_line()? {
        let start = at;
        at += line.length;
        // A line by itself tells of no model too many: none goes for its models.
        let is_row = line.is_whole() && history::parse(line.bytes, &mut Names::default()).is_ok();
        if !is_row || !line.has_end {
            continue;
        }
        kept.push_back((start, line.bytes.len() + 1));
        bytes += line.length;
        while kept.len() as u64 > limits.rows || bytes > limits.bytes {
            let Some((_, length)) = kept.pop_front() else {
                break;
            };
            bytes -= length as u64;
        }
    }
    Ok(kept)
}
