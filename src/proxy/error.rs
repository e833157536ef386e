//! Errors of our own making, as OpenAI's API words errors.
//!
//! One table decides status, type, code and parameter; engines' own errors
//! never pass here.

mod code;
mod full;

use http::StatusCode;

use super::admission::shown_model;
use super::infer::fault::InferError;
use super::multipart::FormFault;
use super::peek::PeekFault;
use crate::account::Ending;
use crate::downstream::HeadFault;
use crate::policy::Refusal;
use crate::query::QueryError;
use crate::select::SelectError;
pub use code::{Code, Refusals};
pub use full::Full;

/// Why we, not an engine, answer a request with an error.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The body is no JSON, or says one thing twice.
    #[error("Invalid request: {0}.")]
    Body(#[from] PeekFault),
    /// Neither JSON object nor form where an inference request should be.
    #[error("Invalid request: request body must be a JSON object.")]
    NotAnObject,
    /// An inference request without `model`.
    #[error("Invalid request: missing 'model' in request body.")]
    NoModel,
    /// `model` is null, a number, empty, `auto`, ...
    #[error("Invalid request: 'model' must be the name of a model, as a string.")]
    BadModel,
    /// JSON that is compressed cannot be read on the way.
    #[error("A JSON body with a Content-Encoding is not supported: send it uncompressed.")]
    Encoded,
    /// The body broke off, or its framing is wrong.
    #[error("Invalid request: the request body broke off ({0}).")]
    BodyBroke(String),
    /// The body did not come in time.
    #[error("The request body did not arrive in time.")]
    BodyLate,
    /// That key is not within the bytes that we hold.
    #[error("The request body is too large: no '{0}' in its first {1} bytes. Put '{0}' first.")]
    BodyTooLarge(&'static str, usize),
    /// A body that must be seen whole is longer than what we hold.
    #[error(
        "The request body is too large: a body of one whose API key is for some models alone may \
         have {0} bytes."
    )]
    BodyUnseen(usize),
    /// A form that others may read in another way.
    #[error("Invalid request: of the form, {0}.")]
    Form(#[from] FormFault),
    /// All bodies together are as large as we may hold.
    #[error("Too many large requests at once. Please try again later.")]
    OutOfMemory,
    /// A head that is refused whatever its route.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// Never served by any engine.
    #[error("Model '{0}' not found. Available models can be listed at /v1/models.")]
    ModelNotFound(String),
    /// Known, but no engine serves it now, and for so many seconds perhaps.
    #[error("Model '{model}' is temporarily unavailable. Please try again later.")]
    ModelUnavailable {
        /// The model.
        model: String,
        /// Until the first of its engines may be asked again.
        seconds: u32,
    },
    /// No place in time, or none to wait for one.
    #[error("Too many requests: {0}. Please try again later.")]
    Full(Full),
    /// The request's own time was up before an answer's head.
    #[error("The request's time was up before an engine answered.")]
    Expired,
    /// Out of file descriptors or ports.
    #[error("This proxy has no socket left ({0}). Please try again later.")]
    NoSocket(String),
    /// A field `x-pilotfish-*` that makes no sense, or is not allowed.
    #[error("Invalid header {name}: {message}.")]
    Header {
        /// The field.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A selection by attributes that makes no sense.
    #[error("Invalid selection: {0}.")]
    Selection(#[from] QueryError),
    /// A selection by a policy that there is not.
    #[error("Policy '{0}' not found.")]
    PolicyNotFound(String),
    /// More models to choose from than are looked at.
    #[error("Too many models: one request may list {0}.")]
    TooManyModels(usize),
    /// The engine that a request names serves another model.
    #[error("Engine '{engine}' does not serve the model '{model}'.")]
    EngineWithoutModel {
        /// The engine's id.
        engine: String,
        /// The model asked for.
        model: String,
    },
    /// The engine that a request names is set aside.
    #[error("Engine '{0}' is temporarily unavailable. Please try again later.")]
    EngineAside(String),
    /// Nobody suits: why, and of how many.
    #[error("No engine can take this request: {}.", refused(*.0))]
    Refused(Refusal),
    /// A path that is for one engine, without its id.
    #[error("This is for one engine: give its id as ?id=. The ids are listed at /engines.")]
    NoEngineId,
    /// There is no engine of that id.
    #[error("Engine '{0}' not found. The engines are listed at /engines.")]
    EngineNotFound(String),
    /// What may be wrong with a request to `/v1/infer` alone.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// No engine at all.
    #[error("No engine is available. Please try again later.")]
    NoEngine,
    /// Every engine that was tried failed before its answer's head.
    #[error("The engine could not answer: {0}.")]
    EngineFailed(String),
    /// No engine's answer in time.
    #[error("The engine did not answer in time.")]
    EngineLate,
    /// Nobody knows who sent it; the same for a key that is missing, wrong, or of
    /// yesterday.
    #[error("No valid API key was given: send yours as 'Authorization: Bearer KEY'.")]
    Unauthorized,
    /// The caller may not use that model.
    #[error("Your API key may not be used for {}.", shown_model(.0))]
    ModelNotAllowed(String),
    /// The caller may use some models alone, and nobody knows for which this is.
    #[error("Your API key is for some models alone, and may not be used for this path.")]
    PathNotAllowed,
    /// The caller had as many requests within the minute as it may; seconds until
    /// the next.
    #[error("Your API key has had all its requests for now. Please try again in {0} s.")]
    KeyRate(u32),
    /// The caller has as many requests under way as it may.
    #[error("Your API key has as many requests under way as it may. Please try again later.")]
    KeyBusy,
    /// A fault in this program, which ended this request alone.
    #[error("This proxy met a fault of its own. Other requests are not touched by it.")]
    Panicked,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    kind: &'static str,
    code: Code,
    param: Option<&'static str>,
}

impl ProxyError {
    /// What it is called.
    #[must_use]
    pub fn code(&self) -> Code {
        self.row().code
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Who ended a request that is answered so.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::BodyBroke(_) | Self::BodyLate => Ending::ClientGone,
            Self::EngineFailed(_) | Self::EngineLate => Ending::EngineFailed,
            Self::Expired => Ending::Deadline,
            _ => Ending::Refused,
        }
    }

    /// Seconds for `Retry-After`, where trying again can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::ModelUnavailable { seconds, .. } | Self::KeyRate(seconds) => Some(*seconds),
            _ if RETRIED.contains(&self.status()) => Some(1),
            _ => None,
        }
    }

    /// The body: `{"error": {message, type, param, code}}`.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let Row {
            kind, code, param, ..
        } = self.row();
        // By hand, so that the keys come in the order that OpenAI's have.
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let message = text(&self.to_string());
        let param = param.map_or("null".to_owned(), text);
        let [kind, code] = [kind, code.name()].map(text);
        format!(
            r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#
        )
        .into_bytes()
    }

    fn row(&self) -> Row {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const UNKNOWN: StatusCode = StatusCode::NOT_FOUND;
        const LATER: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        const LATE: StatusCode = StatusCode::GATEWAY_TIMEOUT;
        let model = Some("model");
        match self {
            Self::Body(PeekFault::Duplicate(key) | PeekFault::TooLong(key)) => {
                Row::client(BAD, Code::InvalidValue, Some(key))
            }
            Self::Body(PeekFault::Syntax { .. }) | Self::NotAnObject => {
                Row::client(BAD, Code::InvalidJson, None)
            }
            Self::NoModel => Row::client(BAD, Code::MissingModel, model),
            Self::BadModel => Row::client(BAD, Code::InvalidValue, model),
            Self::Encoded => Row::client(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::UnsupportedEncoding,
                None,
            ),
            Self::BodyBroke(_) => Row::client(BAD, Code::IncompleteBody, None),
            Self::BodyLate => Row::client(StatusCode::REQUEST_TIMEOUT, Code::RequestTimeout, None),
            Self::BodyTooLarge(key, _) => Row::client(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::RequestTooLarge,
                Some(key),
            ),
            Self::BodyUnseen(_) => {
                Row::client(StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, None)
            }
            Self::Form(_) => Row::client(BAD, Code::InvalidValue, model),
            Self::Head(fault) => Row::head(fault),
            Self::ModelNotFound(_) => Row::client(UNKNOWN, Code::ModelNotFound, model),
            Self::NoEngineId => Row::client(BAD, Code::MissingEngineId, Some("id")),
            Self::EngineNotFound(_) => Row::client(UNKNOWN, Code::EngineNotFound, Some("id")),
            Self::Header { .. } => Row::client(BAD, Code::InvalidHeader, None),
            Self::Selection(_) => Row::client(BAD, Code::InvalidSelection, Some("selection_query")),
            Self::PolicyNotFound(_) => {
                Row::client(UNKNOWN, Code::PolicyNotFound, Some("policyRuleURI"))
            }
            Self::TooManyModels(_) => Row::client(BAD, Code::InvalidValue, model),
            Self::EngineWithoutModel { .. } => Row::client(UNKNOWN, Code::EngineNotFound, model),
            Self::EngineAside(_) => Row::server(LATER, Code::EngineUnavailable, None),
            Self::Refused(refusal) => Row::refused(*refusal),
            Self::Infer(error) => Row::infer(error),
            Self::OutOfMemory | Self::NoSocket(_) => Row::server(LATER, Code::Overloaded, None),
            Self::Full(full) => Row::full(full.code()),
            Self::Expired => Row::server(LATE, Code::DeadlineExceeded, None),
            Self::ModelUnavailable { .. } => Row::server(LATER, Code::ModelUnavailable, model),
            Self::NoEngine => Row::server(LATER, Code::NoAvailableEngine, None),
            Self::EngineFailed(_) => Row::server(StatusCode::BAD_GATEWAY, Code::EngineError, None),
            Self::EngineLate => Row::server(LATE, Code::EngineTimeout, None),
            Self::Unauthorized => Row::client(StatusCode::UNAUTHORIZED, Code::InvalidApiKey, None),
            Self::ModelNotAllowed(_) => {
                Row::client(StatusCode::FORBIDDEN, Code::ModelNotAllowed, model)
            }
            Self::PathNotAllowed => Row::client(StatusCode::FORBIDDEN, Code::ModelNotAllowed, None),
            Self::KeyRate(_) => Row::full(Code::RateLimitExceeded),
            Self::KeyBusy => Row::full(Code::TooManyRequestsForKey),
            Self::Panicked => {
                Row::server(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, None)
            }
        }
    }
}

