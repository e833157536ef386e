//! What `smart` is told.

use std::sync::Arc;

use super::super::dynamic::Cost;
use super::PolicyKind;

/// The cheapest model that is good enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Smart {
    /// The models to choose from where a request names none, with what they cost;
    /// empty: all that are served.
    pub models: Vec<Alternative>,
    /// How likely an answer must be right, 0 to 1.
    pub requirement: f64,
    /// Of what.
    pub of: RequirementOf,
    /// Who picks of the engines of a model that has no policy of its own.
    pub strategy: PolicyKind,
}

impl Smart {
    /// What is said of that model.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Alternative> {
        self.models.iter().find(|model| *model.name == *name)
    }
}

/// Of what the requirement is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequirementOf {
    /// Each answer: the cheapest model that meets it, else the best.
    Each,
    /// The mean of all, at the least cost.
    Average,
}

/// A model that may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// Its name, or an alias.
    pub name: Arc<str>,
    /// What its tokens cost; `None`: what its engines say.
    pub cost: Option<Cost>,
    /// Who picks of its engines; `None`: the strategy of all.
    pub strategy: Option<PolicyKind>,
}
