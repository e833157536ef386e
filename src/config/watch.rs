//! Noticing that the dynamic file may have changed.
//!
//! The parent directory is watched, not the file: a mounted `ConfigMap` changes
//! by swapping the symlink `..data`, and a watch on the file itself stays with
//! the old inode. File systems without events are polled.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::problem::Problem;
use super::validate::read;

/// Between two looks at the file when no event comes.
pub const POLL: Duration = Duration::from_secs(10);
/// How long the file must have stayed the same before it is believed: one that
/// is truncated and then written is read in neither state.
pub const SETTLE: Duration = Duration::from_millis(200);
/// How long to wait for the rest of a swarm of events.
const SWARM: Duration = Duration::from_millis(20);
/// Looks at a file that changes all the time, until it is taken as it is.
const MOST_LOOKS: usize = 50;

/// Watches one file.
#[derive(Debug)]
pub struct FileWatch {
    stirred: Arc<Notify>,
    /// Dropping it ends the watch; `None` where there are no events.
    _watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    /// Starts to watch; where that fails, only polling is left.
    #[must_use]
    pub fn start(path: &Path) -> Self {
        let stirred = Arc::new(Notify::new());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let stir = Arc::clone(&stirred);
        let name = path.file_name().map(OsStr::to_os_string);
        let concerns = move |path: &PathBuf| {
            let changed = path.file_name();
            // What a mounted `ConfigMap` swaps.
            let is_mount = changed.is_some_and(|it| it.as_encoded_bytes().starts_with(b"..data"));
            is_mount || changed == name.as_deref()
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_news = event.is_ok_and(|event| {
                // Our own reading is an event too.
                let is_change = !event.kind.is_access();
                is_change && (event.paths.is_empty() || event.paths.iter().any(&concerns))
            });
            if is_news {
                stir.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file events: {} is polled every {POLL:?}", path.display());
        }
        Self {
            stirred,
            _watcher: watcher.ok(),
        }
    }

    /// Waits until there is reason to look at the file.
    pub async fn stirred(&self) {
        // Either is reason enough.
        let _ = tokio::time::timeout(POLL, self.stirred.notified()).await;
        // Events come in swarms, and one look is enough for all of them.
        tokio::time::sleep(SWARM).await;
    }
}

/// The file's bytes if they differ from `known`, once they have stayed the
/// same for [`SETTLE`].
pub async fn settled(path: &Path, known: &[u8]) -> Option<Result<Vec<u8>, Vec<Problem>>> {
    let mut seen = read(path);
    if seen.as_deref().is_ok_and(|bytes| bytes == known) {
        return None;
    }
    for _ in 0..MOST_LOOKS {
        tokio::time::sleep(SETTLE).await;
        let again = read(path);
        if again == seen {
            break;
        }
        seen = again;
    }
    let same = seen.as_deref().is_ok_and(|bytes| bytes == known);
    (!same).then_some(seen)
}
