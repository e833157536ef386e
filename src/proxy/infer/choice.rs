//! Who answers a request to `/v1/infer`: the block or model that it names, the
//! block that its session was given before, or the best.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::request::{Mode, Request};
use super::sessions::{Bond, Known, Sessions};
use crate::config::policies::{PolicyKind, PolicySpec, Scored};
use crate::fleet::blocks::Block;
use crate::policy::{Asked, Policy};
use crate::proxy::error::ProxyError;
use crate::proxy::{Exchange, models};
use crate::registry::ATTRIBUTE_BASED;
use crate::select::MOST_TEXT;

/// Whether the session had its block before.
const STICKY: HeaderName = HeaderName::from_static("x-pilotfish-sticky");
/// The block that was selected.
const BLOCK: HeaderName = HeaderName::from_static("x-pilotfish-block");

/// Whom a request is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whom<'a> {
    /// This block, which it names.
    Block(&'a Block),
    /// A model, which it names.
    Model,
    /// Whichever block is the best.
    Best,
}

/// What is kept of a request to `/v1/infer` once it was translated.
#[derive(Debug)]
pub(crate) struct Inference<'a> {
    whom: Whom<'a>,
    sessions: &'a Arc<Sessions>,
    key: u64,
    query: u64,
    /// The model as it was asked for, if any was.
    model: Option<String>,
    pub(super) session: String,
    pub(super) seq_no: u64,
    pub(super) mode: Mode,
    pub(super) stream: bool,
    warnings: Vec<String>,
    /// What of the selection has no effect.
    ignored: RefCell<Vec<&'static str>>,
    /// The block that was selected, now or before.
    chosen: RefCell<Option<Arc<str>>>,
    sticky: Cell<Option<Sticky>>,
}

/// How a session came by its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sticky {
    /// It had it before.
    Hit,
    /// It is new.
    Miss,
    /// The one that it had does not suit any more, or another query selected it.
    Rebound,
}

impl<'a> Inference<'a> {
    pub(super) fn new(
        request: &Request<'_>,
        whom: Whom<'a>,
        (sessions, head): (&'a Arc<Sessions>, &HeaderMap),
    ) -> Self {
        let selection = request.selection.map(|selection| selection.get());
        let mut warnings = request.warnings.clone();
        if selection.is_some() && !matches!(whom, Whom::Best) {
            warnings.push("/selection_query has no effect: model is given".to_owned());
        }
        let selection = selection.filter(|_| matches!(whom, Whom::Best));
        Self {
            whom,
            sessions,
            key: sessions.key(&request.session),
            query: sessions.query(&query(request.model.as_deref(), selection, head)),
            model: request.model.clone(),
            session: request.session.clone(),
            seq_no: request.seq_no,
            mode: request.job.mode,
            stream: request.job.stream,
            warnings,
            ignored: RefCell::default(),
            chosen: RefCell::default(),
            sticky: Cell::default(),
        }
    }

    /// The session as policies may place requests by it.
    pub(in crate::proxy) fn session(&self) -> &str {
        &self.session
    }

    /// The best block was this one.
    pub(in crate::proxy) fn bind(&self, block: &Arc<str>) {
        self.sessions
            .bind(self.key, self.query, block, Instant::now());
        *self.chosen.borrow_mut() = Some(Arc::clone(block));
    }

    /// There was no answer: if that is the block's fault, the next request of the
    /// session is free to have another one.
    pub(super) fn failed(&self, error: &ProxyError) {
        if matches!(
            error,
            ProxyError::EngineFailed(_)
                | ProxyError::EngineLate
                | ProxyError::ModelUnavailable { .. }
                | ProxyError::NoEngine
        ) {
            self.bond().iter().for_each(Bond::part);
        }
    }

    /// What binds the session to the block that was selected.
    pub(super) fn bond(&self) -> Option<Bond> {
        let chosen = self.chosen.borrow();
        chosen.as_ref().map(|block| Bond {
            sessions: Arc::clone(self.sessions),
            session: self.key,
            query: self.query,
            block: Arc::clone(block),
        })
    }

    /// These keys of the selection have no effect.
    pub(in crate::proxy) fn ignores(&self, keys: &[&'static str]) {
        *self.ignored.borrow_mut() = keys.to_vec();
    }

    /// All that has no effect.
    pub(super) fn warnings(&self) -> Vec<String> {
        let ignored = self.ignored.borrow();
        let ignored = ignored
            .iter()
            .map(|key| format!("/selection_query: {key} has no effect"));
        self.warnings.iter().cloned().chain(ignored).collect()
    }

    /// The model as it was asked for, or the block that was selected.
    pub(super) fn answered_by(&self) -> String {
        let chosen = self.chosen.borrow();
        let chosen = chosen.as_ref().map(|block| block.to_string());
        chosen.or_else(|| self.model.clone()).unwrap_or_default()
    }

    /// Tells of the block, if one was selected.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let chosen = self.chosen.borrow();
        let Some(block) = chosen.as_deref() else {
            return;
        };
        if let Ok(block) = HeaderValue::from_str(block) {
            headers.insert(BLOCK, block);
        }
        let sticky = self.sticky.get().map(|sticky| match sticky {
            Sticky::Hit => "hit",
            Sticky::Miss => "miss",
            Sticky::Rebound => "rebound",
        });
        if let Some(sticky) = sticky {
            headers.insert(STICKY, HeaderValue::from_static(sticky));
        }
    }
}

/// All by which a block is selected, in one form: white space and the order of
/// keys do not matter.
fn query(model: Option<&str>, selection: Option<&str>, head: &HeaderMap) -> String {
    let model = model.unwrap_or_default();
    let field = |name: &str| head.get(name).and_then(|value| value.to_str().ok());
    let [policy, select] = ["x-pilotfish-policy", "x-pilotfish-select"].map(field);
    let selection = selection.unwrap_or_default();
    let parsed = Some(selection).filter(|text| text.len() <= MOST_TEXT);
    let parsed = parsed.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let selection = parsed.map_or_else(|| selection.to_owned(), |value| value.to_string());
    let [policy, select] = [policy, select].map(Option::unwrap_or_default);
    format!("{model}\n{policy}\n{select}\n{selection}")
}

impl Exchange<'_> {
    /// Whom a request to `/v1/infer` is for, and the name for the engine's body.
    pub(super) fn whom(&self, model: Option<&str>) -> Result<(Whom<'_>, String), ProxyError> {
        let snapshot = self.snapshot;
        let Some(name) = model else {
            return Ok((Whom::Best, String::new()));
        };
        if let Some(block) = snapshot.blocks.named(name) {
            return Ok((Whom::Block(block), block.model.name.to_string()));
        }
        if snapshot.model(name).is_some() {
            return Ok((Whom::Model, name.to_owned()));
        }
        if models::by_model(snapshot, name).is_some() {
            return Ok((Whom::Best, name.to_owned()));
        }
        Err(ProxyError::ModelNotFound(name.to_owned()))
    }

