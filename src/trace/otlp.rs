//! The messages of OTLP 1 that carry spans: the small part of them that we
//! write, field numbers as in opentelemetry-proto (stable since 1.0).

use prost::{Message, Oneof};

/// What is posted to a collector.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceRequest {
    /// Spans by whom they are from.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// What it answers.
#[derive(Clone, PartialEq, Message)]
pub struct ExportTraceServiceResponse {
    /// What it did not take.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What a collector did not take of a batch.
#[derive(Clone, PartialEq, Message)]
pub struct PartialSuccess {
    /// How many spans.
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// Spans of one process.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    /// The process.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// Who tells.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its name and version.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Spans made by one library.
#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    /// The library.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// Its spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// The library that made spans.
#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// One span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// The client's `tracestate`.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What it tells of, with few different values.
    #[prost(string, tag = "5")]
    pub name: String,
    /// [`SERVER`] or [`CLIENT`].
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// All else.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// Whether it failed.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// The flags of its context.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// The kind of a span that serves a request.
pub const SERVER: i32 = 2;
/// The kind of a span that sends one.
pub const CLIENT: i32 = 3;

/// Whether a span failed; unset when it did not.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
    /// [`ERROR`].
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// The code of a span that failed.
pub const ERROR: i32 = 2;

/// An attribute.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// An attribute's value.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// Of one of these kinds.
    #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
    pub value: Option<Value>,
}

/// The kinds of values that we tell.
#[derive(Clone, PartialEq, Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// Yes or no.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// Another number.
    #[prost(double, tag = "4")]
    Double(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl KeyValue {
    /// An attribute of that name.
    #[must_use]
    pub fn new(key: &str, value: impl Into<Value>) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(AnyValue {
                value: Some(value.into()),
            }),
        }
    }
}

/// A batch as it is posted: `resource` is the process.
#[must_use]
pub fn batch(resource: Vec<KeyValue>, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = Scope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource,
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
            }],
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written down byte by byte from the protocol's field numbers: a slip in a
    /// number would otherwise be read back as it was written.
    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let span = Span {
            trace_id: vec![0xaa; 16],
            span_id: vec![0xbb; 8],
            trace_state: "s".to_owned(),
            parent_span_id: vec![0xcc; 8],
            name: "n".to_owned(),
            kind: SERVER,
            start_time_unix_nano: 1,
            end_time_unix_nano: 2,
            attributes: vec![
                KeyValue::new("t", "v"),
                KeyValue::new("b", true),
                KeyValue::new("i", 7u64),
                KeyValue::new("d", 0.5),
            ],
            status: Some(Status {
                message: "m".to_owned(),
                code: ERROR,
            }),
            flags: 0x101,
        };
        let mut expected = vec![0x0a, 16];
        expected.extend([0xaa; 16]);
        expected.extend([0x12, 8]);
        expected.extend([0xbb; 8]);
        expected.extend([0x1a, 1, b's', 0x22, 8]);
        expected.extend([0xcc; 8]);
        expected.extend([0x2a, 1, b'n', 0x30, 2]);
        expected.extend([0x39, 1, 0, 0, 0, 0, 0, 0, 0, 0x41, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0x4a, 8, 0x0a, 1, b't', 0x12, 3, 0x0a, 1, b'v']);
        expected.extend([0x4a, 7, 0x0a, 1, b'b', 0x12, 2, 0x10, 1]);
        expected.extend([0x4a, 7, 0x0a, 1, b'i', 0x12, 2, 0x18, 7]);
        expected.extend([0x4a, 14, 0x0a, 1, b'd', 0x12, 9, 0x21]);
        expected.extend(0.5f64.to_le_bytes());
        expected.extend([0x7a, 5, 0x12, 1, b'm', 0x18, 2]);
        expected.extend([0x85, 0x01, 0x01, 0x01, 0, 0]);
        assert_eq!(span.encode_to_vec(), expected);

        // Tag, length, content.
        let field = |number: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[number << 3 | 2, length], content].concat()
        };
        let whole = batch(vec![KeyValue::new("t", "v")], vec![]).encode_to_vec();
        let version = field(2, env!("CARGO_PKG_VERSION").as_bytes());
        let scope = [field(1, b"pilotfish"), version].concat();
        let value = field(2, &field(1, b"v"));
        let attribute = field(1, &[field(1, b"t"), value].concat());
        let from = [field(1, &attribute), field(2, &field(1, &scope))].concat();
        let expected = field(1, &from);
        assert_eq!(whole, expected);
    }
}
