//! Selections by attributes as settings have them: who may be chosen, what is
//! wanted, and who is asked first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::EngineUrl;
use super::super::attribute::Attribute;
use super::PolicyKind;
use crate::query::Query;

/// What types of applications ask for, as in the AIOS reference.
pub const APP_MAP: [(&str, &str); 4] = [
    ("RAG", "chat-completion"),
    ("Code", "code-generation"),
    ("Vision", "multi-modal"),
    ("Chat", "chat-completion"),
];

/// Who is of use for that type of application: an unknown type is its own use
/// case, in lower case.
#[must_use]
pub fn use_case(application_type: &str, app_map: &BTreeMap<String, String>) -> Query {
    let known = app_map.get(application_type);
    let case = known.map_or_else(|| application_type.to_lowercase(), String::clone);
    Query::item("component.componentMetadata.usecase", &case)
}

/// What `scored` is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Who may be chosen, all in all; `None`: anyone.
    pub filter: Option<Arc<Query>>,
    /// What that is made of: what was said of it, and of the type of the
    /// application.
    pub asked: [Option<Arc<Query>>; 2],
    /// What is wanted, [`super::MOST_GOALS`] at most; none: all are as good.
    pub goals: Vec<Goal>,
    /// Who is taken of those that were scored.
    pub picker: Picker,
    /// Who is taken of the engines of a block.
    pub instance: Box<PolicyKind>,
    /// The use case that each type of application asks for.
    pub app_map: Arc<BTreeMap<String, String>>,
}

impl Default for Scored {
    /// Anyone, and all are as good.
    fn default() -> Self {
        let app_map = APP_MAP.map(|(of, case)| (of.to_owned(), case.to_owned()));
        Self {
            filter: None,
            asked: [None, None],
            goals: Vec::new(),
            picker: Picker::Argmax,
            instance: Box::new(PolicyKind::LeastLoad),
            app_map: Arc::new(app_map.into()),
        }
    }
}

impl Scored {
    /// The same for those that meet these: what is asked of them, and of what use
    /// they are.
    #[must_use]
    pub fn among(self, filter: Option<Arc<Query>>, case: Option<Arc<Query>>) -> Self {
        let all = match (&filter, &case) {
            (Some(filter), Some(case)) => {
                let both = Query::clone(filter).and(Query::clone(case));
                Some(Arc::new(both))
            }
            (one, other) => one.as_ref().or(other.as_ref()).map(Arc::clone),
        };
        Self {
            filter: all,
            asked: [filter, case],
            ..self
        }
    }

    pub(super) fn looks_at_live(&self) -> bool {
        let mut goals = self.goals.iter();
        goals.any(|goal| matches!(goal.attribute, Attribute::Live(of) if of.is_read()))
            || self.filter.as_ref().is_some_and(|of| of.looks_at_scraped())
    }

    /// Whether it looks at metadata in ways that are worth remembering:
    /// [`crate::policy::bound::Bound`].
    #[must_use]
    pub fn reads_metadata(&self) -> bool {
        let mut goals = self.goals.iter();
        self.filter.is_some() || goals.any(|goal| matches!(goal.attribute, Attribute::Path(_)))
    }
}

/// What `remote` and `llm` are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Advised {
    /// Who is asked.
    pub adviser: Adviser,
    /// How long that may take.
    pub deadline: Duration,
    /// How long its advice holds.
    pub ttl: Duration,
    /// Who may be advised, and what decides without advice.
    pub then: Scored,
    /// The parameters of the request that selected by it, a JSON object; for who
    /// is asked at a URL.
    pub parameters: Arc<str>,
}

/// Who is asked for advice.
#[derive(Debug, Clone, PartialEq)]
pub enum Adviser {
    /// Whoever listens there.
    Remote {
        /// Where.
        url: EngineUrl,
    },
    /// A language model.
    Llm {
        /// Where it is served; `None`: by an engine of ours.
        server: Option<EngineUrl>,
        /// Its block, or its name.
        block: String,
        /// What it is asked for.
        query_string: String,
    },
}

/// One thing that is wanted of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// The named goal that it is part of, if it is of one.
    pub of: Option<Arc<str>>,
    /// The attribute's name.
    pub name: Arc<str>,
    /// What it is.
    pub attribute: Attribute,
    /// Whether more of it is better.
    pub direction: Direction,
    /// Its share in the score.
    pub weight: f64,
}

/// Which end of an attribute is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More is better.
    Max,
    /// Less is better.
    Min,
}

/// Who is taken of those that were scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Picker {
    /// The best; of equals the one with the fewest requests in flight.
    Argmax,
    /// Of so many best the one with the fewest requests in flight.
    TopK(usize),
    /// At random, by e to the power of the score over this temperature.
    Softmax(f64),
    /// At random, by score.
    Weighted,
}
