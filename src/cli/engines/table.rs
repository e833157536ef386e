//! The page of engines as a text in columns.
//!
//! Names come from engines: they are cut, and hold nothing that a terminal
//! would act upon. What a page does not have is shown as "-": other routers
//! have such a page, with less in it.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Characters of an engine's URL at most: beginning and end tell most.
const URL: usize = 44;
/// Characters of the models' names at most.
const MODELS: usize = 32;
/// A character for what was left out.
const CUT: char = '…';

/// The columns, from the left.
const HEADER: [&str; 14] = [
    "engine",
    "state",
    "models",
    "in flight",
    "running",
    "waiting",
    "over 1m",
    "QPS",
    "TTFT ms",
    "ITL ms",
    "tokens/s",
    "KV %",
    "failed",
    "age s",
];
/// Columns of words; they stand at the left, numbers at the right.
const WORDS: usize = 3;
/// The column of the state.
const STATE: usize = 1;

/// Whether there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// None.
    Plain,
    /// Those of ANSI.
    Coloured,
}

/// One engine of the page.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    engine_id: String,
    #[serde(default)]
    serving_models: Vec<String>,
    in_flight: Option<u64>,
    state: Option<String>,
    closed: Option<String>,
    attributes_age_seconds: Option<f64>,
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default)]
    window: Window,
}

/// What the sidecar saw of it.
#[derive(Debug, Default, Deserialize)]
struct Window {
    seconds: Option<f64>,
    qps: Option<f64>,
    ttft_ms: Option<f64>,
    itl_ms: Option<f64>,
    tokens_per_second: Option<f64>,
    failed: Option<u64>,
}

impl Entry {
    /// Whether it may be asked as any other.
    pub(super) fn is_healthy(&self) -> bool {
        self.state.as_deref().is_none_or(|state| state == "healthy")
    }

    /// What is wrong with it; that failing, whether it is to get nothing new.
    fn state(&self) -> String {
        let is_well = matches!(self.state.as_deref(), None | Some("healthy" | "unready"));
        if let Some(closed) = self.closed.as_deref().filter(|_| is_well) {
            return clean(closed);
        }
        self.state.as_deref().map_or_else(none, clean)
    }

    fn cells(&self) -> [String; HEADER.len()] {
        let told = |name: &str| self.attributes.get(name).and_then(Value::as_f64);
        let window = &self.window;
        [
            shortened(&self.engine_id, URL),
            self.state(),
            models(&self.serving_models),
            whole(self.in_flight),
            told("requests_running").map_or_else(none, |count| format!("{count:.0}")),
            told("requests_waiting").map_or_else(none, |count| format!("{count:.0}")),
            number(told("queue_length.average_1m")),
            window.qps.map_or_else(none, |qps| format!("{qps:.2}")),
            number(window.ttft_ms),
            number(window.itl_ms),
            number(window.tokens_per_second),
            number(told("kv_cache_usage").map(|part| part * 100.0)),
            whole(window.failed),
            number(self.attributes_age_seconds),
        ]
    }
}

/// The engines of a page.
pub(super) fn read(page: &Value) -> anyhow::Result<Vec<Entry>> {
    Vec::deserialize(page).context("the answer is JSON, but no list of engines")
}

/// A line of sums, and a line for each engine under a header.
pub(super) fn table(entries: &[Entry], look: Look) -> String {
    let mut text = sums(entries);
    if entries.is_empty() {
        return text;
    }
    text.push('\n');
    let header = HEADER.map(str::to_owned);
    let rows: Vec<_> = entries.iter().map(Entry::cells).collect();
    let mut widths = HEADER.map(|name| name.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    push_line(&mut text, &header, &widths, Look::Plain);
    for row in &rows {
        push_line(&mut text, row, &widths, look);
    }
    text
}

fn push_line(
    text: &mut String,
    cells: &[String; HEADER.len()],
    widths: &[usize; HEADER.len()],
    look: Look,
) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column > 0 {
            text.push_str("  ");
        }
        // Colours are no characters: they come after the widths.
        let padded = if column < WORDS {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        };
        match colour(cell) {
            Some(code) if column == STATE && look == Look::Coloured => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\x1b[{code}m{padded}\x1b[0m");
            }
            _ => text.push_str(&padded),
        }
    }
    text.push('\n');
}

/// Green, yellow for who may come back any moment, red for who cannot be asked.
fn colour(state: &str) -> Option<u8> {
    match state {
        "healthy" => Some(32),
        "trial" | "pressed" | "asleep" | "draining" | "not ready" | "no models" => Some(33),
        "ejected" | "down" => Some(31),
        _ => None,
    }
}

