use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::smart::history::Output;

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pilotfish-log-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("history.jsonl")
    }

    fn open(&self, covered: Mark) -> (Log, Found) {
        Log::open(&self.log(), covered, Names::default()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn row(number: usize) -> Row {
    Row {
        query: format!("query {number}"),
        input_tokens: None,
        outputs: vec![Output {
            model: "m".into(),
            score: Some(1.0),
            tokens: None,
        }],
        split: None,
    }
}

fn rows(numbers: std::ops::Range<usize>) -> Vec<Row> {
    numbers.map(row).collect()
}

fn add(log: &mut Log, numbers: std::ops::Range<usize>) {
    log.append(&rows(numbers)).unwrap();
    log.sync().unwrap();
}

#[test]
fn what_is_added_is_there() {
    let folder = Folder::new("added");
    let (mut log, found) = folder.open(Mark::default());
    assert!(found.rows.is_empty() && found.is_covered);
    assert_eq!(log.mark(), Mark::default());
    add(&mut log, 0..3);
    let three = log.mark();
    let snapshot = log.snapshot().unwrap();
    add(&mut log, 3..5);
    let five = log.mark();
    assert_eq!((three.rows, five.rows), (3, 5));
    assert_eq!(snapshot.rows().unwrap(), rows(0..3));
    let mode = fs::metadata(folder.log()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(log);

    let (log, found) = folder.open(Mark::default());
    assert_eq!((found.rows, log.mark()), (rows(0..5), five));
    let (log, found) = folder.open(three);
    assert!(found.is_covered);
    assert_eq!((found.rows, log.mark()), (rows(3..5), five));
    let (_, found) = folder.open(five);
    assert!(found.is_covered && found.rows.is_empty());
    // Another history, and one that is longer than this.
    for other in [
        Mark { digest: 7, ..three },
        Mark { bytes: 70, ..three },
        Mark {
            bytes: 1 << 20,
            ..three
        },
    ] {
        let (log, found) = folder.open(other);
        assert!(!found.is_covered);
        assert_eq!((found.rows, log.mark()), (rows(0..5), five));
    }
}

/// Whatever part of the last rows is on the disk: what is before them stays, a
/// whole row stays, half of one goes, and the next comes behind.
#[test]
fn cut_at_every_byte() {
    let folder = Folder::new("cut");
    let (mut log, _) = folder.open(Mark::default());
    add(&mut log, 0..1);
    let one = log.mark();
    add(&mut log, 1..3);
    drop(log);
    let whole = fs::read(folder.log()).unwrap();
    let ends = memchr::memchr_iter(b'\n', &whole).map(|at| at + 1);
    let ends: Vec<usize> = ends.collect();
    for length in 0..=whole.len() {
        // Either is open to any length; each open is some writes to the disk.
        let covered = [Mark::default(), one][length % 2];
        fs::write(folder.log(), &whole[..length]).unwrap();
        let (mut log, found) = folder.open(covered);
        // A line that lacks nothing but its end is a row.
        let count = ends.iter().filter(|end| **end <= length + 1).count();
        let is_covered = length as u64 >= covered.bytes;
        assert_eq!(found.is_covered, is_covered, "{length}");
        let known = if is_covered { covered.rows } else { 0 };
        let known = usize::try_from(known).unwrap();
        assert_eq!(found.rows, rows(known..count), "{length}");
        assert_eq!(log.mark().rows, count as u64, "{length}");
        let end = ends[..count].last().copied().unwrap_or(0);
        let torn = length.saturating_sub(end);
        assert_eq!(found.torn, torn as u64, "{length}");
        add(&mut log, count..4);
        let bytes = fs::read(folder.log()).unwrap();
        let read = history::read(&*bytes).unwrap();
        assert_eq!((read.rows, read.skipped.count), (rows(0..4), 0), "{length}");
        assert_eq!(log.mark().bytes, bytes.len() as u64);
    }
}

#[test]
fn lines_that_are_no_rows_count_for_nothing() {
    let folder = Folder::new("bad");
    let (mut log, _) = folder.open(Mark::default());
    add(&mut log, 0..2);
    drop(log);
    let mut bytes = fs::read(folder.log()).unwrap();
    let good = bytes.clone();
    bytes.extend_from_slice(b"\0\0\0\0\n\n{\"query\":\"half\n");
    bytes.extend_from_slice(&good);
    // The disk may have had room for it, and no bytes.
    bytes.extend_from_slice(&[0; 4096]);
    fs::write(folder.log(), &bytes).unwrap();
    let (mut log, found) = folder.open(Mark::default());
    assert_eq!(found.rows, [rows(0..2), rows(0..2)].concat());
    assert_eq!(
        (found.skipped.count, found.torn, log.mark().rows),
        (2, 4096, 4)
    );
    let lines: Vec<usize> = found.skipped.first.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 5]);
    let mark = log.mark();
    add(&mut log, 2..3);
    drop(log);
    let (log, found) = folder.open(mark);
    assert!(found.is_covered);
    assert_eq!((found.rows, log.mark().rows), (rows(2..3), 5));
}

#[test]
fn a_disk_that_fails_takes_back_what_was_not_acknowledged() {
    let folder = Folder::new("fails");
    let (mut log, _) = folder.open(Mark::default());
    add(&mut log, 0..2);
    let good = log.mark();
    // Nothing can be written, and nothing taken back.
    let file = std::mem::replace(&mut log.file, File::open(folder.log()).unwrap());
    assert!(log.append(&rows(2..3)).is_err());
    assert_eq!(log.mark(), good);
    assert!(log.append(&rows(2..3)).is_err());
    // As if a part had been written.
    file.write_all_at(
        b"{\"query\":\"a long part of what was not acknowledged, longer than what comes next",
        good.bytes,
    )
    .unwrap();
    assert_eq!(log.snapshot().unwrap().rows().unwrap(), rows(0..2));
    log.file = file;
    // What is written and not synced goes with what fails after it.
    log.append(&rows(5..6)).unwrap();
    assert_eq!(log.mark(), good);
    log.undo();
    add(&mut log, 2..4);
    drop(log);
    let (_, found) = folder.open(Mark::default());
    assert_eq!(
        (found.rows, found.skipped.count, found.torn),
        (rows(0..4), 0, 0)
    );
}

#[test]
fn a_long_log_is_written_anew() {
    let folder = Folder::new("long");
    let (mut log, _) = folder.open(Mark::default());
    log.limits = Limits {
        rows: 10,
        bytes: 1 << 20,
    };
    add(&mut log, 0..20);
    assert!(!log.compact().unwrap());
    let covered = log.mark();
    let before = log.snapshot().unwrap();
    add(&mut log, 20..21);
    assert!(log.compact().unwrap());
    assert_eq!(log.mark().rows, 10);
    assert!(!log.compact().unwrap());
    // Who reads the old one still can.
    assert_eq!(before.rows().unwrap(), rows(0..20));
    add(&mut log, 21..23);
    let mark = log.mark();
    drop(log);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    let mode = fs::metadata(folder.log()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (log, found) = folder.open(covered);
    assert!(!found.is_covered);
    assert_eq!((found.rows, log.mark()), (rows(11..23), mark));
}

#[test]
fn bytes_are_bounded_too_and_bad_lines_go() {
    let folder = Folder::new("bytes");
    let (mut log, _) = folder.open(Mark::default());
    add(&mut log, 0..10);
    drop(log);
    let mut bytes = b"no row\n".to_vec();
    bytes.extend(fs::read(folder.log()).unwrap());
    fs::write(folder.log(), &bytes).unwrap();
    let (mut log, _) = folder.open(Mark::default());
    let line = (log.mark().bytes - 7) / 10;
    log.limits = Limits {
        rows: 100,
        bytes: 4 * line,
    };
    assert!(log.compact().unwrap());
    assert_eq!(log.snapshot().unwrap().rows().unwrap(), rows(6..10));
    assert_eq!(log.mark().bytes, 4 * line);
    drop(log);
    let (_, found) = folder.open(Mark::default());
    assert_eq!(found.skipped.count, 0);
}

#[test]
fn a_log_that_cannot_be_written_anew_goes_on_to_a_bound() {
    let folder = Folder::new("stuck");
    let (mut log, _) = folder.open(Mark::default());
    log.limits = Limits {
        rows: 1000,
        bytes: 1000,
    };
    add(&mut log, 0..50);
    // A folder is where the new file should be.
    let new = compact::new_name(&folder.log());
    fs::create_dir(&new).unwrap();
    assert!(log.compact().is_err());
    // Not again at once.
    assert!(!log.compact().unwrap());
    let refused = log.append(&rows(50..80)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(log.snapshot().unwrap().rows().unwrap(), rows(0..50));
    fs::remove_dir(&new).unwrap();
    log.again_at = 0;
    assert!(log.compact().unwrap());
    add(&mut log, 50..51);
    let kept = log.snapshot().unwrap().rows().unwrap();
    assert_eq!(kept.last(), Some(&row(50)));
}

#[test]
fn what_a_killed_process_left_half_written_goes() {
    let folder = Folder::new("half");
    let (mut log, _) = folder.open(Mark::default());
    add(&mut log, 0..2);
    drop(log);
    let new = compact::new_name(&folder.log());
    fs::write(&new, "{\"query\"").unwrap();
    let (_, found) = folder.open(Mark::default());
    assert_eq!(found.rows, rows(0..2));
    assert!(!new.exists());
}

/// A row whose models have no room is passed over, but stays.
#[test]
fn writing_anew_drops_no_row_for_its_model() {
    let folder = Folder::new("models");
    let (mut log, _) = folder.open(Mark::default());
    let all: Vec<Row> = (0..=history::MOST_MODELS)
        .map(|number| {
            let mut row = row(number);
            row.outputs[0].model = format!("m{number}").into();
            row
        })
        .collect();
    log.append(&all).unwrap();
    log.sync().unwrap();
    log.limit_for_test(10);
    assert!(log.compact().unwrap());
    let snapshot = log.snapshot().unwrap();
    assert_eq!(snapshot.rows().unwrap(), all[all.len() - 10..]);
}

#[test]
fn what_is_missing_is_told() {
    let folder = Folder::new("missing");
    let (mut log, found) = folder.open(Mark::default());
    assert_eq!(found.missing, 0);
    add(&mut log, 0..3);
    let three = log.mark();
    drop(log);
    let whole = fs::read(folder.log()).unwrap();
    fs::write(folder.log(), &whole[..whole.len() / 3 + 5]).unwrap();
    let (log, found) = folder.open(three);
    assert_eq!(found.missing, three.bytes - log.mark().bytes);
    assert!(found.torn > 0 && !found.is_covered);
}