/// A policy's refusal in words.
fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Nobody => "there is none",
        Refusal::Full => "all have as many requests as they may",
        Refusal::NoCapacity => "none of the model's engines does this kind of work",
        Refusal::AllUnhealthy => "all that could are set aside after failures",
        Refusal::PrivacyViolation => "none that is up is trusted with this level of privacy",
        Refusal::QosViolation => "none that is up is as quick as x-pilotfish-qos asks",
        Refusal::LowScore => "none that is up scores as high as the policy's min_score",
        Refusal::NoMatch => "none has the metadata and labels that the selection asks for",
        Refusal::NoMatchNow => "none that has the metadata asked for does as well now as is asked",
    }
}

/// Statuses after which trying again can help.
const RETRIED: [StatusCode; 2] = [
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::TOO_MANY_REQUESTS,
];

impl Row {
    fn full(code: Code) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            kind: "rate_limit_error",
            code,
            param: None,
        }
    }

    fn refused(refusal: Refusal) -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match refusal {
            Refusal::NoCapacity => Self::client(StatusCode::NOT_FOUND, Code::NoCapacity, None),
            Refusal::PrivacyViolation => {
                Self::client(StatusCode::FORBIDDEN, Code::PrivacyViolation, None)
            }
            Refusal::Nobody => Self::server(unavailable, Code::NoAvailableEngine, None),
            Refusal::Full => Self::full(Code::EnginesFull),
            Refusal::AllUnhealthy => Self::server(unavailable, Code::AllUnhealthy, None),
            Refusal::QosViolation => Self::server(unavailable, Code::QosViolation, None),
            Refusal::LowScore => Self::server(unavailable, Code::ScoreTooLow, None),
            Refusal::NoMatch => Self::client(StatusCode::NOT_FOUND, Code::NoMatch, None),
            Refusal::NoMatchNow => Self::server(unavailable, Code::NoMatchNow, None),
        }
    }

    fn head(fault: &HeadFault) -> Self {
        let (status, code) = match fault {
            HeadFault::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed),
            HeadFault::Host(_) => (StatusCode::BAD_REQUEST, Code::BadHost),
            HeadFault::Target(_) => (StatusCode::BAD_REQUEST, Code::BadTarget),
            HeadFault::TargetLong => (StatusCode::URI_TOO_LONG, Code::TargetTooLong),
            HeadFault::Framing(_) => (StatusCode::BAD_REQUEST, Code::BadTransferEncoding),
            HeadFault::Loop => (StatusCode::LOOP_DETECTED, Code::LoopDetected),
            HeadFault::Coding => (StatusCode::NOT_IMPLEMENTED, Code::BadTransferEncoding),
        };
        Self::client(status, code, None)
    }

    fn infer(error: &InferError) -> Self {
        let (status, code, param) = error.row();
        match code {
            Code::Overloaded | Code::EngineError => Self::server(status, code, param),
            _ => Self::client(status, code, param),
        }
    }

    fn client(status: StatusCode, code: Code, param: Option<&'static str>) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code,
            param,
        }
    }

    fn server(status: StatusCode, code: Code, param: Option<&'static str>) -> Self {
        Self {
            status,
            kind: "server_error",
            code,
            param,
        }
    }
}

