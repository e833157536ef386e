//! Bounds on what is held.

/// Bounds on what one request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one body that the peek holds until it can be routed.
    pub max_peek_bytes: usize,
    /// Bytes of one body that are kept for a retry.
    pub max_replay_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_peek_bytes: 32 << 20,
            max_replay_bytes: 1 << 20,
        }
    }
}

/// Bounds on what the whole process holds.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Bytes of all bodies held at once; beyond it: 503.
    pub peek_budget_bytes: usize,
    /// Idle connections kept for each engine by each worker.
    pub max_idle_per_engine: usize,
    /// Client connections served at once, in even shares by the workers.
    pub max_connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            peek_budget_bytes: 256 << 20,
            max_idle_per_engine: 1024,
            max_connections: 65_536,
        }
    }
}
