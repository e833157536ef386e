//! From a selection as a request writes it to a policy that can be asked.
//!
//! What the request says comes first, then what the policy that it names was
//! told. Each worker keeps what it has compiled, so that the same text is read
//! once for each snapshot.

mod cache;
mod goals;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Map, Value};

pub use cache::Selections;

use crate::config::EngineUrl;
use crate::config::policies::{Advised, Adviser, PolicyKind, PolicySpec, Scored, use_case};
use crate::fleet::Snapshot;
use crate::policy::Policy;
use crate::query::envelope::Envelope;
use crate::query::{Query, QueryError, Vocabulary};
use crate::registry::{ATTRIBUTE_BASED, BUILT_IN, Registry};

/// Objects and lists within each other: 64 levels of conditions are two each, and
/// the reference nests them in ten more.
const MOST_DEPTH: usize = 160;
/// What a compiled selection takes in memory for a byte of its text, at most: lists
/// of short items take most.
const WEIGHT: usize = 24;
/// Bytes of one selection at most.
pub const MOST_TEXT: usize = 64 << 10;

/// Why a selection cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectError {
    /// It makes no sense.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is no such policy.
    #[error("policy {0:?} not found")]
    PolicyNotFound(String),
}

/// A selection that can be made.
#[derive(Debug)]
pub struct Selection {
    /// What makes it.
    pub policy: Arc<Policy>,
    /// What of it was accepted and has no effect.
    pub ignored: Vec<&'static str>,
}

/// Reads a document, as the reference nests it or flat.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(text: &[u8]) -> Result<Value, QueryError> {
    if text.len() > MOST_TEXT {
        return Err(too_long(text.len() as u64));
    }
    if depth(text) > MOST_DEPTH {
        let message = format!("nested more than {MOST_DEPTH} deep, which no selection is");
        return Err(wrong("", message));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    // Its own limit is below that of the language; ours is above.
    reader.disable_recursion_limit();
    let read = Value::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    read.map_err(|error| wrong("", format!("invalid JSON: {error}")))
}

/// That a selection has so many bytes.
#[must_use]
pub fn too_long(bytes: u64) -> QueryError {
    wrong("", format!("{bytes} bytes; the most is {MOST_TEXT}"))
}

/// How deep objects and lists are nested in a text that may be JSON.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut most) = (0usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// Makes a policy of what a search of so many bytes asks; `base` is the one in
/// force.
///
/// # Errors
/// What is wrong with it, or that it names a policy that there is not.
pub fn compile(
    (envelope, length): (&Envelope<'_>, usize),
    snapshot: &Snapshot,
    base: Option<&Arc<Policy>>,
) -> Result<Selection, SelectError> {
    let base = match envelope.policy {
        Some(name) => named(snapshot, name, &envelope.policy_at)?,
        None => base.filter(|base| base.spec.kind.scored().is_some()),
    };
    // Where neither the request nor what is in force selects by attributes.
    let base = base.or_else(|| snapshot.policies.find(ATTRIBUTE_BASED));
    let spec = base.map(|base| &base.spec);
    let kind = spec.map(|spec| &spec.kind);
    let told = kind.and_then(PolicyKind::scored);
    let then = scored(envelope, snapshot, told)?;
    let kind = match kind {
        Some(PolicyKind::Advised(of)) => {
            PolicyKind::Advised(Box::new(advised(envelope, snapshot, of, then)?))
        }
        _ => PolicyKind::Scored(then),
    };
    let spec = PolicySpec {
        name: spec.map_or_else(|| Arc::from(ATTRIBUTE_BASED), |spec| Arc::clone(&spec.name)),
        kind,
        timeouts: spec.and_then(|spec| spec.timeouts),
    };
    Ok(Selection {
        policy: Policy::weighing(spec, base.map(|base| &**base), length * WEIGHT),
        ignored: envelope.ignored.clone(),
    })
}

/// The policy of that name; `None`: a built-in one that nobody has told anything.
fn named<'a>(
    snapshot: &'a Snapshot,
    name: &str,
    at: &str,
) -> Result<Option<&'a Arc<Policy>>, SelectError> {
    let is_own = BUILT_IN.contains(&name);
    if !snapshot.settings.routing.allow.policy && !is_own {
        let message = "to name a policy is not allowed here: whoever runs this proxy may add \
                       \"policy\" to request_headers.allow";
        return Err(SelectError::Query(wrong(at, message)));
    }
    let known = snapshot.policies.find(name);
    match known.filter(|known| known.spec.kind.scored().is_some()) {
        Some(known) => Ok(Some(known)),
        None if is_own => Ok(None),
        None => Err(SelectError::PolicyNotFound(name.to_owned())),
    }
}

/// Whether the registered policy of that name lets requests ask so.
///
/// # Errors
/// What does not keep to the policy's `policy_parameters_schema`.
pub fn allowed(
    envelope: &Envelope<'_>,
    policy: &str,
    registry: &Registry,
) -> Result<(), QueryError> {
    let Some(policy) = registry.get(policy) else {
        return Ok(());
    };
    let parameters = parameters(envelope);
    policy.check_parameters(&parameters).map_err(|problems| {
        let first = problems.into_iter().next();
        let (path, message) = first.map_or_else(Default::default, |one| (one.path, one.message));
        let rule = envelope
            .policy_at
            .rsplit_once('/')
            .map_or("", |(rule, _)| rule);
        let message = format!("{message} (by the policy's policy_parameters_schema)");
        wrong(&format!("{rule}/parameters{path}"), message)
    })
}