/// The last event of a stream that an engine cut: the official clients raise an
/// error on it, where a mere end would pass for a whole answer.
pub const CUT_EVENT: &str = concat!(
    r#"data: {"error":{"message":"The engine's stream broke off.","type":"upstream_error","#,
    r#""param":null,"code":"engine_disconnected"}}"#,
    "\n\n"
);

/// The same, of a stream whose own time was up.
pub const LATE_EVENT: &str = concat!(
    r#"data: {"error":{"message":"The request's time was up.","type":"server_error","#,
    r#""param":null,"code":"deadline_exceeded"}}"#,
    "\n\n"
);

impl From<SelectError> for ProxyError {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Query(error) => Self::Selection(error),
            SelectError::PolicyNotFound(name) => Self::PolicyNotFound(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_openai_shaped_with_the_right_status() {
        let duplicate = PeekFault::Duplicate("model");
        let cases = [
            (ProxyError::Body(duplicate), 400, "invalid_value"),
            (ProxyError::NoModel, 400, "missing_model"),
            (ProxyError::BadModel, 400, "invalid_value"),
            (ProxyError::Encoded, 415, "unsupported_encoding"),
            (ProxyError::BodyBroke("x".into()), 400, "incomplete_body"),
            (ProxyError::BodyLate, 408, "request_timeout"),
            (
                ProxyError::BodyTooLarge("model", 9),
                413,
                "request_too_large",
            ),
            (ProxyError::BodyUnseen(9), 413, "request_too_large"),
            (FormFault::TwoModels.into(), 400, "invalid_value"),
            (ProxyError::PathNotAllowed, 403, "model_not_allowed"),
            (ProxyError::OutOfMemory, 503, "overloaded"),
            (
                ProxyError::Head(HeadFault::Method("TRACE".into())),
                405,
                "method_not_allowed",
            ),
            (HeadFault::Host("x").into(), 400, "bad_host"),
            (HeadFault::Target("x").into(), 400, "bad_target"),
            (HeadFault::TargetLong.into(), 414, "target_too_long"),
            (HeadFault::Framing("x").into(), 400, "bad_transfer_encoding"),
            (HeadFault::Loop.into(), 508, "loop_detected"),
            (HeadFault::Coding.into(), 501, "bad_transfer_encoding"),
            (
                ProxyError::ModelNotFound("\"".into()),
                404,
                "model_not_found",
            ),
            (
                ProxyError::ModelUnavailable {
                    model: "m".into(),
                    seconds: 3,
                },
                503,
                "model_unavailable",
            ),
            (ProxyError::NoEngineId, 400, "missing_engine_id"),
            (
                ProxyError::EngineNotFound("x".into()),
                404,
                "engine_not_found",
            ),
            (ProxyError::NoEngine, 503, "no_available_engine"),
            (ProxyError::EngineFailed("x".into()), 502, "engine_error"),
            (ProxyError::EngineLate, 504, "engine_timeout"),
            (ProxyError::Panicked, 500, "internal_error"),
            (ProxyError::Expired, 504, "deadline_exceeded"),
            (ProxyError::NoSocket("x".into()), 503, "overloaded"),
            (ProxyError::Full(Full::Queue), 429, "queue_full"),
            (ProxyError::Full(Full::Late), 429, "queue_timeout"),
            (ProxyError::Full(Full::Saturated), 429, "engines_saturated"),
            (ProxyError::Refused(Refusal::Full), 429, "engines_full"),
            (ProxyError::Unauthorized, 401, "invalid_api_key"),
            (
                ProxyError::ModelNotAllowed("m".into()),
                403,
                "model_not_allowed",
            ),
            (
                ProxyError::ModelNotAllowed(String::new()),
                403,
                "model_not_allowed",
            ),
        ];
        check(&cases);
    }

    #[test]
    fn so_is_every_refusal_of_a_wish_or_a_policy() {
        let cases = [
            (ProxyError::KeyRate(7), 429, "rate_limit_exceeded"),
            (ProxyError::KeyBusy, 429, "too_many_requests_for_key"),
            (
                ProxyError::Header {
                    name: "x-pilotfish-qos".into(),
                    message: "?".into(),
                },
                400,
                "invalid_header",
            ),
            (ProxyError::TooManyModels(64), 400, "invalid_value"),
            (ProxyError::NotAnObject, 400, "invalid_json"),
            (
                ProxyError::EngineAside("x".into()),
                503,
                "engine_unavailable",
            ),
            (
                ProxyError::EngineWithoutModel {
                    engine: "x".into(),
                    model: "m".into(),
                },
                404,
                "engine_not_found",
            ),
            (ProxyError::Refused(Refusal::NoCapacity), 404, "no_capacity"),
            (
                ProxyError::Refused(Refusal::AllUnhealthy),
                503,
                "all_unhealthy",
            ),
            (
                ProxyError::Refused(Refusal::QosViolation),
                503,
                "qos_violation",
            ),
            (
                ProxyError::Refused(Refusal::PrivacyViolation),
                403,
                "privacy_violation",
            ),
            (ProxyError::Refused(Refusal::LowScore), 503, "score_too_low"),
        ];
        check(&cases);
    }

    fn check(cases: &[(ProxyError, u16, &str)]) {
        for (error, status, code) in cases {
            assert_eq!(error.status(), *status, "{error}");
            assert_eq!(error.retry_after().is_some(), matches!(status, 429 | 503));
            let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
            assert_eq!(body["error"]["code"], *code);
            assert_eq!(body["error"]["message"], error.to_string());
            assert!(body["error"].get("param").is_some());
        }
    }

    #[test]
    fn the_cut_event_is_one_event_of_json() {
        for event in [CUT_EVENT, LATE_EVENT] {
            let data = event.strip_prefix("data: ").unwrap();
            let json: serde_json::Value = serde_json::from_str(data).unwrap();
            assert!(json["error"]["message"].is_string());
            assert!(event.ends_with("\n\n"));
        }
    }
}
