//! The history of smart routing: `pilotfish smart import|fit`, and a process that
//! is killed while it takes feedback.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may fail where it stands, and its counts are small"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish::smart::history::{Row, read};
use pilotfish::smart::learner::{Ended, FeedbackError, Learner, LearnerSpec, Teaching};

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pilotfish-smart-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn kept(state: &Path) -> Vec<Row> {
    let file = File::open(state.join("smart/history.jsonl")).unwrap();
    let read = read(BufReader::new(file)).unwrap();
    // Whoever opens it cuts off a line that is half written; that is no loss.
    assert!(read.skipped.count <= 1, "{:?}", read.skipped);
    read.rows
}

fn smart(args: &[&str], state: &Path, input: Option<&str>) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .arg("smart")
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.unwrap_or("").as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// What it prints when all is well.
fn said(args: &[&str], state: &Path, input: Option<&str>) -> String {
    let output = smart(args, state, input);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains of.
fn complaint(args: &[&str], state: &Path, input: Option<&str>) -> String {
    let output = smart(args, state, input);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).unwrap()
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| {
            let is_right = number % 4 > 0;
            format!(
                "{{\"query\":\"what is {number}?\",\"input_token_length\":5,\"outputs\":\
                 [{{\"model_name\":\"large\",\"correctness\":true}},{{\"model_name\":\"small\",\
                 \"correctness\":{is_right},\"output_token_length\":{number}}}]}}\n"
            )
        })
        .collect()
}

