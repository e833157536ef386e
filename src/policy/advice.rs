//! What those said whom a policy has asked: attached to the request before the
//! choice, which stays pure.

use serde::{Deserialize, Serialize};

/// What someone who was asked has said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Nobody was asked.
    #[default]
    None,
    /// Ids of blocks, or engines' URLs, the best first.
    Ranked(Vec<String>),
    /// There is none, and why.
    Failed(String),
}

impl Advice {
    /// What it keeps in memory, beside its own size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Ranked(ids) => ids.iter().map(|id| id.len() + size_of::<String>()).sum(),
            Self::Failed(why) => why.len(),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }
}