/// A policy's parameters, as the reference has them, of a request in either form.
fn parameters<'a>(envelope: &Envelope<'a>) -> Cow<'a, Map<String, Value>> {
    if let Some(parameters) = envelope.parameters {
        return Cow::Borrowed(parameters);
    }
    let mut parameters = Map::new();
    let mut selection = Map::new();
    if let Some((goals, _)) = &envelope.goals {
        selection.insert("optimization_goals".to_owned(), Value::from(goals.to_vec()));
    }
    if let Some(of) = envelope.application_type {
        selection.insert("application_type".to_owned(), Value::from(of));
    }
    if !selection.is_empty() {
        parameters.insert("selection_query".to_owned(), Value::Object(selection));
    }
    if let Some((filter, _)) = &envelope.filter {
        let rule = serde_json::json!({"filter": filter});
        parameters.insert("filterRule".to_owned(), rule);
    }
    Cow::Owned(parameters)
}

/// A selection of blocks whose filter is that document: `/api/filter`.
///
/// # Errors
/// What is wrong with it, and where.
pub fn filter(envelope: &Envelope<'_>, snapshot: &Snapshot) -> Result<Scored, SelectError> {
    scored(envelope, snapshot, None)
}

fn scored(
    envelope: &Envelope<'_>,
    snapshot: &Snapshot,
    told: Option<&Scored>,
) -> Result<Scored, SelectError> {
    let mut scored = told.cloned().unwrap_or_default();
    let vocabulary = Vocabulary {
        own: &snapshot.settings.scraping.own,
    };
    let [mut filter, mut case] = std::mem::take(&mut scored.asked);
    if let Some((written, at)) = &envelope.filter {
        filter = Some(Arc::new(Query::parse(written, at, vocabulary)?));
    }
    if let Some(app_map) = envelope.app_map {
        scored.app_map = Arc::new(self::app_map(app_map)?);
    }
    if let Some(of) = envelope.application_type.filter(|of| !of.is_empty()) {
        case = Some(Arc::new(use_case(of, &scored.app_map)));
    }
    if let Some((goals, at)) = &envelope.goals {
        scored.goals = goals::goals(goals, at, snapshot)?;
    }
    Ok(scored.among(filter, case))
}

fn app_map(written: &Map<String, Value>) -> Result<BTreeMap<String, String>, QueryError> {
    let pairs = written.iter().map(|(of, case)| match case.as_str() {
        Some(case) => Ok((of.clone(), case.to_owned())),
        None => Err(wrong("", format!("APP_MAP: expected a text for {of:?}"))),
    });
    pairs.collect()
}

fn advised(
    envelope: &Envelope<'_>,
    snapshot: &Snapshot,
    of: &Advised,
    then: Scored,
) -> Result<Advised, QueryError> {
    let given = |key: &str| {
        let parameters = envelope.parameters?;
        parameters.get(key)?.as_str()
    };
    let at = "/parameters";
    let listed = |key: &str| match given(key) {
        None => Ok(None),
        Some(text) => listed(text, snapshot)
            .map(Some)
            .map_err(|message| wrong(&format!("{at}/{key}"), message)),
    };
    let adviser = match &of.adviser {
        Adviser::Remote { url } => Adviser::Remote {
            url: listed("url")?.unwrap_or_else(|| url.clone()),
        },
        Adviser::Llm {
            server,
            block,
            query_string,
        } => {
            let elsewhere = listed("llm_server_address")?;
            let block = match (given("llm_block_id"), &elsewhere) {
                (None, _) => block.clone(),
                // What is served there is for whoever may name it.
                (Some(name), Some(_)) => name.to_owned(),
                (Some(name), None) => judge(name, server.as_ref(), snapshot)
                    .map_err(|message| wrong(&format!("{at}/llm_block_id"), message))?,
            };
            Adviser::Llm {
                block,
                server: elsewhere.or_else(|| server.clone()),
                query_string: (envelope.query_string.map(str::trim))
                    .filter(|text| !text.is_empty())
                    .unwrap_or(query_string)
                    .to_owned(),
            }
        }
    };
    let parameters = envelope
        .parameters
        .and_then(|all| serde_json::to_string(all).ok());
    Ok(Advised {
        adviser,
        then,
        parameters: parameters.map_or_else(|| Arc::clone(&of.parameters), Arc::from),
        ..of.clone()
    })
}

/// The block, if a policy of type `llm` asks it: who answers there is asked past
/// all limits, and so nobody else may be.
fn judge(
    name: &str,
    server: Option<&EngineUrl>,
    snapshot: &Snapshot,
) -> Result<String, &'static str> {
    let policies = &snapshot.policies;
    let mut all = policies.named.values().chain([&policies.default]);
    let asks = |policy: &Arc<Policy>| match &policy.spec.kind {
        PolicyKind::Advised(of) => matches!(
            &of.adviser,
            Adviser::Llm { server: at, block, .. } if block == name && at.as_ref() == server
        ),
        _ => false,
    };
    all.any(asks)
        .then(|| name.to_owned())
        .ok_or("expected the `block` of a policy of type llm, as the configuration has them")
}

/// The URL, if the configuration lists it: nobody else may have us call it.
fn listed(text: &str, snapshot: &Snapshot) -> Result<EngineUrl, String> {
    let mut all = snapshot.settings.routing.matchers.iter();
    let text = text.trim_end_matches('/');
    let known = all.find(|url| url.text().trim_end_matches('/') == text);
    known
        .cloned()
        .ok_or_else(|| format!("{text:?} is not among the configuration's `matchers`"))
}

fn wrong(pointer: &str, message: impl Into<String>) -> QueryError {
    QueryError {
        pointer: pointer.to_owned(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests;
