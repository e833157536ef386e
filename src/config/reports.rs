//! What is told of each request that has ended: lines of the access log, spans.

use std::path::PathBuf;

use clap::ValueEnum;
use http::uri::Authority;

/// Where the access log goes, and how its lines look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to.
    pub to: LogTarget,
    /// The form of a line.
    pub form: LineForm,
}

/// Where an access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output, as `-`.
    Stdout,
    /// A file that is appended to.
    File(PathBuf),
}

impl LogTarget {
    /// A path, or `-`.
    ///
    /// # Errors
    /// An empty text.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected a file, or - for standard output".to_owned()),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LineForm {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs, separated by spaces.
    Text,
    /// The demo's columns.
    #[value(skip)]
    Table,
}

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// Who takes them.
    pub collector: Collector,
    /// `service.name` of our spans.
    pub service: String,
    /// Share of the traces begun here that are recorded, 0 to 1. Of those begun
    /// by clients, the clients decide.
    pub sample: f64,
}

/// What is spoken to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otlp {
    /// Protobuf over HTTP/2, as gRPC frames it.
    Grpc,
    /// Protobuf as the body of an HTTP/1.1 POST.
    Http,
}

/// A collector of traces (OTLP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// What it is spoken to in.
    pub speaks: Otlp,
    /// Its name or address and its port, as a URL has them.
    pub authority: Authority,
    /// Its port.
    pub port: u16,
    /// Where spans are posted.
    pub path: String,
    /// Whether TLS is spoken.
    pub is_secure: bool,
}

/// Text that names no collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no collector: expected HOST:PORT or grpc://HOST:PORT (OTLP over gRPC), or \
     http(s)://HOST:PORT[/PATH] (OTLP over HTTP)"
)]
pub struct NoCollector(String);

/// The one method of a collector that takes spans.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Where spans are posted when the URL does not say.
const HTTP_PATH: &str = "/v1/traces";
/// The port that is registered for OTLP over gRPC.
pub const GRPC_PORT: u16 = 4317;

impl Collector {
    /// Reads what `--otel-endpoint` says.
    ///
    /// # Errors
    /// A text that is none of the forms.
    pub fn parse(text: &str) -> Result<Self, NoCollector> {
        let wrong = || NoCollector(text.to_owned());
        let (scheme, rest) = text.split_once("://").unwrap_or(("grpc", text));
        let (speaks, is_secure, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            "grpc" => (Otlp::Grpc, false, GRPC_PORT),
            "http" => (Otlp::Http, false, 80),
            "https" => (Otlp::Http, true, 443),
            _ => return Err(wrong()),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let authority: Authority = authority.parse().map_err(|_| wrong())?;
        let is_bare = !authority.as_str().contains('@') && !authority.host().is_empty();
        let has_port = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            None if has_port => return Err(wrong()),
            port => port.unwrap_or(usual_port),
        };
        let path = match (speaks, path) {
            (Otlp::Grpc, "" | "/") => GRPC_PATH,
            (Otlp::Grpc, _) => return Err(wrong()),
            (Otlp::Http, "" | "/") => HTTP_PATH,
            (Otlp::Http, path) => path,
        };
        let is_path = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_bare || port == 0 || !is_path {
            return Err(wrong());
        }
        Ok(Self {
            speaks,
            authority,
            port,
            path: path.to_owned(),
            is_secure,
        })
    }

    /// Its name or address, as it is looked up: without an address's brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_as_users_write_them() {
        let rows = [
            ("otel:4317", Otlp::Grpc, "otel", 4317, GRPC_PATH, false),
            ("otel", Otlp::Grpc, "otel", 4317, GRPC_PATH, false),
            (
                "grpc://10.0.0.1:9/",
                Otlp::Grpc,
                "10.0.0.1",
                9,
                GRPC_PATH,
                false,
            ),
            ("[::1]:4317", Otlp::Grpc, "::1", 4317, GRPC_PATH, false),
            (
                "http://otel:4318",
                Otlp::Http,
                "otel",
                4318,
                HTTP_PATH,
                false,
            ),
            ("HTTP://otel/", Otlp::Http, "otel", 80, HTTP_PATH, false),
            ("https://otel", Otlp::Http, "otel", 443, HTTP_PATH, true),
            (
                "http://o:1/a/v1?x=1",
                Otlp::Http,
                "o",
                1,
                "/a/v1?x=1",
                false,
            ),
        ];
        for (text, speaks, host, port, path, is_secure) in rows {
            let found = Collector::parse(text).unwrap();
            assert_eq!((found.speaks, found.host()), (speaks, host), "{text}");
            assert_eq!((found.port, &*found.path), (port, path), "{text}");
            assert_eq!(found.is_secure, is_secure, "{text}");
        }
        for text in [
            "",
            ":4317",
            "a:b",
            "a:0",
            "a:99999",
            "ftp://a:1",
            "grpc://a:1/x",
            "http://u:p@a:1",
            "http://a:1/\n",
            "http://",
            "a b:1",
            "http://a:1/#x",
        ] {
            assert!(Collector::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn logs_go_to_a_file_or_to_standard_output() {
        assert_eq!(LogTarget::parse("-"), Ok(LogTarget::Stdout));
        assert_eq!(LogTarget::parse("./-"), Ok(LogTarget::File("./-".into())));
        assert!(LogTarget::parse("").is_err());
    }
}
