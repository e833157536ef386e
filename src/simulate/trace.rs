//! Traces of requests, as JSON lines in the form of the public Mooncake traces:
//! when a request came, how long it is, and which prefix blocks it is made of.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tokens of one prefix block.
pub const BLOCK_TOKENS: u32 = 512;
/// Seconds from the first request to the last, at most: a month.
const LONGEST: f64 = 31.0 * 86_400.0;
/// Lines that a trace has at most.
const MOST_LINES: usize = 20_000_000;
/// Bytes that a line has at most: a million blocks fit.
const LINE_BYTES: usize = 32 << 20;
const EXPECTED: &str = "expected a JSON object with timestamp (milliseconds), input_length, \
    output_length and hash_ids";

/// One request of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Seconds since the start.
    pub at: f64,
    /// Length of the prompt.
    pub input_tokens: u32,
    /// Length of the answer; at least 1.
    pub output_tokens: u32,
    /// The prompt's prefix blocks, in order; equal ids are equal text.
    pub blocks: Vec<u64>,
    /// The conversation that it belongs to.
    pub session: Option<u64>,
    /// The model that it asks for.
    pub model: Option<String>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The trace.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is no request.
    #[error("{}, line {line}: {problem}; {EXPECTED}", path.display())]
    Line {
        /// The trace.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no request in it.
    #[error("{}: no request in it; {EXPECTED} on every line", path.display())]
    Empty {
        /// The trace.
        path: PathBuf,
    },
    /// The last request comes too long after the first.
    #[error("{}: {days:.0} days from the first request to the last; timestamps are in milliseconds", path.display())]
    TooFar {
        /// The trace.
        path: PathBuf,
        /// How long it is.
        days: f64,
    },
    /// There are too many lines.
    #[error("{}: expected at most {MOST_LINES} lines", path.display())]
    TooLong {
        /// The trace.
        path: PathBuf,
    },
}

/// A line as it is read; other keys are passed over.
#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
    session: Option<Value>,
    model: Option<String>,
}

/// A line as it is written.
#[derive(Serialize)]
struct Written<'a> {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: &'a [u64],
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
}

/// The requests of a trace, by time. An answer without a token is taken to
/// have one.
pub fn read(path: &Path) -> Result<Vec<Request>, TraceError> {
    let failed = |source| TraceError::Read {
        path: path.to_owned(),
        source,
    };
    let mut from = BufReader::new(File::open(path).map_err(failed)?);
    let mut requests = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let mut one = from.by_ref().take(LINE_BYTES as u64);
        if one.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        if line > MOST_LINES {
            return Err(TraceError::TooLong {
                path: path.to_owned(),
            });
        }
        if bytes.trim_ascii().is_empty() && bytes.len() < LINE_BYTES {
            continue;
        }
        requests.push(request(&bytes).map_err(|problem| TraceError::Line {
            path: path.to_owned(),
            line,
            problem,
        })?);
    }
    if requests.is_empty() {
        return Err(TraceError::Empty {
            path: path.to_owned(),
        });
    }
    requests.sort_by(|one, other| one.at.total_cmp(&other.at));
    // Moments may be of any clock: the trace begins at its first request.
    let first = requests.first().map_or(0.0, |first| first.at);
    requests.iter_mut().for_each(|request| request.at -= first);
    let span = requests.last().map_or(0.0, |last| last.at);
    if span > LONGEST {
        return Err(TraceError::TooFar {
            path: path.to_owned(),
            days: span / 86_400.0,
        });
    }
    Ok(requests)
}

/// The request that a line holds, or what is wrong with it.
fn request(bytes: &[u8]) -> Result<Request, String> {
    if bytes.len() >= LINE_BYTES {
        return Err(format!("longer than {LINE_BYTES} bytes"));
    }
    let line: Line = serde_json::from_slice(bytes.trim_ascii()).map_err(|error| problem(&error))?;
    if line.timestamp < 0.0 {
        return Err(format!("timestamp {} is negative", line.timestamp));
    }
    let session = match line.session {
        None => None,
        Some(value) => Some(session(&value)?),
    };
    Ok(Request {
        at: line.timestamp / 1000.0,
        input_tokens: line.input_length,
        output_tokens: line.output_length.max(1),
        blocks: line.hash_ids,
        session,
        model: line.model,
    })
}

/// The message without its position: each line is parsed as a text of its own,
/// so that it always says "line 1".
fn problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

