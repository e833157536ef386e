//! The access log: one line for each request that has ended. What may be in it
//! is a closed list: no body, no query, and of the fields of a head only the
//! request's id and the trace's.
//!
//! A line is written by the worker, straight into its buffer: half a
//! microsecond, no allocation, and no wake-up of another thread.

mod form;
pub mod writer;

use std::time::Duration;

use crate::account::Account;
use crate::config::LineForm;
use form::Line;
pub use form::Stamp;

/// Appends the line of a request that has ended.
pub fn write(out: &mut Vec<u8>, form: LineForm, account: &Account, stamp: &mut Stamp) {
    let mut line = match form {
        LineForm::Json => Line::json(out),
        LineForm::Text => Line::text(out),
        LineForm::Table => return row(out, account),
    };
    let engine = account.engine().map(|engine| engine.url.text());
    line.time("time", account.ended_at, stamp);
    line.word("id", Some(&account.id));
    line.word("client", Some(&account.client));
    line.word("caller", account.caller.as_deref());
    line.word("method", Some(account.method.as_str()));
    line.word("path", Some(&account.path));
    line.word("model", account.model.as_deref());
    line.word("engine", engine);
    line.word("policy", account.policy.as_deref());
    line.count("attempts", Some(account.attempts.into()));
    line.count("status", Some(account.status.into()));
    line.word("ended", Some(account.ending.word()));
    line.word("error", account.error);
    line.millis("ttft_ms", account.ttft());
    line.millis("itl_p50_ms", account.gaps.median());
    line.count("input_tokens", account.input_tokens);
    let output = account.output_tokens.or(account.counted_tokens);
    line.count("output_tokens", output);
    let passed = |bytes| Some(bytes).filter(|_| !account.is_tunnel());
    line.count("request_bytes", passed(account.request_bytes));
    line.count("response_bytes", passed(account.response_bytes));
    line.count("overhead_us", account.overhead.map(micros));
    line.millis("duration_ms", Some(account.duration()));
    line.digits("trace_id", account.trace.id());
    line.end();
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The demo's line: model, engine, status, TTFT, tokens a second, policy.
fn row(out: &mut Vec<u8>, account: &Account) {
    use std::io::Write as _;
    let engine = account.engine().map_or("-", |engine| engine.url.text());
    let ttft = account
        .ttft()
        .map_or("-".to_owned(), |ttft| format!("{} ms", ttft.as_millis()));
    // A vector takes everything.
    let _ = writeln!(
        out,
        "{:<12} {engine:<28} {:>6} {ttft:>10} {:>10}  {}",
        account.model.as_deref().unwrap_or("-"),
        account.status,
        rate(account),
        account.policy.as_deref().unwrap_or("no engine asked"),
    );
}

/// Pieces a second after the first: for a stream, tokens a second.
fn rate(account: &Account) -> String {
    let ttft = account.ttft().unwrap_or_default();
    let spent = account.duration().saturating_sub(ttft).as_secs_f64();
    if account.pieces < 3 || spent <= 0.0 {
        return "-".to_owned();
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a stream is far below 2^52 pieces"
    )]
    let rate = (account.pieces - 1) as f64 / spent;
    format!("{rate:.0}")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::account::Trace;

    fn account() -> Account {
        let now = Instant::now();
        let mut account = Account::new(now);
        account.id.push_str("r-1");
        account.client.push_str("10.0.0.9");
        account.take_path("/v1/completions");
        account.ended = now + Duration::from_micros(1_234_567);
        account.ended_at = Duration::from_millis(1_763_806_272_009);
        account.first = Some(now + Duration::from_micros(15_050));
        account.overhead = Some(Duration::from_nanos(17_900));
        account.trace = Trace::Theirs(0xabc);
        account
    }

    fn written(form: LineForm, account: &Account) -> String {
        let mut out = Vec::new();
        write(&mut out, form, account, &mut Stamp::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_each_form() {
        let account = account();
        let json = concat!(
            r#"{"time":"2025-11-22T10:11:12.009Z","id":"r-1","client":"10.0.0.9","caller":null,"method":"GET","#,
            r#""path":"/v1/completions","model":null,"engine":null,"policy":null,"attempts":0,"#,
            r#""status":499,"ended":"client_gone","error":null,"ttft_ms":15.050,"itl_p50_ms":null,"#,
            r#""input_tokens":null,"output_tokens":null,"request_bytes":0,"response_bytes":0,"#,
            r#""overhead_us":17,"duration_ms":1234.567,"trace_id":"00000000000000000000000000000abc"}"#,
            "\n"
        );
        assert_eq!(written(LineForm::Json, &account), json);
        let text = "time=2025-11-22T10:11:12.009Z id=r-1 client=10.0.0.9 caller=- method=GET \
            path=/v1/completions model=- engine=- policy=- attempts=0 status=499 \
            ended=client_gone error=- ttft_ms=15.050 itl_p50_ms=- input_tokens=- output_tokens=- \
            request_bytes=0 response_bytes=0 overhead_us=17 duration_ms=1234.567 \
            trace_id=00000000000000000000000000000abc\n";
        assert_eq!(written(LineForm::Text, &account), text);
        let row = written(LineForm::Table, &account);
        assert!(row.starts_with("-            -  ") && row.ends_with("no engine asked\n"));
    }

    /// The documentation's table has the fields of a line, and no other.
    #[test]
    fn the_documents_list_every_field() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs-and-traces.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, rest) = text.split_once("## The access log").unwrap();
        let (section, _) = rest.split_once("\n## ").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let (fields, words): (Vec<&str>, Vec<&str>) = rows
            .filter_map(|row| row.split_once('`').map(|(name, _)| name))
            .partition(|name| {
                crate::account::Ending::ALL
                    .iter()
                    .all(|one| one.word() != *name)
            });
        let line = written(LineForm::Text, &account());
        let written: Vec<&str> = line
            .split_whitespace()
            .map(|pair| pair.split_once('=').unwrap().0)
            .collect();
        assert_eq!(fields, written);
        assert_eq!(words, crate::account::Ending::ALL.map(|one| one.word()));
    }

    proptest! {
        /// Whatever a client sends, it is one line with the same fields.
        #[test]
        fn nobody_writes_a_line_of_his_own(path: String, id: String, model: String) {
            let mut account = account();
            account.path = path.clone();
            account.id = id.clone();
            account.model = Some(model.as_str().into());
            let json = written(LineForm::Json, &account);
            prop_assert_eq!(json.chars().filter(|c| c.is_control()).count(), 1);
            let value: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["path"].as_str(), Some(&*path));
            prop_assert_eq!(value["id"].as_str(), Some(&*id));
            prop_assert_eq!(value["model"].as_str(), Some(&*model));
            let text = written(LineForm::Text, &account);
            prop_assert_eq!(text.chars().filter(|c| c.is_control()).count(), 1);
            // Outside of quotes there are as many pairs as ever.
            let mut is_quoted = false;
            let mut is_escaped = false;
            let bare = text.chars().filter(|c| {
                match c {
                    _ if is_escaped => is_escaped = false,
                    '\\' => is_escaped = true,
                    '"' => is_quoted = !is_quoted,
                    _ => {}
                }
                !is_quoted && *c == '='
            });
            prop_assert_eq!(bare.count(), 22);
        }
    }
}
