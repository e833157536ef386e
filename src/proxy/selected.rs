//! The policy that chooses: the one in force, or what the request selects by.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use super::error::ProxyError;
use super::facts::Peeked;
use super::headers::OWN_PREFIX;
use super::infer::Inference;
use super::wishes::Wishes;
use super::{models, splice};
use crate::config::policies::PolicyKind;
use crate::fleet::Snapshot;
use crate::policy::Policy;
use crate::select::{self, MOST_TEXT, SelectError, Selections};

/// The policy that chooses: the one in force, or what the request selects by.
pub(super) fn of(
    snapshot: &Snapshot,
    selections: &RefCell<Selections>,
    (wishes, policy): (&Wishes<'_>, &Arc<Policy>),
    (peeked, inference): (&Peeked, Option<&Inference<'_>>),
) -> Result<Arc<Policy>, ProxyError> {
    let named = peeked.facts.model.as_deref();
    let named = named.and_then(|name| models::by_model(snapshot, name));
    let base = named.unwrap_or(policy);
    let text = match (wishes.select, &peeked.selection_at) {
        (None, None) => return Ok(Arc::clone(base)),
        (Some(select), None) => Cow::Borrowed(select.as_bytes()),
        // To be selected by is what `/v1/infer` is for.
        (None, Some(_)) if inference.is_none() && !snapshot.settings.routing.allow.select => {
            return Err(select_error(
                "`selection_query` is not allowed here: whoever runs this proxy may add \
                 \"select\" to request_headers.allow",
            ));
        }
        (None, Some(at)) if at.value.end - at.value.start > MOST_TEXT as u64 => {
            let bytes = at.value.end - at.value.start;
            return Err(in_body(select::too_long(bytes).into()));
        }
        (None, Some(at)) => Cow::Owned(splice::bytes(&peeked.held, &at.value)),
        (Some(_), Some(_)) => return Err(select_error("given twice: also as `selection_query`")),
    };
    if text.trim_ascii() == b"null" {
        return Ok(Arc::clone(base));
    }
    if matches!(base.spec.kind, PolicyKind::Federation(_)) {
        return Err(select_error(&format!(
            "the policy {:?} guards privacy, and gives way to no selection",
            base.spec.name
        )));
    }
    let selection = selections.borrow_mut().search(&text, snapshot, Some(base));
    let is_in_body = wishes.select.is_none();
    let selection = selection.map_err(|error| match error {
        error if is_in_body => in_body(error),
        error => error.into(),
    })?;
    if let Some(inference) = inference.filter(|_| is_in_body) {
        inference.ignores(&selection.ignored);
    }
    Ok(Arc::clone(&selection.policy))
}

/// An error in a body's `selection_query`, with its place in the body.
fn in_body(error: SelectError) -> ProxyError {
    match error {
        SelectError::Query(mut error) => {
            error.pointer.insert_str(0, "/selection_query");
            ProxyError::Selection(error)
        }
        error => error.into(),
    }
}

fn select_error(message: &str) -> ProxyError {
    ProxyError::Header {
        name: format!("{OWN_PREFIX}select"),
        message: message.to_owned(),
    }
}
