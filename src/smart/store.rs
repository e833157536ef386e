//! The folder `smart` in the state folder: the history, which is the truth, and
//! the predictor that was made of it, which only saves time.
//!
//! Both hold what clients asked: they are for their owner alone. The predictor's
//! file says which part of the history it knows; where that is not how the
//! history begins, or the file is not sound, it is made again.

mod files;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rapidhash::v3::rapidhash_v3;

use super::history::{MOST_MODELS, Names, Row};
use super::log::{Found, Log, Mark};
use super::predict::Predictor;
pub(super) use files::sync_folder_of;
use files::{bounded, make, open_file, replace};

/// The folder in the state folder.
const FOLDER: &str = "smart";
const HISTORY: &str = "history.jsonl";
const PREDICTOR: &str = "predictor.bin";
/// A predictor whose history is lost.
const ASIDE: &str = "predictor.bin.old";
const LENGTHS: &str = "lengths.json";
/// What the predictor's file begins with; another form has another number.
const MAGIC: &[u8; 8] = b"PFSMART2";
/// Bytes before the predictor: the magic, what it knows, and a hash of both.
const HEADER: usize = 48;
/// Bytes of a predictor that are read.
const MOST_PREDICTOR: u64 = 1 << 30;
/// Bytes of `lengths.json` that are read.
const MOST_LENGTHS: u64 = 4 << 20;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {what}: {error}", path.display())]
pub struct StoreError {
    /// The folder or file.
    pub path: PathBuf,
    /// What was tried.
    pub what: &'static str,
    /// What came of it; told by the message, and so no source.
    pub error: io::Error,
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::new(error.error.kind(), error)
    }
}

/// The folder; whoever opens it holds the state folder's lock.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// The history.
    pub log: Log,
}

/// What was in the folder.
#[derive(Debug)]
pub struct Opened {
    /// The folder.
    pub store: Store,
    /// What it knows.
    pub contents: Contents,
    /// The models of the history.
    pub names: Names,
}

/// What a predictor that is kept knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// Where it ends in the history.
    pub mark: Mark,
    /// Rows before that which came since its fit; those of the predictor do not
    /// tell, once it holds as many as it may.
    pub since_fit: u64,
}

/// What a folder knew when it was opened.
#[derive(Debug)]
pub enum Contents {
    /// A predictor that knows the history up to some rows.
    Known {
        /// Without these rows.
        predictor: Predictor,
        /// The newest rows that it does not know yet.
        behind: Vec<Row>,
        /// Rows that came since its fit, those behind it among them.
        since_fit: u64,
    },
    /// The predictor must be made of these rows.
    Rows {
        /// The newest of the history.
        rows: Vec<Row>,
        /// Why.
        why: String,
    },
}

impl Contents {
    /// No history.
    pub(super) fn nothing() -> Self {
        Self::Known {
            predictor: Predictor::empty(),
            behind: Vec::new(),
            since_fit: 0,
        }
    }
}