fn sums(entries: &[Entry]) -> String {
    let may_be_asked = |entry: &&Entry| entry.is_healthy() && entry.closed.is_none();
    let healthy = entries.iter().filter(may_be_asked).count();
    let in_flight: u64 = entries.iter().filter_map(|entry| entry.in_flight).sum();
    let windows = || entries.iter().map(|entry| &entry.window);
    let qps: f64 = windows().filter_map(|window| window.qps).sum();
    let tokens: f64 = windows().filter_map(|one| one.tokens_per_second).sum();
    let mut text = format!("engines: {}, healthy: {healthy}", entries.len());
    // Writing to a String cannot fail.
    let _ = write!(text, "; {in_flight} requests in flight");
    if let Some(seconds) = windows().find_map(|window| window.seconds) {
        let _ = write!(
            text,
            "; over {seconds:.0} s: {qps:.2} requests/s, {tokens:.1} tokens/s"
        );
    }
    text.push('\n');
    text
}

/// The first names, and how many more there are.
fn models(names: &[String]) -> String {
    let Some(first) = names.first() else {
        return none();
    };
    let mut shown = shortened(first, MODELS);
    for (at, name) in names.iter().enumerate().skip(1) {
        let name = shortened(name, MODELS);
        // Room for the number of those that are left.
        if shown.chars().count() + name.chars().count() + 2 > MODELS {
            let _ = write!(shown, " +{}", names.len() - at);
            break;
        }
        shown.push(',');
        shown.push_str(&name);
    }
    shown
}

/// The beginning and the end of what is too long.
fn shortened(text: &str, most: usize) -> String {
    let text = clean(text);
    let count = text.chars().count();
    if count <= most {
        return text;
    }
    let (head, tail) = (most / 2, most - most / 2 - 1);
    let mut short: String = text.chars().take(head).collect();
    short.push(CUT);
    short.extend(text.chars().skip(count - tail));
    short
}

/// Without what a terminal would act upon, or write from right to left.
fn clean(text: &str) -> String {
    let plain = text
        .chars()
        .map(|c| if is_plain(c) { c } else { '\u{fffd}' });
    plain.collect()
}

/// JSON with its newlines and without the same, which it has as escapes.
pub(super) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_plain(c) {
            text.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        }
    }
    text
}

/// Whether a terminal shows it, and does no more; what is not is of the first
/// plane.
fn is_plain(c: char) -> bool {
    let is_hidden = matches!(
        c,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
    );
    !c.is_control() && !is_hidden
}

fn none() -> String {
    "-".to_owned()
}

fn whole(count: Option<u64>) -> String {
    count.map_or_else(none, |count| count.to_string())
}