/// A session's number. What is one already stays, so that a trace that was
/// written is read as it was; all else is hashed.
fn session(value: &Value) -> Result<u64, String> {
    match value {
        Value::String(text) => Ok(hash(text)),
        Value::Number(number) => Ok(number.as_u64().unwrap_or_else(|| hash(&number.to_string()))),
        _ => Err("session is neither a string nor a number".to_owned()),
    }
}

/// FNV-1a: the same in every build, as the standard library's need not be.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes requests as [`read`] reads them.
pub fn write(requests: &[Request], to: &mut dyn Write) -> io::Result<()> {
    for request in requests {
        let line = Written {
            timestamp: request.at * 1000.0,
            input_length: request.input_tokens,
            output_length: request.output_tokens,
            hash_ids: &request.blocks,
            session: request.session,
            model: request.model.as_deref(),
        };
        serde_json::to_writer(&mut *to, &line)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Divides all times by `factor`, which is above 0: 2 is twice the load.
pub fn scale(requests: &mut [Request], factor: f64) {
    for request in requests {
        request.at /= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace of this text, in a file that is gone afterwards.
    fn parsed(name: &str, text: &[u8]) -> Result<Vec<Request>, TraceError> {
        let name = format!("pilotfish-trace-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let requests = read(&path);
        std::fs::remove_file(&path).unwrap();
        requests
    }

    fn some() -> Vec<Request> {
        let plain = Request {
            at: 0.0,
            input_tokens: 700,
            output_tokens: 9,
            blocks: vec![1, u64::MAX],
            session: None,
            model: None,
        };
        let full = Request {
            at: 1.5,
            session: Some(u64::MAX - 1),
            model: Some("a \"model\"".to_owned()),
            ..plain.clone()
        };
        vec![plain, full]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut text = Vec::new();
        write(&some(), &mut text).unwrap();
        assert_eq!(parsed("round", &text).unwrap(), some());
    }

    #[test]
    fn lines_of_all_shapes_by_time() {
        let text = b"\n{\"timestamp\": 2000, \"input_length\": 1, \"output_length\": 0, \
            \"hash_ids\": [7], \"session\": \"abc\", \"other\": {}}\r\n   \n\
            {\"timestamp\": 1000.5, \"input_length\": 2, \"output_length\": 3, \
            \"hash_ids\": [], \"session\": -1}\n\
            {\"timestamp\": 3000, \"input_length\": 1, \"output_length\": 5, \
            \"hash_ids\": [7], \"session\": \"abc\", \"model\": null}";
        let requests = parsed("shapes", text).unwrap();
        let times: Vec<f64> = requests.iter().map(|one| one.at).collect();
        assert_eq!(times, [0.0, 0.9995, 1.9995]);
        assert_eq!(requests[1].output_tokens, 1);
        assert_eq!(requests[1].session, requests[2].session);
        assert_ne!(requests[0].session, requests[1].session);
        assert_eq!(requests[1].session, Some(0xe71f_a219_0541_574b));
    }

    #[test]
    fn errors_say_where_and_what() {
        let good = "{\"timestamp\":1,\"input_length\":2,\"output_length\":3,\"hash_ids\":[]";
        for (name, bad, part) in [
            ("json", "{", "EOF while parsing an object at column 1"),
            (
                "missing",
                "{\"timestamp\":1}",
                "missing field `input_length`",
            ),
            ("session", &format!("{good},\"session\":[]}}"), "session is"),
            ("negative", &good.replace(":1", ":-1"), "negative"),
            ("text", "hello", "line 3"),
        ] {
            let bad = match name {
                "negative" => format!("{bad}}}"),
                _ => bad.to_owned(),
            };
            let error = parsed(name, format!("{good}}}\n\n{bad}\n").as_bytes());
            let message = error.unwrap_err().to_string();
            for part in [part, ", line 3: ", name, "expected a JSON object"] {
                assert!(message.contains(part), "{message}: {part}");
            }
        }
        let message = parsed("empty", b"\n \n").unwrap_err().to_string();
        assert!(message.contains("no request"), "{message}");
        let message = read(Path::new("/no/such/trace")).unwrap_err().to_string();
        assert!(message.starts_with("/no/such/trace: "), "{message}");
    }

    #[test]
    fn scaling_divides_times() {
        let mut requests = some();
        scale(&mut requests, 2.0);
        assert_eq!((requests[0].at, requests[1].at), (0.0, 0.75));
    }
}