#[test]
fn files_are_imported_once() {
    let folder = Folder::new("import");
    let file = folder.0.join("history.jsonl");
    fs::write(&file, format!("{}no\n", lines(0..40))).unwrap();
    let name = file.to_str().unwrap();
    let first = said(&["import", name], &folder.state(), None);
    for part in [
        "40 rows, 1 lines left out\n  line 41 is not JSON: expected ident (column 2)\n",
        "40 rows read, 0 of them known already, 40 added; the history has 40\n",
        "model     rows  mean score  mean tokens\n",
        "large       40       1.000            -\n",
        "small       40       0.750         19.5\n",
        "fitted 40 rows in ",
        "the errors are of few rows",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let again = said(
        &["import", name, "-"],
        &folder.state(),
        Some(&lines(30..50)),
    );
    let part = "60 rows read, 50 of them known already, 10 added; the history has 50\n";
    assert!(again.contains(part), "{again}");
    assert!(folder.state().join("smart/predictor.bin").exists());
    let fitted = said(&["fit"], &folder.state(), None);
    assert!(fitted.contains("fitted 50 rows in "), "{fitted}");
    let fitted = said(&["fit", "--json"], &folder.state(), None);
    let fitted: serde_json::Value = serde_json::from_str(&fitted).unwrap();
    assert_eq!(fitted["rows"], 50);
    assert!(fitted["summary"].is_object());
}

#[test]
fn what_cannot_be_done_is_told() {
    let folder = Folder::new("refused");
    let state = folder.state();
    let nothing = complaint(&["fit"], &state, None);
    assert!(nothing.contains("there is no history"), "{nothing}");
    let missing = complaint(&["import", "/no/such/file"], &state, None);
    assert!(missing.contains("cannot read /no/such/file"), "{missing}");
    let no_row = complaint(&["import", "-"], &state, Some("no\n"));
    assert!(no_row.contains("there is no row to import"), "{no_row}");
    let list = complaint(&["import", "-"], &state, Some("[\n{}\n]\n"));
    assert!(list.contains("one object a line"), "{list}");
    // A file that cannot be read to its end: nothing of the others either.
    let file = folder.0.join("history.jsonl");
    fs::write(&file, lines(0..3)).unwrap();
    let torn = complaint(&["import", file.to_str().unwrap(), "/"], &state, None);
    assert!(torn.contains("nothing was imported"), "{torn}");
    assert!(kept(&state).is_empty());
    // While a proxy runs.
    let lock = pilotfish::registry::store::lock(&state).unwrap();
    for args in [&["import", "-"][..], &["fit"]] {
        let used = complaint(args, &state, Some(&lines(0..1)));
        assert!(
            used.contains("another pilotfish uses this folder") && used.contains("proxy, stop it"),
            "{used}"
        );
    }
    drop(lock);
    said(&["import", "-"], &state, Some(&lines(0..1)));
}

/// Lines that tell of one model each.
fn of_models(numbers: std::ops::Range<usize>) -> String {
    numbers
        .map(|number| {
            format!(
                "{{\"query\":\"q {number}\",\"outputs\":[{{\"model_name\":\"m{number}\",\
                 \"output_token_length\":7}}]}}\n"
            )
        })
        .collect()
}

#[test]
fn a_model_that_has_no_room_is_not_imported() {
    let folder = Folder::new("models");
    let first = said(&["import", "-"], &folder.state(), Some(&of_models(0..64)));
    assert!(first.contains("64 added"), "{first}");
    assert!(first.contains("no answer has a score"), "{first}");
    let file = folder.0.join("more.jsonl");
    fs::write(&file, of_models(63..66)).unwrap();
    let name = file.to_str().unwrap();
    for _ in 0..2 {
        let more = said(&["import", name, name], &folder.state(), None);
        for part in [
            "1 rows, 2 lines left out",
            "first of them: m64, m65\n",
            "2 rows read, 2 of them known already, 0 added; the history has 64\n",
        ] {
            assert!(more.contains(part), "{part}: {more}");
        }
    }
    assert_eq!(kept(&folder.state()).len(), 64);
}

/// The rows stay, and what to do is said.
#[test]
fn a_predictor_that_cannot_be_saved_is_told() {
    let folder = Folder::new("unsaved");
    let state = folder.state();
    // A folder that is not empty cannot be replaced by a file.
    fs::create_dir_all(state.join("smart/predictor.bin/x")).unwrap();
    let output = smart(&["import", "-"], &state, Some(&lines(0..3)));
    let (said, errors) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(said.contains("3 added; the history has 3"), "{said}");
    assert!(
        errors.contains("the rows are kept: run `pilotfish smart fit`"),
        "{errors}"
    );
    assert_eq!(errors.matches("os error").count(), 1, "{errors}");
    assert_eq!(kept(&state).len(), 3);
}

/// The child's variable: the state folder.
const CHILD: &str = "PILOTFISH_TEST_SMART_CHILD";
/// Feedback that a child sends at once.
const AT_ONCE: usize = 16;

/// Not a test unless a test starts it: takes feedback without end, and says what
/// was acknowledged, or refused.
#[test]
fn child() {
    let Some(state) = std::env::var_os(CHILD) else {
        return;
    };
    let spec = LearnerSpec {
        folder: Some(state.into()),
    };
    let (teaching, _thread) = Learner::start(spec).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    // Longer than the test that started it may take.
    let until = Instant::now() + Duration::from_secs(60);
    let mut number = 0;
    while Instant::now() < until {
        feed(&runtime, &teaching, number);
        number += AT_ONCE;
    }
}

fn feed(runtime: &tokio::runtime::Runtime, teaching: &Teaching, from: usize) {
    let model: Arc<str> = "m".into();
    let ended = |number| Ended {
        request_id: format!("r{number}"),
        query: Some(format!("what is {number}? {}", "x".repeat(number % 900))),
        model: Arc::clone(&model),
        input_tokens: number as u32,
        output_tokens: None,
        predicted: None,
    };
    let numbers = from..from + AT_ONCE;
    teaching.tell(numbers.clone().map(ended).collect());
    let answers: Vec<_> = numbers
        .map(|number| (number, teaching.feedback(format!("r{number}"), 1.0)))
        .collect();
    let mut out = std::io::stdout();
    for (number, answer) in answers {
        match runtime.block_on(answer) {
            Ok(_) => writeln!(out, "acknowledged {number}").unwrap(),
            Err(FeedbackError::Disk(_)) => writeln!(out, "refused {number}").unwrap(),
            Err(other) => panic!("{other}"),
        }
    }
}

/// A child that is killed when dropped.
struct Process(Child);

impl Process {
    /// Its files have no more than so many blocks of 512 bytes.
    fn start(state: &Path, blocks: &str) -> Self {
        let child = Command::new("sh")
            .arg("-c")
            .arg("trap '' XFSZ; ulimit -f \"$0\" && exec \"$@\"")
            .arg(blocks)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Reads what it says until `is_enough`, kills it, and reads the rest: what
    /// was acknowledged, and how many were refused.
    fn killed_when(&mut self, is_enough: impl Fn(usize, usize) -> bool) -> (Vec<u32>, usize) {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        let mut is_killed = false;
        for line in lines.map_while(Result::ok) {
            match line.split_once(' ') {
                // The last line may be cut, but what is not said is not acknowledged.
                Some(("acknowledged", number)) => acknowledged.push(number.parse().unwrap()),
                Some(("refused", _)) => refused += 1,
                _ => continue,
            }
            if !is_killed && is_enough(acknowledged.len(), refused) {
                is_killed = true;
                self.0.kill().unwrap();
            }
        }
        assert!(is_killed);
        (acknowledged, refused)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Each number that was acknowledged is there; the next process goes on.
fn assert_kept(state: &Path, acknowledged: &[u32]) {
    let rows = kept(state);
    let mut numbers: Vec<u32> = rows.iter().filter_map(|row| row.input_tokens).collect();
    numbers.sort_unstable();
    for number in acknowledged {
        assert!(numbers.binary_search(number).is_ok(), "{number} is lost");
    }
    let spec = LearnerSpec {
        folder: Some(state.to_owned()),
    };
    let (teaching, thread) = Learner::start(spec).unwrap();
    drop(teaching);
    thread.join().unwrap();
    assert!(kept(state).len() >= rows.len());
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new("killed");
    let mut before = 0;
    // Among them moments while it fits, and while it saves.
    for many in [1, 7, 40, 201, 330, 700] {
        let mut child = Process::start(&folder.state(), "unlimited");
        let (acknowledged, refused) = child.killed_when(|count, _| count >= many);
        drop(child);
        assert_eq!(refused, 0);
        assert_kept(&folder.state(), &acknowledged);
        let now = kept(&folder.state()).len();
        assert!(now >= before + acknowledged.len(), "{before} {now}");
        before = now;
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = Folder::new("full");
    let mut child = Process::start(&folder.state(), "40");
    let (acknowledged, refused) = child.killed_when(|_, refused| refused >= 3 * AT_ONCE);
    drop(child);
    assert!(!acknowledged.is_empty() && refused >= 3 * AT_ONCE);
    assert_kept(&folder.state(), &acknowledged);
    // With room again it goes on.
    let mut child = Process::start(&folder.state(), "unlimited");
    let (acknowledged, refused) = child.killed_when(|count, _| count >= 50);
    drop(child);
    assert_eq!(refused, 0);
    assert_kept(&folder.state(), &acknowledged);
}
