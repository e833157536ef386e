//! The admin listener's `POST /v1/feedback`: how good an answer was.

use std::rc::Rc;

use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Control, admin};
use crate::api::Page;
use crate::api::body::{self, Reading};
use crate::downstream::watch::Deadline;
use crate::smart::learner::FeedbackError;

/// Where it is posted.
pub(super) const PATH: &str = "/v1/feedback";
/// Bytes of one.
const MOST: usize = 16 << 10;

/// What is posted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Feedback {
    /// Of the request, as the answer's `x-request-id` had it.
    request_id: String,
    /// 0 to 1, or whether it was right.
    score: Value,
}

/// Takes how good an answer was; answers when that cannot be lost any more.
pub(super) async fn page(
    control: &Rc<Control>,
    head: &Parts,
    body: Incoming,
    deadline: &Deadline,
) -> Page {
    if head.method != Method::POST {
        let message = "POST {\"request_id\": \"...\", \"score\": 0..1, true or false}.";
        return admin::error(StatusCode::METHOD_NOT_ALLOWED, message).allowing("POST");
    }
    let reading = Reading {
        limit: MOST,
        budget: &control.bodies,
        deadline,
        idle: control.settings.borrow().timeouts.client_body_idle,
    };
    let (body, _share) = match body::read(body, reading).await {
        Ok(body) => body,
        Err(fault) => return fault.page(),
    };
    let (request_id, score) = match read(&body) {
        Ok(feedback) => feedback,
        Err(message) => return admin::error(StatusCode::BAD_REQUEST, &message),
    };
    let Some(started) = control.smart.started() else {
        let message = "No policy of type smart is configured, so nothing is learned: \
                       see `policies` and `shadow_policy`.";
        return admin::error(StatusCode::CONFLICT, message);
    };
    match started.teaching.feedback(request_id, score).await {
        Ok(taken) => admin::json(StatusCode::OK, &json!(taken)),
        Err(error) => {
            let status = match error {
                FeedbackError::Score => StatusCode::BAD_REQUEST,
                FeedbackError::Unknown => StatusCode::NOT_FOUND,
                FeedbackError::Again | FeedbackError::Models => StatusCode::CONFLICT,
                FeedbackError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                FeedbackError::Disk(_) => StatusCode::INSUFFICIENT_STORAGE,
            };
            admin::error(status, &error.to_string())
        }
    }
}

/// The request's id, and the score.
fn read(body: &[u8]) -> Result<(String, f32), String> {
    let feedback: Feedback = serde_json::from_slice(body).map_err(|error| {
        format!("Expected {{\"request_id\": \"...\", \"score\": 0..1}}: {error}.")
    })?;
    let score = match &feedback.score {
        Value::Bool(is_right) => Some(f64::from(u8::from(*is_right))),
        score => score.as_f64(),
    };
    let score = score.filter(|score| (0.0..=1.0).contains(score));
    let score = score.ok_or_else(|| {
        format!(
            "score: {}: expected a number from 0 to 1, true or false.",
            feedback.score
        )
    })?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score needs no more digits"
    )]
    Ok((feedback.request_id, score as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_feedback_and_what_is_not() {
        for (body, expected) in [
            (r#"{"request_id":"a","score":0.25}"#, Ok(("a", 0.25))),
            (r#"{"request_id":"a","score":1}"#, Ok(("a", 1.0))),
            (r#"{"request_id":"a","score":true}"#, Ok(("a", 1.0))),
            (r#"{"request_id":"a","score":false}"#, Ok(("a", 0.0))),
            (r#"{"request_id":"a","score":1.1}"#, Err("from 0 to 1")),
            (r#"{"request_id":"a","score":-1}"#, Err("from 0 to 1")),
            (r#"{"request_id":"a","score":"1"}"#, Err("from 0 to 1")),
            (r#"{"request_id":"a","score":null}"#, Err("from 0 to 1")),
            (r#"{"request_id":"a"}"#, Err("missing field `score`")),
            (r#"{"score":1}"#, Err("missing field `request_id`")),
            (r#"{"request_id":"a","score":NaN}"#, Err("expected")),
            (
                r#"{"request_id":"a","score":1,"x":1}"#,
                Err("unknown field `x`"),
            ),
            ("", Err("EOF")),
        ] {
            match (read(body.as_bytes()), expected) {
                (Ok((id, score)), Ok(expected)) => assert_eq!((&*id, score), expected),
                (Err(message), Err(part)) => assert!(message.contains(part), "{message}"),
                (got, _) => panic!("{body}: {got:?}"),
            }
        }
    }
}
