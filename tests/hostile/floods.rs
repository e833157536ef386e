//! E3, case 26: HTTP/2 clients that keep to its letter, and flood us. The
//! connection ends, or what it costs is bounded; others are served meanwhile.

use std::io::ErrorKind::{ConnectionReset, WouldBlock};
use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    WINDOW_UPDATE, fields, frame, pseudo, text,
};
use crate::harness::Witness;
use crate::process::Process;

/// Memory that one attack may cost, and all of them together.
const ONE: u64 = 8 << 20;
const ALL: u64 = 32 << 20;
/// How long an attack goes on that is not cut off.
const FOR: Duration = Duration::from_millis(1500);
/// Streams, of odd numbers, that one attack opens at most.
const STREAMS: u32 = 40_000;

/// What an attack came to.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// We were cut off.
    Cut,
    /// We were slowed down, or went on to the end.
    Borne,
}

/// Sends what `next` makes, for its turn, until it is cut off, or for a while.
fn attack(raw: &mut Raw, mut next: impl FnMut(u32) -> Vec<u8>) -> End {
    let since = Instant::now();
    raw.stream.set_write_timeout(Some(FOR)).unwrap();
    for turn in 0.. {
        match raw.write(&next(turn)) {
            Ok(()) => {}
            // Nobody takes more: that is a bound too.
            Err(error) if error.kind() == WouldBlock => return End::Borne,
            Err(_) => return End::Cut,
        }
        if since.elapsed() > FOR || turn > STREAMS {
            break;
        }
    }
    if has_ended(raw) { End::Cut } else { End::Borne }
}

/// Whether the other side has ended the connection, after what it has said.
fn has_ended(raw: &mut Raw) -> bool {
    raw.stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut piece = vec![0; 64 << 10];
    loop {
        match raw.stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ConnectionReset,
        }
    }
}

/// The next stream's number.
fn odd(turn: u32) -> u32 {
    turn * 2 + 1
}

fn live() -> Vec<u8> {
    fields(&pseudo("GET", "/livez"))
}

fn upload() -> Vec<u8> {
    let mut all = pseudo("POST", "/v1/completions");
    all.push(("content-type", "application/json"));
    fields(&all)
}

/// Opens streams and resets them at once.
fn rapid_reset(raw: &mut Raw) -> End {
    let head = upload();
    attack(raw, |turn| {
        let mut all = frame(HEADERS, END_HEADERS, odd(turn), &head);
        all.extend(frame(RST_STREAM, 0, odd(turn), &8_u32.to_be_bytes()));
        all
    })
}

/// Makes us reset streams: a window that grows by nothing is their error.
fn made_you_reset(raw: &mut Raw) -> End {
    let head = live();
    attack(raw, |turn| {
        let mut all = frame(HEADERS, END_HEADERS | END_STREAM, odd(turn), &head);
        all.extend(frame(WINDOW_UPDATE, 0, odd(turn), &[0; 4]));
        all
    })
}

/// A head that does not end.
fn continuation(raw: &mut Raw) -> End {
    let piece = fields(&[("a", "b".repeat(100))]);
    let head = upload();
    attack(raw, |turn| match turn {
        0 => frame(HEADERS, 0, 1, &head),
        _ => frame(CONTINUATION, 0, 1, &piece),
    })
}

/// The same, of frames with nothing in them.
fn empty_continuation(raw: &mut Raw) -> End {
    let head = upload();
    attack(raw, |turn| match turn {
        0 => frame(HEADERS, 0, 1, &head),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(50),
    })
}

/// A body of frames with nothing in them.
fn empty_data(raw: &mut Raw) -> End {
    let head = upload();
    attack(raw, |turn| match turn {
        0 => frame(HEADERS, END_HEADERS, 1, &head),
        _ => frame(DATA, 0, 1, &[]).repeat(50),
    })
}

/// Settings to be acknowledged, by someone whom nobody reads.
fn settings(raw: &mut Raw) -> End {
    let table = [&1_u16.to_be_bytes()[..], &4096_u32.to_be_bytes()].concat();
    attack(raw, |_| frame(SETTINGS, 0, 0, &table).repeat(100))
}

