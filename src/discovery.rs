//! Where engines come from: always the full list, never a difference, so that
//! a restart or a lost event can't leave a ghost.

pub mod listed;
pub mod models;
