//! What engines answer, and what we do to ourselves: cases 31 to 50.

use super::{Case, case};

pub(super) const CASES: [Case; 20] = [
    case(
        (31, "refused, a black hole, no such name"),
        ("another engine; else 503 `model_unavailable`", "kept"),
        ("fails", "-"),
        &["engine_head::an_engine_that_cannot_be_reached_costs_no_request_while_there_is_another"],
    ),
    case(
        (32, "a connection that was closed as it was reused"),
        ("the answer of a second one", "kept"),
        ("no effect", "-"),
        &["engine_head::a_connection_that_went_stale_is_nobodys_fault"],
    ),
    case(
        (
            33,
            "it closes, half a head, garbage, HTTP/0.9, status 000, TLS",
        ),
        ("another engine; else 502 `engine_error`", "kept"),
        ("fails", "-"),
        &[
            "engine_head::an_answer_that_is_none_is_a_502",
            "app::resilience::what_an_engine_had_and_did_not_answer_goes_to_another",
        ],
    ),
    case(
        (
            34,
            "a large head, NUL, lengths that differ, gzip as a coding",
        ),
        ("502 `engine_error`", "kept"),
        ("fails", "64 KiB of a head"),
        &["engine_head::an_answer_whose_end_is_in_doubt_is_a_502"],
    ),
    case(
        (35, "it hangs before its head"),
        ("504 `engine_timeout`", "kept"),
        ("fails", "-"),
        &["engine_head::an_engine_that_says_nothing_is_a_504_with_its_time"],
    ),
    case(
        (36, "429, 503 with Retry-After"),
        ("another engine; else as they are", "kept"),
        ("too busy, no fault", "-"),
        &["engine_head::an_engine_with_too_much_to_do_is_passed_over_and_relayed_if_all_are"],
    ),
    case(
        (37, "another 4xx"),
        ("to the byte", "kept"),
        ("no effect", "-"),
        &["engine_head::an_engines_own_error_is_the_clients_to_the_byte"],
    ),
    case(
        (38, "500"),
        (
            "to the byte; in a row: set aside; if more than half are, all are asked",
            "kept",
        ),
        ("fails", "-"),
        &[
            "engine_head::an_engines_own_error_is_the_clients_to_the_byte",
            "engine_head::five_hundreds_in_a_row_set_an_engine_aside_and_beyond_half_all_are_asked",
        ],
    ),
    case(
        (39, "an unasked 101, 1xx without end"),
        ("502 `engine_error`", "kept"),
        ("fails", "16 of them"),
        &["engine_head::interim_answers_have_a_bound_and_a_101_must_be_asked_for"],
    ),
    case(
        (40, "it breaks off within a body"),
        ("an `error` event at a boundary, no end", "reset"),
        ("fails", "-"),
        &[
            "engine_body::an_answer_that_breaks_off_never_looks_whole",
            "app::streaming::a_client_of_http_1_0_is_not_fooled_either",
        ],
    ),
    case(
        (41, "a stream without `[DONE]`"),
        ("as it is if framed; a mere close: as 40", "kept; reset"),
        ("no effect; fails", "-"),
        &[
            "engine_body::a_stream_that_ends_without_done_is_its_engines_affair_unless_it_merely_closed",
        ],
    ),
    case(
        (42, "it falls silent within a body"),
        ("as 40, with the engine's deadline", "reset"),
        ("fails", "-"),
        &["engine_body::an_engine_that_falls_silent_is_cut_with_its_time"],
    ),
    case(
        (
            43,
            "bytes after an answer, a body of a 204 or HEAD, chunks and a length",
        ),
        ("the answer alone", "kept; the engine's is not reused"),
        ("no effect", "-"),
        &["engine_body::what_comes_after_an_answer_is_nobodys"],
    ),
    case(
        (44, "one line of 100 MB"),
        ("it passes", "kept"),
        ("no effect", "4 MiB"),
        &["engine_long::a_line_of_100_mb_passes_and_is_not_held"],
    ),
    case(
        (45, "one of two legs ends"),
        (
            "the other too; splitting prefill and decode is refused at the start",
            "reset",
        ),
        ("the one that died fails", "-"),
        &["engine_long::both_legs_of_a_request_end_together"],
    ),
    case(
        (46, "a panic in a handler"),
        (
            "500 `internal_error`; once the head is out: no end",
            "closed",
        ),
        ("no effect", "-"),
        &[
            "own::a_panic_is_one_requests_own",
            "own::a_panic_once_the_head_is_out_ends_that_answer_alone",
        ],
    ),
    case(
        (47, "no engines, or none that is up"),
        (
            "503 and Retry-After; alive, and ready: that is of us, not of engines",
            "kept",
        ),
        ("-", "-"),
        &[
            "own::without_any_engine_it_is_a_503_at_once_until_one_is_back",
            "app::faults::an_empty_engine_list_is_a_state_like_any_other",
        ],
    ),
    case(
        (48, "too much to do"),
        (
            "429 `queue_full`, 503 `overloaded`; our pages answer",
            "kept",
        ),
        ("-", "256 MiB of bodies"),
        &[
            "own::who_finds_no_place_is_told_at_once_and_our_pages_answer",
            "slow::all_bodies_together_have_a_bound",
        ],
    ),
    case(
        (49, "SIGTERM with 100 open streams"),
        ("all of them end well", "closed"),
        ("no effect", "-"),
        &[
            "own::a_hundred_open_streams_all_end_well_when_we_are_stopped",
            "app::drain::what_is_still_open_at_the_deadline_is_cut_and_counted",
        ],
    ),
    case(
        (50, "a bad file, a clock that jumps, a full disk"),
        ("the old one holds; dates move; lines are lost", "kept"),
        ("no effect", "8 MiB of lines"),
        &[
            "app::reload::a_bad_file_changes_nothing_and_the_next_good_one_heals_even_the_same",
            "own::a_clock_that_jumps_moves_dates_alone",
            "own::a_full_disk_costs_lines_and_no_request",
            "app::registry::a_disk_that_is_full_leaves_the_old_state_in_force",
        ],
    ),
];