/// Three digits or so: more would not be read.
fn number(value: Option<f64>) -> String {
    match value {
        None => none(),
        Some(value) if value == 0.0 || value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page() -> Value {
        json!([
            {
                "engine_id": "http://10.0.0.1:8000", "serving_models": ["llama-3", "sql"], "created": 1,
                "in_flight": 3, "state": "healthy", "is_set_aside": false, "attributes_age_seconds": 1.25,
                "attributes": {"requests_running": 7.0, "requests_waiting": 0.0, "queue_length.average_1m": 2.25, "kv_cache_usage": 0.625, "names": ["x"]},
                "window": {"seconds": 60.0, "qps": 1.5, "ttft_ms": 42.31, "itl_ms": 8.04, "latency_ms": 900.0,
                    "tokens_per_second": 212.4, "finished": 90, "failed": 0}
            },
            {
                "engine_id": "http://10.0.0.2:8000", "serving_models": ["llama-3"], "created": 1,
                "in_flight": 0, "state": "ejected", "is_set_aside": true, "attributes_age_seconds": null,
                "attributes": {},
                "window": {"seconds": 60.0, "qps": 0.25, "ttft_ms": null, "itl_ms": null, "latency_ms": null,
                    "tokens_per_second": 0.0, "finished": 15, "failed": 15}
            }
        ])
    }

    #[test]
    fn columns_stand_under_each_other() {
        let text = table(&read(&page()).unwrap(), Look::Plain);
        let expected = "\
engines: 2, healthy: 1; 3 requests in flight; over 60 s: 1.75 requests/s, 212.4 tokens/s

engine                state    models       in flight  running  waiting  over 1m   QPS  TTFT ms  ITL ms  tokens/s  KV %  failed  age s
http://10.0.0.1:8000  healthy  llama-3,sql          3        7        0      2.2  1.50     42.3     8.0       212  62.5       0    1.2
http://10.0.0.2:8000  ejected  llama-3              0        -        -        -  0.25        -       -         0     -      15      -
";
        assert_eq!(text, expected);
        let coloured = table(&read(&page()).unwrap(), Look::Coloured);
        assert!(coloured.contains("\x1b[32mhealthy\x1b[0m"), "{coloured}");
        assert!(coloured.contains("\x1b[31mejected\x1b[0m"), "{coloured}");
        assert_eq!(
            coloured
                .replace("\x1b[32m", "")
                .replace("\x1b[31m", "")
                .replace("\x1b[0m", ""),
            expected
        );
    }

    #[test]
    fn a_page_with_less_is_shown_too() {
        let page = json!([{"engine_id": "http://a", "serving_models": [], "created": 1}]);
        let entries = read(&page).unwrap();
        assert!(entries[0].is_healthy());
        let text = table(&entries, Look::Plain);
        assert!(
            text.starts_with("engines: 1, healthy: 1; 0 requests in flight\n"),
            "{text}"
        );
        let cells: Vec<&str> = text.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(cells[0], "http://a");
        assert!(cells[1..].iter().all(|cell| *cell == "-"), "{text}");
        assert_eq!(table(&[], Look::Plain).lines().count(), 1);
        for page in [
            json!({"error": {}}),
            json!([1]),
            json!([{"id": 1}]),
            json!("x"),
        ] {
            let error = format!("{:#}", read(&page).unwrap_err());
            assert!(
                error.starts_with("the answer is JSON, but no list of engines"),
                "{error}"
            );
        }
    }

    #[test]
    fn long_names_are_cut_and_harmless() {
        let long = format!("http://{}.cluster.local:8000", "x".repeat(300));
        let short = shortened(&long, URL);
        assert_eq!(short.chars().count(), URL);
        assert!(
            short.starts_with("http://xxx") && short.ends_with("r.local:8000"),
            "{short}"
        );
        assert_eq!(shortened(&"é".repeat(URL), URL), "é".repeat(URL));
        assert_eq!(
            clean("a\x1b[31mb\nc\u{202e}d"),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}d"
        );
        assert_eq!(
            clean("a\u{61c}\u{feff}\u{9b}b"),
            "a\u{fffd}\u{fffd}\u{fffd}b"
        );
        for (count, shown) in [
            (1, "model-000"),
            (3, "model-000,model-001,model-002"),
            (4, "model-000,model-001,model-002 +1"),
            (10_000, "model-000,model-001,model-002 +9997"),
        ] {
            let names: Vec<String> = (0..count).map(|at| format!("model-{at:03}")).collect();
            assert_eq!(models(&names), shown);
        }
        let two = ["m".repeat(100), "n".to_owned()];
        assert!(models(&two).ends_with("mmm +1"));
    }

    #[test]
    fn json_on_a_terminal_is_the_same_and_harmless() {
        let page = json!([{"engine_id": "a\u{9b}31m\u{7f}\u{202e}\u{1b}é\n"}]);
        let text = format!("{page:#}\n");
        let shown = escaped(&text);
        assert!(shown.chars().all(|c| c == '\n' || is_plain(c)), "{shown}");
        assert!(
            shown.contains("a\\u009b31m\\u007f\\u202e\\u001bé"),
            "{shown}"
        );
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), page);
        assert_eq!(shown.lines().count(), text.lines().count());
    }

    #[test]
    fn an_engine_that_gets_nothing_new_is_shown_as_such() {
        for (state, closed, shown, is_healthy) in [
            (Some("healthy"), Some("draining"), "draining", true),
            (None, Some("not ready"), "not ready", true),
            (Some("down"), Some("draining"), "down", false),
            (Some("healthy"), None, "healthy", true),
        ] {
            let page = json!([{"engine_id": "http://a", "state": state, "closed": closed}]);
            let entries = read(&page).unwrap();
            assert_eq!(entries[0].state(), shown);
            assert_eq!(entries[0].is_healthy(), is_healthy, "{shown}");
        }
        assert_eq!(colour("draining"), Some(33));
    }

    #[test]
    fn numbers_are_as_long_as_they_are_read() {
        for (value, shown) in [
            (Some(0.0), "0"),
            (Some(0.04), "0.0"),
            (Some(99.94), "99.9"),
            (Some(100.4), "100"),
            (Some(123_456.7), "123457"),
            (None, "-"),
        ] {
            assert_eq!(number(value), shown);
        }
    }
}
