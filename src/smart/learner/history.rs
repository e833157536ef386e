//! Where feedback is kept: in the state folder, or in memory alone.

use std::io;
use std::path::PathBuf;

use super::lengths::Table;
use crate::smart::history::{MOST_HELD, Names, Newest, Row};
use crate::smart::store::{Contents, Covered, Store, StoreError};

/// All rows.
#[derive(Debug)]
pub(super) enum History {
    /// In a folder; nothing of it is held.
    Disk(Store),
    /// Here: half of what may be held, since a fit has rows of its own.
    Memory(Newest),
}

/// Reads all rows, on whatever thread has the time.
pub(super) type Rows = Box<dyn FnOnce() -> io::Result<Vec<Row>> + Send>;

impl History {
    pub(super) fn open(folder: Option<PathBuf>) -> Result<(Self, Contents, Names), StoreError> {
        let Some(folder) = folder else {
            let memory = Self::Memory(Newest::of(MOST_HELD / 2));
            return Ok((memory, Contents::nothing(), Names::default()));
        };
        let opened = Store::open(&folder)?;
        Ok((Self::Disk(opened.store), opened.contents, opened.names))
    }

    /// Keeps rows: when this returns, they are safe.
    pub(super) fn append(&mut self, rows: &[Row]) -> io::Result<()> {
        match self {
            Self::Disk(store) => {
                store.log.append(rows)?;
                store.log.sync()
            }
            Self::Memory(newest) => {
                rows.iter().for_each(|row| newest.push(row.clone()));
                Ok(())
            }
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        matches!(self, Self::Disk(_))
    }

    pub(super) fn rows(&self) -> io::Result<Rows> {
        match self {
            Self::Disk(store) => {
                let snapshot = store.log.snapshot()?;
                Ok(Box::new(move || snapshot.rows()))
            }
            Self::Memory(newest) => {
                let rows = newest.clone().into_rows();
                Ok(Box::new(move || Ok(rows)))
            }
        }
    }

    /// As [`crate::smart::log::Log::compact`].
    pub(super) fn compact(&mut self) -> io::Result<bool> {
        match self {
            Self::Disk(store) => store.log.compact(),
            Self::Memory(_) => Ok(false),
        }
    }

    /// Where a predictor that knows all rows is saved, and what it knows then.
    pub(super) fn place(&self, since_fit: u64) -> Option<(PathBuf, Covered)> {
        match self {
            Self::Disk(store) => {
                let mark = store.log.mark();
                Some((store.folder().to_owned(), Covered { mark, since_fit }))
            }
            Self::Memory(_) => None,
        }
    }

    /// The lengths of answers as they were kept.
    pub(super) fn lengths(&self) -> Table {
        let Self::Disk(store) = self else {
            return Table::default();
        };
        let read = store.read_lengths().map_err(|error| error.to_string());
        let read = read.and_then(|bytes| bytes.as_deref().map(Table::read).transpose());
        read.unwrap_or_else(|why| {
            let folder = store.folder().display();
            tracing::warn!(%folder, why, "lengths.json is not what was written; lengths are learned anew");
            None
        })
        .unwrap_or_default()
    }

    pub(super) fn keep_lengths(&self, table: &mut Table) -> io::Result<()> {
        let Self::Disk(store) = self else {
            return Ok(());
        };
        match table.take_unkept() {
            Some(bytes) => store.write_lengths(&bytes),
            None => Ok(()),
        }
    }
}
