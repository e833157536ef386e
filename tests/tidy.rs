//! The house's rules, as far as a machine can check them.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::{Path, PathBuf};

/// Lines of a file without its tests, and of a function.
const FILE_LINES: usize = 400;

fn rust_files(under: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(under)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The part of a file that is not its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

/// `fleet/engine.rs` → `fleet`; `fleet.rs` → `fleet`.
fn module(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let relative = path.strip_prefix(root).unwrap();
    let first = relative
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn files_are_short_and_say_what_they_are() {
    for (path, text) in [rust_files("src"), rust_files("tests/hostile")].concat() {
        let lines = code(&text).lines().count();
        assert!(lines <= FILE_LINES, "{}: {lines} lines", path.display());
        let is_tests = path.file_name().is_some_and(|name| name == "tests.rs");
        assert!(
            text.starts_with("//!") || is_tests,
            "{} opens without //!",
            path.display()
        );
    }
}

#[test]
fn no_mod_rs_in_the_library() {
    for (path, _) in rust_files("src") {
        assert_ne!(path.file_name().unwrap(), "mod.rs", "{}", path.display());
    }
}

/// What each module must not import.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    ("config", &["crate::"]),
    ("net", &["crate::"]),
    ("drain", &["crate::"]),
    ("metrics", &["crate::"]),
    ("telemetry", &["crate::"]),
    (
        "policy",
        &[
            "tokio",
            "hyper",
            "Instant",
            "SystemTime",
            "tracing",
            "crate::proxy",
        ],
    ),
    (
        "query",
        &[
            "tokio",
            "hyper",
            "Instant",
            "SystemTime",
            "tracing",
            "crate::policy",
            "crate::proxy",
        ],
    ),
    (
        "select",
        &[
            "tokio",
            "hyper",
            "Instant",
            "SystemTime",
            "tracing",
            "crate::proxy",
        ],
    ),
    ("discovery", &["crate::policy", "crate::proxy"]),
    ("scrape", &["crate::policy", "crate::proxy"]),
    (
        "upstream",
        &["crate::policy", "crate::proxy", "crate::downstream"],
    ),
    (
        "downstream",
        &[
            "crate::policy",
            "crate::proxy",
            "crate::upstream",
            "crate::fleet",
        ],
    ),
];

#[test]
fn modules_import_only_what_they_may() {
    for (path, text) in rust_files("src") {
        let is_test = |part: &std::ffi::OsStr| part == "tests.rs" || part == "tests";
        if path.iter().skip_while(|part| *part != "src").any(is_test) {
            continue;
        }
        let module = module(&path);
        for (named, forbidden) in FORBIDDEN {
            if named != module {
                continue;
            }
            for line in code(&text)
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                // Filters are checked where they are written.
                if module == "config" && line.trim_start().starts_with("use crate::query::") {
                    continue;
                }
                for word in forbidden {
                    assert!(!line.contains(word), "{}: {line}", path.display());
                }
            }
        }
        let may_know_the_proxy = [
            "app", "worker", "proxy", "api", "demo", "explain", "fuzzing",
        ];
        if !may_know_the_proxy.contains(&module.as_str()) {
            assert!(
                !code(&text).contains("crate::proxy"),
                "{} imports proxy",
                path.display()
            );
        }
        let may_build_the_app = ["app", "main", "demo", "bench", "chaos"];
        if !may_build_the_app.contains(&module.as_str()) {
            assert!(
                !code(&text).contains("crate::app"),
                "{} imports app",
                path.display()
            );
        }
    }
}

#[test]
fn one_snapshot_load_for_a_request() {
    let loads: usize = rust_files("src")
        .iter()
        .filter(|(path, _)| module(path) == "proxy")
        .map(|(_, text)| code(text).matches(".load()").count())
        .sum();
    assert_eq!(loads, 1);
}

#[test]
fn the_documents_name_only_flags_and_metrics_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = rust_files("src")
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "docs/migrating-from-vllm-router.md",
        "docs/kubernetes.md",
        "docs/logs-and-traces.md",
        "docs/http.md",
        "docs/tls.md",
        "docs/access.md",
        "docs/conformance.md",
        "SECURITY.md",
    ] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
        for word in words {
            if word.starts_with("pilotfish_") {
                assert!(sources.contains(word), "{name} names the metric {word}");
            }
            if let Some(flag) = word.strip_prefix("--")
                && word.len() > 4
            {
                let field = flag.replace('-', "_");
                // Flags without effect stand in a table; `--k8s-*` is a prefix.
                let text = format!("\"{flag}");
                let known = ["release", "bench", "help", "test", "json", "version"];
                let of_others = [
                    "tag",
                    "overwrite",
                    "locked",
                    "quick",
                    "cacert",
                    "cert",
                    "key",
                ];
                let exists = [&field, &text].iter().any(|name| sources.contains(*name));
                let exists = exists || known.contains(&flag) || of_others.contains(&flag);
                assert!(exists, "{name} names the flag --{flag}");
            }
        }
    }
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    assert!(architecture.lines().count() <= 150);
}

/// The documents for people, by their paths.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 10);
    found
}

#[test]
fn the_tests_that_prove_a_rule_of_http_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/http.md")).unwrap();
    let is_test = |word: &&str| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
        let is_a_form = word.ends_with("::") || *word == "file::test";
        !is_a_form && word.contains("::") && word.chars().all(is_plain)
    };
    let mut count = 0;
    for name in text.split('`').skip(1).step_by(2).filter(is_test) {
        let (file, test) = name.rsplit_once("::").unwrap();
        let file = file.replace("::", "/");
        let beside = file.trim_end_matches("/tests");
        let places = [
            format!("tests/app/{file}.rs"),
            format!("tests/hostile/{file}.rs"),
            format!("src/{file}.rs"),
            format!("src/{beside}.rs"),
        ];
        let wanted = format!("fn {test}() ");
        let has = |place: &String| {
            std::fs::read_to_string(root.join(place)).is_ok_and(|text| text.contains(&wanted))
        };
        assert!(places.iter().any(has), "there is no test {name}");
        count += 1;
    }
    assert!(count > 60, "{count} tests are named");
}

/// What headings are called in links, as the usual pages of repositories have it.
fn anchors(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if line.starts_with('#') && !is_code {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let keeps = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            found.push(
                words
                    .chars()
                    .filter(keeps)
                    .collect::<String>()
                    .replace(' ', "-"),
            );
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in documents() {
        for rest in text.split("](").skip(1) {
            let Some((link, _)) = rest.split_once(')') else {
                continue;
            };
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let shown = path.display();
            assert!(to.exists(), "{shown} links {link}: there is no such file");
            let known = || anchors(&std::fs::read_to_string(&to).unwrap());
            let is_there = anchor.is_empty() || known().iter().any(|one| one == anchor);
            assert!(is_there, "{shown} links {link}: there is no such heading");
        }
    }
}
