//! The state folder: registered policies in one file, which is at every moment
//! either the old one or the new one, whole.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::Registered;
use super::refused::Refused;
use super::{Known, Registry};

/// The file in the folder.
const FILE: &str = "policies.json";
/// What is written before it takes the file's name.
const NEW: &str = "policies.json.new";
/// What is locked: the folder itself cannot be where it is shared over NFS.
const LOCK: &str = "lock";
/// The version of the file's form.
const VERSION: u32 = 1;
/// Bytes of the file that are read: all documents, however they are written.
const MOST_FILE: u64 = 32 << 20;

/// The folder, which nobody else uses as long as this lives.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: Lock,
}

/// Says that a state folder is ours, as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What is registered when we start, and where it is kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The policies.
    pub registry: Registry,
    /// The folder, if there is one.
    pub store: Option<Store>,
}

impl Kept {
    /// The folder, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        self.store.as_ref().map(|store| store.folder.clone())
    }

    /// What is kept in that folder; nothing, without one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn load(folder: Option<&Path>) -> Result<Self, StoreError> {
        let Some(folder) = folder else {
            return Ok(Self::default());
        };
        let (store, registry) = Store::open(folder)?;
        Ok(Self {
            registry,
            store: Some(store),
        })
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system says no.
    #[error("{}: cannot {what}: {error}", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What came of it.
        error: io::Error,
    },
    /// Another process uses it.
    #[error(
        "{}: another process uses this folder: give each its own --state-dir", .0.display()
    )]
    InUse(PathBuf),
    /// The file is not what we wrote.
    #[error(
        "{}: {problem}; it is left as it is: put a good copy in its place, or move it away to \
         start without registered policies", path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a registry was written.
#[derive(Debug)]
pub enum Written {
    /// It is there whatever happens.
    Durable,
    /// It is there, but a power cut may bring the old one back.
    Unsynced(io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<T> {
    version: u32,
    policies: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    registered_at: u64,
    document: Value,
}

#[derive(Serialize)]
struct Write<'a> {
    registered_at: u64,
    document: &'a Value,
}

impl Store {
    /// Opens the folder, making it if need be, and reads what is in it.
    ///
    /// # Errors
    /// When it cannot be used, or its file is not what we wrote.
    pub fn open(folder: &Path) -> Result<(Self, Registry), StoreError> {
        let lock = lock(folder)?;
        let store = Self {
            folder: folder.to_owned(),
            _lock: lock,
        };
        let registry = store.read()?;
        // Told of now, not when the first policy is registered.
        let new = store.folder.join(NEW);
        let tried = write_whole(&new, b"").and_then(|()| fs::remove_file(&new));
        tried.map_err(failed(folder, "write to the state folder"))?;
        Ok((store, registry))
    }

    /// The file that it keeps.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn read(&self) -> Result<Registry, StoreError> {
        let path = self.file();
        let failed = |error| StoreError::Io {
            path: self.file(),
            what: "read the registered policies",
            error,
        };
        let corrupt = |problem: String| StoreError::Corrupt {
            path: self.file(),
            problem,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Registry::default());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MOST_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MOST_FILE {
            return Err(corrupt(format!("has more than {MOST_FILE} bytes")));
        }
        parse(&bytes).map_err(corrupt)
    }

    /// Writes what is registered; when it fails, what was there still is.
    ///
    /// # Errors
    /// When there is no room, or no folder any more.
    pub fn write(&self, registry: &Registry) -> io::Result<Written> {
        let policies = registry.registered().map(|one| Write {
            registered_at: one.registered_seconds().unwrap_or_default(),
            document: &one.document,
        });
        let bytes = serde_json::to_vec(&Form {
            version: VERSION,
            policies: policies.collect(),
        })?;
        // What could not be read again would keep the next process from starting.
        parse(&bytes).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
        let new = self.folder.join(NEW);
        let renamed = write_whole(&new, &bytes).and_then(|()| fs::rename(&new, self.file()));
        if let Err(error) = renamed {
            // What was half written only takes room.
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(match synced {
            Ok(()) => Written::Durable,
            Err(error) => Written::Unsynced(error),
        })
    }
}

/// Makes the folder if need be, and keeps others from it.
///
/// # Errors
/// When another process uses it, or it cannot be used.
pub fn lock(folder: &Path) -> Result<Lock, StoreError> {
    make(folder).map_err(failed(folder, "make the state folder"))?;
    let lock = lock_file(&folder.join(LOCK));
    let lock = lock.map_err(failed(folder, "open the lock of the state folder"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::InUse(folder.to_owned()),
        TryLockError::Error(error) => failed(folder, "lock the state folder")(error),
    })?;
    Ok(Lock { _file: lock })
}

fn failed(folder: &Path, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Io {
        path: folder.to_owned(),
        what,
        error,
    }
}

/// Makes the folder and those above it, and has the disk know of them.
fn make(folder: &Path) -> io::Result<()> {
    let absent = folder.ancestors().take_while(|one| !one.exists());
    let absent: Vec<&Path> = absent.filter(|one| !one.as_os_str().is_empty()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    for above in absent.iter().filter_map(|made| made.parent()) {
        let is_here = above.as_os_str().is_empty();
        let above = if is_here { Path::new(".") } else { above };
        // Where folders cannot be synced, each write says so.
        let _ = File::open(above).and_then(|above| above.sync_all());
    }
    Ok(())
}

/// NFS locks only what is open for writing.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

/// A file for us alone, on the disk when this returns.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn parse(bytes: &[u8]) -> Result<Registry, String> {
    let form: Form<Read> = serde_json::from_slice(bytes)
        .map_err(|error| format!("is not what was written: {error}"))?;
    if form.version != VERSION {
        return Err(format!(
            "has version {}, and this program reads version {VERSION}",
            form.version
        ));
    }
    let mut registry = Registry::default();
    for (at, one) in form.policies.into_iter().enumerate() {
        let taken = UNIX_EPOCH
            .checked_add(Duration::from_secs(one.registered_at))
            .ok_or_else(|| "a time that is none".to_owned())
            .and_then(|when| take(&registry, one.document, when));
        registry = taken.map_err(|problem| format!("policies[{at}]: {problem}"))?;
    }
    Ok(registry)
}

fn take(
    registry: &Registry,
    document: Value,
    at: std::time::SystemTime,
) -> Result<Registry, String> {
    let taken = Registered::of(document, at).and_then(|one| registry.with(one, Known::Refuse));
    taken.map_err(|refused: Refused| refused.to_string())
}

#[cfg(test)]
mod tests;
