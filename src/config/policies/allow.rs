//! What requests may ask for.

/// Fields `x-pilotfish-*` of a request's head that are heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    /// `x-pilotfish-explain`.
    pub explain: bool,
    /// `x-pilotfish-policy`.
    pub policy: bool,
    /// `x-pilotfish-models`.
    pub models: bool,
    /// `x-pilotfish-select`, and `selection_query` in the body.
    pub select: bool,
    /// `x-pilotfish-qos`.
    pub qos: bool,
    /// `x-pilotfish-engine`.
    pub engine: bool,
    /// `x-pilotfish-timeout-ms`.
    pub timeout: bool,
    /// `x-pilotfish-priority`.
    pub priority: bool,
}

impl Default for Allow {
    fn default() -> Self {
        Self {
            explain: true,
            policy: true,
            models: true,
            select: true,
            qos: true,
            engine: false,
            timeout: true,
            priority: false,
        }
    }
}
