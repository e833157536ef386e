//! Errors of our own making, as OpenAI's API words errors.
//!
//! One table decides status, type, code and parameter; engines' own errors
//! never pass here.

use http::StatusCode;

use super::peek::PeekFault;

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
    /// No `model` within the bytes that we hold.
    #[error("The request body is too large: no 'model' in its first {0} bytes. Put 'model' first.")]
    BodyTooLarge(usize),
    /// All bodies together are as large as we may hold.
    #[error("Too many large requests at once. Please try again later.")]
    OutOfMemory,
    /// A method that makes no sense here.
    #[error("Method {0} is not supported by this proxy.")]
    Method(String),
    /// Never served by any engine.
    #[error("Model '{0}' not found. Available models can be listed at /v1/models.")]
    ModelNotFound(String),
    /// Known, but no engine serves it now.
    #[error("Model '{0}' is temporarily unavailable. Please try again later.")]
    ModelUnavailable(String),
    /// A path that is for one engine, without its id.
    #[error("This is for one engine: give its id as ?id=. The ids are listed at /engines.")]
    NoEngineId,
    /// There is no engine of that id.
    #[error("Engine '{0}' not found. The engines are listed at /engines.")]
    EngineNotFound(String),
    /// No engine at all.
    #[error("No engine is available. Please try again later.")]
    NoEngine,
    /// Every engine that was tried failed before its answer's head.
    #[error("The engine could not answer: {0}.")]
    EngineFailed(String),
    /// No engine's answer in time.
    #[error("The engine did not answer in time.")]
    EngineLate,
}

/// One row of the table.
struct Row {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    param: Option<&'static str>,
}

impl ProxyError {
    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Seconds for `Retry-After`, where trying again can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1)
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
        let [kind, code] = [kind, code].map(text);
        format!(
            r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#
        )
        .into_bytes()
    }

    fn row(&self) -> Row {
        let model = Some("model");
        match self {
            Self::Body(PeekFault::Duplicate(key) | PeekFault::TooLong(key)) => {
                Row::client(StatusCode::BAD_REQUEST, "invalid_value", Some(key))
            }
            Self::Body(PeekFault::Syntax { .. }) | Self::NotAnObject => {
                Row::client(StatusCode::BAD_REQUEST, "invalid_json", None)
            }
            Self::NoModel => Row::client(StatusCode::BAD_REQUEST, "missing_model", model),
            Self::BadModel => Row::client(StatusCode::BAD_REQUEST, "invalid_value", model),
            Self::Encoded => Row::client(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                None,
            ),
            Self::BodyBroke(_) => Row::client(StatusCode::BAD_REQUEST, "incomplete_body", None),
            Self::BodyLate => Row::client(StatusCode::REQUEST_TIMEOUT, "request_timeout", None),
            Self::BodyTooLarge(_) => {
                Row::client(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", model)
            }
            Self::Method(_) => {
                Row::client(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None)
            }
            Self::ModelNotFound(_) => Row::client(StatusCode::NOT_FOUND, "model_not_found", model),
            Self::NoEngineId => {
                Row::client(StatusCode::BAD_REQUEST, "missing_engine_id", Some("id"))
            }
            Self::EngineNotFound(_) => {
                Row::client(StatusCode::NOT_FOUND, "engine_not_found", Some("id"))
            }
            Self::OutOfMemory => Row::server(StatusCode::SERVICE_UNAVAILABLE, "overloaded", None),
            Self::ModelUnavailable(_) => {
                Row::server(StatusCode::SERVICE_UNAVAILABLE, "model_unavailable", model)
            }
            Self::NoEngine => {
                Row::server(StatusCode::SERVICE_UNAVAILABLE, "no_available_engine", None)
            }
            Self::EngineFailed(_) => Row::server(StatusCode::BAD_GATEWAY, "engine_error", None),
            Self::EngineLate => Row::server(StatusCode::GATEWAY_TIMEOUT, "engine_timeout", None),
        }
    }
}

impl Row {
    fn client(status: StatusCode, code: &'static str, param: Option<&'static str>) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code,
            param,
        }
    }

    fn server(status: StatusCode, code: &'static str, param: Option<&'static str>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_openai_shaped_with_the_right_status() {
        let duplicate = PeekFault::Duplicate("model");
        let cases = [
            (ProxyError::Body(duplicate), 400, "invalid_value"),
            (ProxyError::NotAnObject, 400, "invalid_json"),
            (ProxyError::NoModel, 400, "missing_model"),
            (ProxyError::BadModel, 400, "invalid_value"),
            (ProxyError::Encoded, 415, "unsupported_encoding"),
            (ProxyError::BodyBroke("x".into()), 400, "incomplete_body"),
            (ProxyError::BodyLate, 408, "request_timeout"),
            (ProxyError::BodyTooLarge(9), 413, "request_too_large"),
            (ProxyError::OutOfMemory, 503, "overloaded"),
            (
                ProxyError::Method("TRACE".into()),
                405,
                "method_not_allowed",
            ),
            (
                ProxyError::ModelNotFound("\"".into()),
                404,
                "model_not_found",
            ),
            (
                ProxyError::ModelUnavailable("m".into()),
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
        ];
        for (error, status, code) in cases {
            assert_eq!(error.status(), status, "{error}");
            assert_eq!(error.retry_after().is_some(), status == 503);
            let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
            assert_eq!(body["error"]["code"], code);
            assert_eq!(body["error"]["message"], error.to_string());
            assert!(body["error"].get("param").is_some());
        }
    }

    #[test]
    fn the_cut_event_is_one_event_of_json() {
        let data = CUT_EVENT.strip_prefix("data: ").unwrap();
        let json: serde_json::Value = serde_json::from_str(data).unwrap();
        assert!(json["error"]["message"].is_string());
        assert!(CUT_EVENT.ends_with("\n\n"));
    }
}