fn pings(raw: &mut Raw) -> End {
    attack(raw, |_| frame(PING, 0, 0, &[7; 8]).repeat(100))
}

/// One large value, named a thousand times by one byte each.
fn hpack_bomb(raw: &mut Raw) -> End {
    let mut block = live();
    // A literal that the table takes up, as its entry 62.
    block.push(0x40);
    text(&mut block, b"a");
    text(&mut block, &[b'x'; 3900]);
    block.extend([0x80 | 62; 12_000]);
    attack(raw, |turn| {
        frame(HEADERS, END_HEADERS | END_STREAM, odd(turn), &block)
    })
}

/// The same of crumbs of cookies, which are joined.
fn cookie_crumbs(raw: &mut Raw) -> End {
    let mut block = live();
    block.push(0x40);
    text(&mut block, b"cookie");
    text(&mut block, b"");
    block.extend([0x80 | 62; 15_000]);
    attack(raw, |turn| {
        frame(HEADERS, END_HEADERS | END_STREAM, odd(turn), &block)
    })
}

/// Frames of streams that there are not.
fn windows(raw: &mut Raw) -> End {
    attack(raw, |_| {
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(100)
    })
}

/// Asks for pages, and has no window for any of them.
fn zero_window(raw: &mut Raw) -> End {
    let head = fields(&pseudo("GET", "/metrics"));
    attack(raw, |turn| match turn {
        0..128 => frame(HEADERS, END_HEADERS | END_STREAM, odd(turn), &head),
        _ => frame(PING, ACK, 0, &[0; 8]),
    })
}

/// An attack, by name, and whether it must be cut off.
type Attack = (&'static str, fn(&mut Raw) -> End, bool);

const ATTACKS: [Attack; 11] = [
    ("rapid reset", rapid_reset, true),
    ("made you reset", made_you_reset, true),
    ("CONTINUATION", continuation, true),
    ("empty CONTINUATION", empty_continuation, true),
    ("empty DATA", empty_data, true),
    ("SETTINGS", settings, true),
    ("PING", pings, true),
    ("an HPACK bomb", hpack_bomb, true),
    ("crumbs of cookies", cookie_crumbs, true),
    ("WINDOW_UPDATE", windows, false),
    ("no window", zero_window, false),
];

#[test]
fn each_flood_is_cut_off_or_costs_little_and_others_are_served() {
    let witness = Witness::start();
    let keys = json!({"timeouts": {"client_write_stall": "1s", "client_idle": "2s"}});
    let process = Process::start(&witness.url(), &keys);
    process.warm();
    let first = process.rss();
    for (name, attack, is_cut) in ATTACKS {
        let before = process.rss();
        // No window at all, where there is none to be had.
        let settings: &[(u16, u32)] = if name == "no window" { &[(4, 0)] } else { &[] };
        let mut raw = Raw::open_with(process.address, settings);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let (end, most) = std::thread::scope(|scope| {
            let (process, is_over) = (&process, &is_over);
            let good = scope.spawn(move || others(process, is_over));
            let end = attack(&mut raw);
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
            (end, good.join().unwrap())
        });
        let grown = most.saturating_sub(before);
        assert!(grown <= ONE, "{name}: {grown} bytes");
        assert!(!is_cut || end == End::Cut, "{name}: it goes on");
    }
    let grown = process.rss().saturating_sub(first);
    assert!(grown <= ALL, "all: {grown} bytes");
    // Connections that were not cut end by themselves.
    crate::support::eventually("they have ended", || {
        process.metric("pilotfish_client_connections ") as u64 <= 1
    });
    process.warm();
}

/// Another client, until the attack is over; the most memory that was in use.
fn others(process: &Process, is_over: &std::sync::atomic::AtomicBool) -> u64 {
    let mut most = 0;
    let mut client = process.connect();
    loop {
        let was_over = is_over.load(std::sync::atomic::Ordering::SeqCst);
        let since = Instant::now();
        client.write(crate::support::post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
        assert_eq!(client.answer().unwrap().status, 200);
        let took = since.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "another client waited {took:?}"
        );
        most = most.max(process.rss());
        if was_over {
            return most;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
