//! What errors of ours are called, in their bodies and where they are counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::downstream::strict::Unparsed;

/// The `code` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A value that makes no sense.
    InvalidValue,
    /// No JSON where JSON should be.
    InvalidJson,
    /// A field of ours that makes no sense, or is not allowed.
    InvalidHeader,
    /// An inference request without a model.
    MissingModel,
    /// A path that is for one engine, without its id.
    MissingEngineId,
    /// JSON that is compressed.
    UnsupportedEncoding,
    /// The client broke its body off.
    IncompleteBody,
    /// The client sent its body too slowly.
    RequestTimeout,
    /// No model within the bytes that we hold.
    RequestTooLarge,
    /// A method that makes no sense here.
    MethodNotAllowed,
    /// A model that nobody ever served.
    ModelNotFound,
    /// An engine that is not there, or does not serve the model.
    EngineNotFound,
    /// The engine that a request names is set aside.
    EngineUnavailable,
    /// No engine of the model can be asked now.
    ModelUnavailable,
    /// No engine can be asked now.
    NoAvailableEngine,
    /// We are out of memory for bodies, or of sockets.
    Overloaded,
    /// No place, and as many wait as may.
    QueueFull,
    /// It waited for a place as long as one may.
    QueueTimeout,
    /// Each engine tells that it has too much to do.
    EnginesSaturated,
    /// Each engine has as many requests as it may.
    EnginesFull,
    /// No engine does this kind of work.
    NoCapacity,
    /// All that could are set aside.
    AllUnhealthy,
    /// No engine may see the prompt.
    PrivacyViolation,
    /// No engine is quick enough.
    QosViolation,
    /// No engine scores high enough.
    ScoreTooLow,
    /// Every engine that was tried failed.
    EngineError,
    /// No engine answered in time.
    EngineTimeout,
    /// The request's own time was up.
    DeadlineExceeded,
    /// A selection by attributes that makes no sense.
    InvalidSelection,
    /// A selection by a policy that there is not.
    PolicyNotFound,
    /// No engine has the metadata and labels that are asked for.
    NoMatch,
    /// None that has them does as well now as is asked for.
    NoMatchNow,
    /// The same request of the same session is under way.
    DuplicateRequest,
    /// Something that this version does not do.
    NotImplemented,
    /// No Host, two, or one that makes no sense.
    BadHost,
    /// A request's target that makes no sense here.
    BadTarget,
    /// A request's target that is too long.
    TargetTooLong,
    /// A body that is framed in two ways, or in one that we do not know.
    BadTransferEncoding,
    /// Not HTTP/1.1.
    BadRequest,
    /// A head with too many bytes or fields.
    HeadTooLarge,
    /// A head that did not end in time.
    HeadTimeout,
    /// A request that comes back to us.
    LoopDetected,
    /// Nobody knows who sent it.
    InvalidApiKey,
    /// The caller may not use the model.
    ModelNotAllowed,
    /// The caller had as many requests within the minute as it may.
    RateLimitExceeded,
    /// The caller has as many requests under way as it may.
    TooManyRequestsForKey,
    /// A fault in this program.
    InternalError,
}

impl Code {
    /// All codes, as they are written.
    pub const ALL: [(Self, &'static str); 47] = [
        (Self::InvalidValue, "invalid_value"),
        (Self::InvalidJson, "invalid_json"),
        (Self::InvalidHeader, "invalid_header"),
        (Self::MissingModel, "missing_model"),
        (Self::MissingEngineId, "missing_engine_id"),
        (Self::UnsupportedEncoding, "unsupported_encoding"),
        (Self::IncompleteBody, "incomplete_body"),
        (Self::RequestTimeout, "request_timeout"),
        (Self::RequestTooLarge, "request_too_large"),
        (Self::MethodNotAllowed, "method_not_allowed"),
        (Self::ModelNotFound, "model_not_found"),
        (Self::EngineNotFound, "engine_not_found"),
        (Self::EngineUnavailable, "engine_unavailable"),
        (Self::ModelUnavailable, "model_unavailable"),
        (Self::NoAvailableEngine, "no_available_engine"),
        (Self::Overloaded, "overloaded"),
        (Self::QueueFull, "queue_full"),
        (Self::QueueTimeout, "queue_timeout"),
        (Self::EnginesSaturated, "engines_saturated"),
        (Self::EnginesFull, "engines_full"),
        (Self::NoCapacity, "no_capacity"),
        (Self::AllUnhealthy, "all_unhealthy"),
        (Self::PrivacyViolation, "privacy_violation"),
        (Self::QosViolation, "qos_violation"),
        (Self::ScoreTooLow, "score_too_low"),
        (Self::EngineError, "engine_error"),
        (Self::EngineTimeout, "engine_timeout"),
        (Self::DeadlineExceeded, "deadline_exceeded"),
        (Self::InvalidSelection, "invalid_selection"),
        (Self::PolicyNotFound, "policy_not_found"),
        (Self::NoMatch, "no_match"),
        (Self::NoMatchNow, "no_match_now"),
        (Self::DuplicateRequest, "duplicate_request"),
        (Self::NotImplemented, "not_implemented"),
        (Self::BadHost, "bad_host"),
        (Self::BadTarget, "bad_target"),
        (Self::TargetTooLong, "target_too_long"),
        (Self::BadTransferEncoding, "bad_transfer_encoding"),
        (Self::BadRequest, "bad_request"),
        (Self::HeadTooLarge, "head_too_large"),
        (Self::HeadTimeout, "head_timeout"),
        (Self::LoopDetected, "loop_detected"),
        (Self::InvalidApiKey, "invalid_api_key"),
        (Self::ModelNotAllowed, "model_not_allowed"),
        (Self::RateLimitExceeded, "rate_limit_exceeded"),
        (Self::TooManyRequestsForKey, "too_many_requests_for_key"),
        (Self::InternalError, "internal_error"),
    ];

    /// What a request is counted as that there never was.
    #[must_use]
    pub fn of_unparsed(unparsed: Unparsed) -> Self {
        match unparsed {
            Unparsed::Bad => Self::BadRequest,
            Unparsed::TargetLong => Self::TargetTooLong,
            Unparsed::TooLarge => Self::HeadTooLarge,
            Unparsed::Late => Self::HeadTimeout,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Requests that got an error of ours, by code.
#[derive(Debug)]
pub struct Refusals([AtomicU64; Code::ALL.len()]);

// The library's own is for 32 at most.
impl Default for Refusals {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, code: Code) {
        self.0[code as usize].fetch_add(1, Relaxed);
    }

    /// All counts, in the order of [`Code::ALL`].
    #[must_use]
    pub fn read(&self) -> [u64; Code::ALL.len()] {
        std::array::from_fn(|at| self.0[at].load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_index_their_own_counters() {
        let refusals = Refusals::default();
        for (index, (code, name)) in Code::ALL.iter().enumerate() {
            assert_eq!((*code as usize, code.name()), (index, *name));
            refusals.count(*code);
        }
        assert_eq!(refusals.read(), [1; Code::ALL.len()]);
    }
}