impl Store {
    /// Opens the folder under `state_dir`, making both if need be. What is wrong
    /// in it, and can be passed over, is told to the log.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(state_dir: &Path) -> Result<Opened, StoreError> {
        let folder = state_dir.join(FOLDER);
        let path = folder.join(HISTORY);
        let failed = |what| {
            move |error| StoreError {
                path: state_dir.join(FOLDER),
                what,
                error,
            }
        };
        make(&folder).map_err(failed("make the folder of the history"))?;
        let cached = read_predictor(&folder.join(PREDICTOR));
        let known = cached.as_ref().ok();
        let covered = known.map_or(Mark::default(), |(_, covered)| covered.mark);
        let models = known.map_or_else(Names::default, |(one, _)| Names::of(one.models()));
        let (log, found) = Log::open(&path, covered, models).map_err(|error| StoreError {
            path: path.clone(),
            what: "open the history",
            error,
        })?;
        tell(&path, &found);
        if found.missing > 0 {
            set_aside(&folder).map_err(failed("keep the predictor of what is lost"))?;
        }
        let names = Names::of(found.names.known());
        let contents = contents(cached, found, log.mark());
        let store = Self { folder, log };
        Ok(Opened {
            store,
            contents,
            names,
        })
    }

    /// The history's file.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.folder.join(HISTORY)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was said of output lengths; nothing, where there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or is too long.
    pub fn read_lengths(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match open_file(&self.folder.join(LENGTHS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        bounded(&file, MOST_LENGTHS).map(Some)
    }

    /// Keeps what is said of output lengths.
    ///
    /// # Errors
    /// When it cannot be written; what was there stays.
    pub fn write_lengths(&self, bytes: &[u8]) -> io::Result<()> {
        replace(&self.folder.join(LENGTHS), |to| to.write_all(bytes))
    }
}

/// What is known of a history that ends at `mark`.
fn contents(cached: Result<(Predictor, Covered), String>, found: Found, mark: Mark) -> Contents {
    let rows = found.rows;
    match cached {
        Ok((predictor, covered)) if found.is_covered => Contents::Known {
            predictor,
            behind: rows,
            since_fit: covered.since_fit + mark.rows.saturating_sub(covered.mark.rows),
        },
        _ if rows.is_empty() => Contents::nothing(),
        Ok(_) => Contents::Rows {
            rows,
            why: format!("{PREDICTOR} was made of another history"),
        },
        Err(why) => Contents::Rows {
            rows,
            why: format!("{PREDICTOR} {why}"),
        },
    }
}

/// Keeps the predictor of a history that is lost: it is all that is left of that.
fn set_aside(folder: &Path) -> io::Result<()> {
    let (from, to) = (folder.join(PREDICTOR), folder.join(ASIDE));
    fs::rename(&from, &to)?;
    tracing::error!(
        kept = %to.display(),
        "the predictor knows rows that are lost, and was kept aside; to go on with what it was \
         made of, stop, put a good copy of the history in its place, and start again"
    );
    Ok(())
}

/// The predictor that was last kept under `state_dir`, whoever uses that now.
///
/// # Errors
/// When there is none that is sound.
pub fn last_kept(state_dir: &Path) -> Result<Predictor, StoreError> {
    let path = state_dir.join(FOLDER).join(PREDICTOR);
    match read_predictor(&path) {
        Ok((predictor, _)) => Ok(predictor),
        Err(why) => Err(StoreError {
            path,
            what: "read what was learned",
            error: io::Error::other(format!(
                "the file {why}; `pilotfish smart fit` makes it of the history"
            )),
        }),
    }
}

/// Keeps a predictor that knows so much of the history.
///
/// # Errors
/// When it cannot be written; what was there stays.
pub fn save(folder: &Path, predictor: &Predictor, covered: Covered) -> io::Result<()> {
    replace(&folder.join(PREDICTOR), |to| {
        to.write_all(&header(covered))?;
        predictor.write(to)
    })
}

fn header(Covered { mark, since_fit }: Covered) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&mark.rows.to_le_bytes());
    header[16..24].copy_from_slice(&mark.bytes.to_le_bytes());
    header[24..32].copy_from_slice(&mark.digest.to_le_bytes());
    header[32..40].copy_from_slice(&since_fit.to_le_bytes());
    let hash = rapidhash_v3(&header[..40]);
    header[40..].copy_from_slice(&hash.to_le_bytes());
    header
}

/// What a header that we wrote says.
fn covered_of(bytes: &[u8]) -> Option<Covered> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(word))
    };
    let mark = Mark {
        rows: word(8)?,
        bytes: word(16)?,
        digest: word(24)?,
    };
    let since_fit = word(32)?;
    let covered = Covered { mark, since_fit };
    (bytes.get(..HEADER)? == header(covered)).then_some(covered)
}

/// The predictor, and what it knows; or what is wrong with the file.
fn read_predictor(path: &Path) -> Result<(Predictor, Covered), String> {
    let file = match open_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("is not there".to_owned());
        }
        opened => opened.map_err(|error| format!("cannot be opened: {error}"))?,
    };
    let unread = |error| format!("cannot be read: {error}");
    // What is another file is not read to its end.
    let mut head = Vec::with_capacity(HEADER);
    let mut first = (&file).take(HEADER as u64);
    first.read_to_end(&mut head).map_err(unread)?;
    let covered = covered_of(&head).ok_or("is not what this version writes")?;
    let bytes = bounded(&file, MOST_PREDICTOR).map_err(unread)?;
    let predictor = Predictor::read(&bytes).map_err(|error| {
        let error = error.to_string();
        let what = error.strip_suffix("; fit again").unwrap_or(&error);
        format!("is not sound: {what}")
    })?;
    Ok((predictor, covered))
}

/// Says what was wrong with a history.
fn tell(path: &Path, found: &Found) {
    let warn = |what: String| tracing::warn!(history = %path.display(), "{what}");
    if found.missing > 0 {
        tracing::error!(
            history = %path.display(),
            "it is at least {} bytes shorter than it was: rows that were acknowledged are lost; it \
             was removed, cut, or replaced by an older copy",
            found.missing
        );
    }
    if found.torn > 0 {
        let lost = match found.missing {
            0 => "; nothing that was acknowledged is lost",
            _ => "",
        };
        warn(format!(
            "{} bytes of a last line without an end were cut off{lost}",
            found.torn
        ));
    }
    for (line, why) in &found.skipped.first {
        warn(format!("line {line} {why}"));
    }
    if found.skipped.count > 0 {
        let count = found.skipped.count;
        warn(format!("{count} lines are no rows, and count for nothing"));
    }
    let further = found.names.further();
    if !further.is_empty() {
        let models = further.join(", ");
        warn(format!(
            "it tells of more than {MOST_MODELS} models; passed over, the first of them: {models}"
        ));
    }
}

#[cfg(test)]
mod tests;
