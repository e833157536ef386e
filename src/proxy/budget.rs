//! What the process may hold of requests' bodies, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::error::ProxyError;

/// Bytes of all bodies held by the process, against their budget.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    most: usize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes, none of them held.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            held: Arc::default(),
            most,
        }
    }

    /// A part of it, empty so far.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

impl Share {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When the budget is spent; they count until it is dropped.
    pub fn add(&mut self, bytes: usize) -> Result<(), ProxyError> {
        let before = self.budget.held.fetch_add(bytes, Relaxed);
        self.bytes += bytes;
        if before + bytes > self.budget.most {
            return Err(ProxyError::OutOfMemory);
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Relaxed);
    }
}
