//! What the client of `/v1/infer` gets: an engine's answer in other words, or an
//! error in the shape of this path.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    self, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
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
/// Bytes that are read of an engine's error at most.
const MOST_ERROR: usize = 256 << 10;
/// Fields that speak of the engine's body, which the client does not get.
const OF_BODY: [HeaderName; 13] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_DISPOSITION,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];
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
        let encoding = head.headers.get(CONTENT_ENCODING);
        let is_encoded =
            encoding.is_some_and(|of| !of.as_bytes().eq_ignore_ascii_case(b"identity"));
        for name in &OF_BODY {
            head.headers.remove(name);
        }
        let is_success = head.status.is_success();
        if inference.stream && is_success && !is_encoded && relay.is_stream() {
            let body = Retold::stream(relay, (under_way, inference.bond()));
            return Response::from_parts(head, ObservedBody::Retold(Box::new(body)));
        }
        let mut share = self.proxy.settings.budget.share();
        // Nobody has allowed that; to read it to its end helps nobody.
        let unread = is_encoded.then(|| "it is compressed".to_owned());
        let read = (&mut *relay, &mut share, unread);
        let whole = self.whole(inference, head.status, read).await;
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
                inference.failed(&error);
                relay.gives_own(Some(&error));
                let (refused, data) = self.refusal(&error).into_parts();
                head = refused;
                data
            }
        };
        let body = Retold::whole(relay, data, (under_way, share));
        Response::from_parts(head, ObservedBody::Retold(Box::new(body)))
    }

    /// An engine's whole answer in other words; an error's is read as far as one
    /// makes sense.
    async fn whole(
        &self,
        inference: &Inference<'_>,
        status: StatusCode,
        (relay, share, unread): (&mut Relay, &mut Share, Option<String>),
    ) -> Result<String, ProxyError> {
        let is_success = status.is_success();
        let most = if is_success { MOST } else { MOST_ERROR };
        let read = match unread {
            Some(why) => Err(why),
            None => {
                let all = collect(relay, share, most).await?;
                all.ok_or_else(|| format!("it has more than {most} bytes"))
            }
        };
        match read {
            Ok(answer) if is_success => self.tell_whole(inference, &answer),
            Ok(answer) => Ok(answer::error(status.as_u16(), &answer)),
            Err(why) if is_success => Err(given_up(relay, why, Outcome::Failure)),
            Err(why) => {
                // The request may be to blame for its status.
                let outcome = match status.as_u16() {
                    429 | 503 => Outcome::Overloaded,
                    500.. => Outcome::Failure,
                    _ => Outcome::Unrelated,
                };
                given_up(relay, why, outcome);
                Ok(answer::error(status.as_u16(), b""))
            }
        }
    }

    fn tell_whole(&self, inference: &Inference<'_>, answer: &[u8]) -> Result<String, ProxyError> {
        let mode: Mode = inference.mode;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let warnings = inference.warnings();
        let envelope = Envelope {
            model: &inference.answered_by(),
            session: &inference.session,
            seq_no: inference.seq_no,
            ts: since.unwrap_or_default(),
            warnings: &warnings,
        };
        Ok(envelope.whole(mode, answer)?)
    }
}

/// All of an engine's answer, on that share of the budget; `None`: it has more
/// than so many bytes.
async fn collect(
    relay: &mut Relay,
    share: &mut Share,
    most: usize,
) -> Result<Option<Vec<u8>>, ProxyError> {
    let mut all = Vec::new();
    while let Some(piece) = poll_fn(|cx| relay.poll_piece(cx)).await {
        let piece = piece.map_err(|fault| told(&fault))?;
        share.add(piece.len())?;
        if all.len() + piece.len() > most {
            return Ok(None);
        }
        all.extend_from_slice(&piece);
    }
    Ok(Some(all))
}

/// An answer that is given up before its end.
fn given_up(relay: &mut Relay, message: String, outcome: Outcome) -> ProxyError {
    let fault = Fault::Broken(std::io::Error::other(message.clone()));
    relay.broken(fault, outcome);
    InferError::Answer(message).into()
}