    /// The block of a request that is not to be searched for, and who chooses: of
    /// a block's engines whoever picks instances.
    pub(in crate::proxy) fn given(&self, policy: Arc<Policy>) -> (Arc<Policy>, Option<&Block>) {
        let Some(inference) = self.inference else {
            return (policy, None);
        };
        let (policy, block) = match inference.whom {
            Whom::Model => return (policy, None),
            Whom::Block(block) => (policy, Some(block)),
            Whom::Best => {
                let policy = selecting(self, policy);
                let block = self.kept(inference, &policy);
                (policy, block)
            }
        };
        let instance = policy.instance.as_ref().filter(|_| block.is_some());
        (
            instance.map_or_else(|| Arc::clone(&policy), Arc::clone),
            block,
        )
    }

    /// The block that the session was given before, if it still suits.
    fn kept(&self, inference: &Inference<'_>, policy: &Arc<Policy>) -> Option<&Block> {
        let now = Instant::now();
        let known = inference.sessions.find(inference.key, inference.query, now);
        inference.sticky.set(Some(match known {
            Known::Nothing => Sticky::Miss,
            Known::Other | Known::Block(_) => Sticky::Rebound,
        }));
        let Known::Block(id) = known else {
            return None;
        };
        let blocks = &self.snapshot.blocks;
        let mut list = blocks.list().iter();
        let at = list.position(|block| block.id == id)?;
        let asked = Asked::default();
        if !self
            .choosing(policy, &blocks.all, &asked, None)
            .fits(at, now)
        {
            return None;
        }
        inference.sticky.set(Some(Sticky::Hit));
        *inference.chosen.borrow_mut() = Some(id);
        Some(&blocks.list()[at])
    }
}

/// Who selects a block: the policy if it does, else the built-in one.
fn selecting(exchange: &Exchange<'_>, policy: Arc<Policy>) -> Arc<Policy> {
    if policy.spec.kind.scored().is_some() {
        return policy;
    }
    let built_in = exchange.snapshot.policies.find(ATTRIBUTE_BASED);
    built_in.cloned().unwrap_or_else(|| {
        let spec = PolicySpec::plain(ATTRIBUTE_BASED, PolicyKind::Scored(Scored::default()));
        Policy::new(spec, None)
    })
}
