//! A request that is only thought of: read as one that came, and sent nowhere.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::error::ProxyError;
use super::headers::Pinned;
use super::models::Scope;
use super::wishes::Wishes;
use super::{ask, facts, models, ready, selected, smart};
use crate::config::policies::PolicyKind;
use crate::fleet::{Candidate, Model, Snapshot};
use crate::policy::{Asked, Policy};
use crate::smart::predict::Predictor;
use crate::smart::weigh::ModelChoice;

/// A request as it might come.
#[derive(Debug)]
pub struct Request<'a> {
    /// The path of its URL.
    pub path: &'a str,
    /// Its head.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What is learned of models.
    pub predictor: Arc<Predictor>,
}

/// What a policy would be asked.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// Which policy.
    pub policy: Arc<Policy>,
    /// Among whose engines.
    pub model: &'a Arc<Model>,
    /// For what.
    pub asked: Asked,
    /// The engine that it names itself, whatever the policy.
    pub pinned: Option<&'a Candidate>,
    /// How its model was chosen, if by cost and quality.
    pub model_choice: Option<ModelChoice>,
}

/// Reads the request as the proxy would.
///
/// # Errors
/// What the client would get.
pub fn prepare<'a>(
    snapshot: &'a Snapshot,
    request: Request<'_>,
) -> Result<Prepared<'a>, ProxyError> {
    let mut head = http::Request::new(()).into_parts().0;
    head.method = http::Method::POST;
    head.uri = http::Uri::try_from(request.path).map_err(|error| ProxyError::Header {
        name: ":path".to_owned(),
        message: error.to_string(),
    })?;
    head.headers = request.headers.clone();
    let wishes = Wishes::of(&head.headers, &snapshot.settings.routing.allow)?;
    let policy = ask::policy(snapshot, &wishes, &Pinned::No)?;
    let wanted = ask::wanted(&wishes, &policy.spec.kind, snapshot);
    let mut peeked = facts::look(&head, request.body, wanted)?;
    let from = (&wishes, policy);
    let policy = selected::of(snapshot, &RefCell::default(), from, (&peeked, None))?;
    let (mut policy, mut model_choice) = (policy, None);
    let smart = matches!(policy.spec.kind, PolicyKind::Smart(_));
    let model = if smart {
        let from = (&peeked, &request.predictor);
        let (model, choice) = smart::offline(snapshot, &policy, &wishes, from)?;
        model_choice = choice;
        policy = ready::of_model(snapshot, &policy, model);
        model
    } else {
        match models::scope(snapshot, &policy, (&wishes, &Pinned::No), &peeked)? {
            Scope::Model(model) => model,
            Scope::Blocks => &snapshot.blocks.all,
        }
    };
    let pinned = models::pinned(snapshot, &Pinned::No, &wishes, model)?;
    let from = (&wishes, "127.0.0.1");
    let (asked, _) = ask::asked(&policy, &head, from, (&mut peeked, model), || {
        Duration::ZERO
    });
    Ok(Prepared {
        policy,
        model,
        asked,
        pinned,
        model_choice,
    })
}
