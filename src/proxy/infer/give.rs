//! What the client of `/v1/infer` gets: an engine's answer in other words, or an
//! error in the shape of this path.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};

use super::answer::{self, Envelope};
use super::choice::Inference;
use super::fault::InferError;
use super::retold::Retold;
use super::sessions::UnderWay;
use super::{JSON, Mode};
use crate::downstream::Serving;
use crate::fleet::engine::Outcome;
use crate::proxy::body::{ObservedBody, Relay};
use crate::proxy::budget::Share;
use crate::proxy::error::ProxyError;
use crate::proxy::verdict::told;
use crate::proxy::{Exchange, ProxyResponse, own};
use crate::upstream::Fault;

/// Bytes of a whole answer at most.
const MOST: usize = 16 << 20;
const ALLOWED: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

impl Exchange<'_> {
    /// An error of ours, in the shape of this path.
    pub(super) fn refuse(&self, error: &ProxyError, serving: Serving) -> ProxyResponse {
        let refusal = self.refusal(error);
        let (head, data) = refusal.into_parts();
        let mut response = own(data, serving);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    /// What may be asked of this path.
    pub(super) fn options(&self, serving: Serving) -> ProxyResponse {
        let status = StatusCode::NO_CONTENT;
        self.meter(Arc::clone(&self.snapshot.all))
            .answers(status.as_u16());
        let mut response = own(Bytes::new(), serving);
        *response.status_mut() = status;
        response.headers_mut().insert(ALLOW, ALLOWED);
        response
    }

    /// The error as the client gets it, counted.
    fn refusal(&self, error: &ProxyError) -> Response<Bytes> {
        self.proxy.settings.refusals.count(error.code());
        let message = serde_json::Value::from(error.to_string()).to_string();
        let mut body = format!(r#"{{"success":false,"message":{message},"#).into_bytes();
        // The body of every error of ours is an object.
        body.extend_from_slice(&error.body()[1..]);
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status(error.status());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(seconds) = error.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if error.status() == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, ALLOWED);
        }
        response
    }

    /// An error's status: in the reference it is always the same.
    fn status(&self, status: StatusCode) -> StatusCode {
        if self.proxy.settings.aios_compat_errors {
            StatusCode::OK
        } else {
            status
        }
    }

    /// Makes an engine's answer this path's.
    pub(super) async fn retell(
        &self,
        response: ProxyResponse,
        inference: &Inference<'_>,
        under_way: UnderWay,
    ) -> ProxyResponse {
        let (mut head, body) = response.into_parts();
        let mut relay = match body {
            ObservedBody::Relay(relay) => relay,
            // It would be another protocol, which nobody has asked for.
            other => return Response::from_parts(head, other),
        };
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(ETAG);
        let is_success = head.status.is_success();
        if inference.stream && is_success && relay.is_stream() {
            let body = Retold::stream(relay, under_way);
            return Response::from_parts(head, ObservedBody::Retold(Box::new(body)));
        }
        let is_encoded = head.headers.remove(CONTENT_ENCODING).is_some();
        let mut share = self.proxy.settings.budget.share();
        let whole = match collect(&mut relay, &mut share).await {
            Ok(_) if is_encoded => Err(InferError::Answer("it is compressed".to_owned()).into()),
            Ok(answer) if is_success => self.tell_whole(inference, &answer),
            Ok(answer) => Ok(answer::error(head.status.as_u16(), &answer)),
            Err(error) => Err(error),
        };
        let data = match whole {
            Ok(data) => {
                relay.gives_own(None);
                if !is_success {
                    head.status = self.status(head.status);
                }
                head.headers.insert(CONTENT_TYPE, JSON);
                Bytes::from(data)
            }
            Err(error) => {
                relay.gives_own(Some(&error));
                let (refused, data) = self.refusal(&error).into_parts();
                head = refused;
                data
            }
        };
        let body = Retold::whole(relay, data, (under_way, share));
        Response::from_parts(head, ObservedBody::Retold(Box::new(body)))
    }

    fn tell_whole(&self, inference: &Inference<'_>, answer: &[u8]) -> Result<String, ProxyError> {
        let mode: Mode = inference.mode;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let mut warnings = inference.warnings.clone();
        warnings.extend(self.ignored(inference));
        let envelope = Envelope {
            model: &inference.answered_by(),
            session: &inference.session,
            seq_no: inference.seq_no,
            ts: since.unwrap_or_default(),
            warnings: &warnings,
        };
        Ok(envelope.whole(mode, answer)?)
    }

    /// What of the selection has no effect.
    fn ignored(&self, inference: &Inference<'_>) -> Vec<String> {
        let Some(selection) = &inference.selection else {
            return Vec::new();
        };
        let Ok((_, policy)) = self.wishes() else {
            return Vec::new();
        };
        // It was read before, and is remembered.
        let mut selections = self.proxy.selections.borrow_mut();
        let read = selections.search(selection.as_bytes(), self.snapshot, Some(policy));
        let ignored = read.map(|selection| {
            let all = selection.ignored.iter();
            all.map(|key| format!("/selection_query: {key} has no effect"))
                .collect()
        });
        ignored.unwrap_or_default()
    }
}

/// All of an engine's answer, on that share of the budget.
async fn collect(relay: &mut Relay, share: &mut Share) -> Result<Vec<u8>, ProxyError> {
    let mut all = Vec::new();
    while let Some(piece) = poll_fn(|cx| relay.poll_piece(cx)).await {
        let piece = piece.map_err(|fault| told(&fault))?;
        share.add(piece.len())?;
        if all.len() + piece.len() > MOST {
            let message = format!("it has more than {MOST} bytes");
            let fault = Fault::Broken(std::io::Error::other(message.clone()));
            relay.broken(fault, Outcome::Failure);
            return Err(InferError::Answer(message).into());
        }
        all.extend_from_slice(&piece);
    }
    Ok(all)
}
