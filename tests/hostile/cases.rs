//! The table: every case, what is expected of it, and which tests prove it.
//!
//! Numbers are our own, here and in the names of rows, in seven groups:
//! heads (1-8), framing (9-15), slow and vanished clients (16-26), payloads (27-30),
//! engines before their head (31-39) and within a body (40-45), ourselves (46-50).
//! Rows that need no choreography are in tables beside the tests that are named.

mod clients;
mod engines;

/// One case.
struct Case {
    number: u8,
    input: &'static str,
    /// Status and code, or what else the client sees.
    expected: &'static str,
    /// What becomes of the client's connection.
    connection: &'static str,
    /// What the engine's account says.
    engine: &'static str,
    /// What it may hold.
    memory: &'static str,
    /// `file::test` of this folder, `app::file::test` of `tests/app`.
    tests: &'static [&'static str],
}

const fn case(
    (number, input): (u8, &'static str),
    (expected, connection): (&'static str, &'static str),
    (engine, memory): (&'static str, &'static str),
    tests: &'static [&'static str],
) -> Case {
    Case {
        number,
        input,
        expected,
        connection,
        engine,
        memory,
        tests,
    }
}

/// The text of a file of tests.
fn text(file: &str) -> String {
    let path = format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_case_of_the_table_is_here() {
    let all = || clients::CASES.iter().chain(&engines::CASES);
    let numbers: Vec<u8> = all().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<u8>>());
    for case in all() {
        let Case { number, tests, .. } = case;
        let said = [
            case.input,
            case.expected,
            case.connection,
            case.engine,
            case.memory,
        ];
        assert!(said.iter().all(|words| !words.is_empty()), "{number}");
        assert!(!tests.is_empty(), "{number} is not proved");
        for test in *tests {
            let (file, name) = test.rsplit_once("::").unwrap();
            let file = match file.strip_prefix("app::") {
                Some(file) => format!("app/{file}"),
                None => format!("hostile/{file}"),
            };
            let is_there = text(&file).contains(&format!("#[test]\nfn {name}() {{"));
            assert!(is_there, "{number}: there is no test {test}");
        }
    }
}
