use std::path::{Path, PathBuf};

use super::*;

/// Runs every file of `fuzz/<kind>/<target>/`; tells how many there are, and those
/// that fail.
fn run(kind: &str, target: &str, check: fn(&[u8])) -> (usize, Vec<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let entries = std::fs::read_dir(root.join(kind).join(target));
    let files = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.collect();
    let fails = |path: &&PathBuf| {
        let data = std::fs::read(path).unwrap();
        std::panic::catch_unwind(|| check(&data)).is_err()
    };
    (files.len(), files.iter().filter(fails).cloned().collect())
}

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 7] = [
    ("peek", peek),
    ("sse", sse),
    ("exposition", exposition),
    ("query", query),
    ("dynamic", dynamic),
    ("multipart", multipart),
    ("connection", connection),
];

#[test]
fn every_seed_and_everything_that_was_ever_found() {
    let mut bad = Vec::new();
    for (target, check) in TARGETS {
        let (seeds, failed) = run("seeds", target, check);
        assert!(seeds >= 5, "{target} has seeds");
        bad.extend(failed);
        bad.extend(run("regressions", target, check).1);
        check(b"");
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn every_target_is_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let mut targets = TARGETS.map(|(target, _)| target);
    files.sort_unstable();
    targets.sort_unstable();
    assert_eq!(files, targets);
}
