//! What clients send, and when they leave: cases 1 to 30.

use super::{Case, case};

pub(super) const CASES: [Case; 30] = [
    case(
        (1, "no Host, two, or one that is none; userinfo"),
        ("400 `bad_host`", "closed"),
        ("never asked", "-"),
        &["heads::a_host_is_one_and_valid_or_the_request_is_refused"],
    ),
    case(
        (
            2,
            "a line of garbage, NUL, controls, a folded line, a space before the colon",
        ),
        ("400 `bad_request`", "closed"),
        ("never asked", "-"),
        &["heads::a_head_that_cannot_be_read_is_refused"],
    ),
    case(
        (3, "64 KiB of a field, 150 fields, a target of 70 KB"),
        (
            "431 `head_too_large` twice, 414 `target_too_long`",
            "closed",
        ),
        ("never asked", "128 KiB a connection, and 4 MiB for all"),
        &[
            "heads::a_head_that_is_too_large_is_refused",
            "heads::heads_that_do_not_end_hold_their_bound_and_no_more",
        ],
    ),
    case(
        (4, "CONNECT, TRACE, a method that nobody knows"),
        (
            "405 `method_not_allowed` and Allow; any token of up to 32 bytes passes",
            "CONNECT: closed, else kept",
        ),
        ("never asked", "-"),
        &["heads::methods_that_make_no_sense_here_are_refused_and_told_which_do"],
    ),
    case(
        (5, "an absolute target, `*`, an authority, `..`, `%2f`"),
        ("400 `bad_target`; paths pass as they are", "closed; kept"),
        ("never another route", "-"),
        &["heads::a_target_has_one_meaning"],
    ),
    case(
        (6, "forged X-Forwarded-For, X-Real-IP, fields of ours"),
        ("dropped, or set anew", "kept"),
        ("no effect", "-"),
        &[
            "heads::who_the_client_is_follows_from_its_socket_alone",
            "heads::an_engine_is_named_by_its_id_and_never_by_an_address",
        ],
    ),
    case(
        (7, "Connection names authorization, host, content-length"),
        ("they stay", "kept"),
        ("no effect", "-"),
        &["heads::what_connection_names_does_not_take_away_what_a_request_is"],
    ),
    case(
        (8, "no key, a wrong one, 10 KB of one, no UTF-8"),
        ("401 `invalid_api_key`", "either"),
        ("never asked", "256 KiB of a body are taken"),
        &[
            "keys::whoever_has_no_key_gets_the_same_answer_and_no_engine_hears_of_it",
            "keys::a_body_is_not_waited_for_without_a_key",
        ],
    ),
    case(
        (9, "a length and chunks, in either order"),
        ("400 `bad_transfer_encoding`", "closed"),
        ("never asked", "-"),
        &[
            "framing::a_length_and_chunks_at_once_are_refused_and_nothing_follows",
            "framing::a_pipelined_head_is_no_way_around_it",
        ],
    ),
    case(
        (10, "lengths that differ, lists, no numbers"),
        ("400 `bad_request`", "closed"),
        ("never asked", "-"),
        &["framing::a_length_is_one_number"],
    ),
    case(
        (11, "a coding that is not one `chunked`; one in HTTP/1.0"),
        (
            "501 `bad_transfer_encoding`; 400 `bad_request` where it does not end in one",
            "closed",
        ),
        ("never asked", "-"),
        &["framing::a_coding_is_chunked_once_or_the_request_is_refused"],
    ),
    case(
        (
            12,
            "chunks with LF, too large, 2 MB of extensions, a bad trailer",
        ),
        ("400 `incomplete_body`", "closed"),
        ("no effect: it sees no end", "16 KiB of extensions"),
        &["framing::chunks_are_framed_as_they_must_be_or_the_body_has_broken_off"],
    ),
    case(
        (13, "an upgrade to h2c; bytes before the 101"),
        (
            "the field is dropped, the bytes are the next request",
            "kept",
        ),
        ("no effect", "-"),
        &["framing::an_upgrade_that_nobody_grants_changes_nothing"],
    ),
    case(
        (
            14,
            "HTTP/2: a length that is not the data's, TE, CRLF, pseudo-fields, two hosts",
        ),
        (
            "reset, or 400; GOAWAY for what no field can be",
            "kept; closed",
        ),
        ("never asked, or sees no end", "-"),
        &["framing::on_http2_a_request_that_is_none_is_reset_or_refused_and_others_go_on"],
    ),
    case(
        (15, "two requests at once"),
        ("in order; a client that leaves is noticed", "kept"),
        ("no effect", "-"),
        &[
            "framing::pipelined_requests_are_answered_in_order_and_one_at_a_time",
            "leaving::before_the_head_mid_stream_and_with_pipelined_bytes",
        ],
    ),
    case(
        (16, "nothing, `P`, half of a preface"),
        ("nothing, or 408", "closed with the head's deadline"),
        ("never asked", "-"),
        &["slow::the_first_bytes_are_due_whatever_protocol_they_begin"],
    ),
    case(
        (17, "a TLS handshake that stalls"),
        ("nothing", "closed with the head's deadline"),
        ("never asked", "-"),
        &["slow::a_handshake_that_stalls_is_given_up"],
    ),
    case(
        (18, "a head that drips"),
        ("408 `head_timeout`", "closed"),
        ("never asked", "-"),
        &[
            "slow::a_head_is_due_as_a_whole",
            "app::overload::slow_heads_and_bodies_are_not_idle_but_late",
        ],
    ),
    case(
        (19, "a body that drips"),
        ("408 `request_timeout`", "closed"),
        ("never asked", "-"),
        &["slow::a_body_is_due_piece_by_piece_and_not_too_slowly"],
    ),
    case(
        (20, "a body beyond its bound"),
        (
            "413 `request_too_large`; 503 `overloaded` for all together",
            "closed",
        ),
        ("never asked", "32 MiB a body, 256 MiB in all"),
        &[
            "slow::a_body_beyond_its_bound_is_refused_before_it_has_come",
            "slow::all_bodies_together_have_a_bound",
        ],
    ),
    case(
        (21, "Expect: 100-continue of who is refused"),
        ("the last answer, no 100", "closed"),
        ("never asked", "-"),
        &[
            "slow::who_would_send_a_body_in_vain_is_told_before",
            "keys::a_body_is_not_waited_for_without_a_key",
        ],
    ),
    case(
        (22, "a FIN within an upload"),
        ("nothing", "-"),
        ("no effect: it sees no end", "-"),
        &["leaving::mid_upload_and_no_engine_sees_an_end"],
    ),
    case(
        (23, "a FIN, a close, a reset in each phase; RST_STREAM"),
        ("nothing", "-"),
        ("no effect; its side is closed, the place is free", "-"),
        &[
            "leaving::before_the_head_mid_stream_and_with_pipelined_bytes",
            "leaving::in_the_queue",
            "leaving::in_a_pause_before_the_next_try",
            "leaving::a_stream_of_http2_that_is_reset",
        ],
    ),
    case(
        (24, "it takes nothing of a stream"),
        ("it breaks off with the write's deadline", "reset"),
        ("no effect: it is held back", "1 MiB a stream"),
        &[
            "slow::who_takes_nothing_holds_an_engine_back_and_is_cut",
            "app::http2::an_answer_of_our_own_that_nobody_takes_is_given_up",
        ],
    ),
    case(
        (25, "more connections than descriptors"),
        ("the longest idle go, others wait", "-"),
        ("never asked", "-"),
        &[
            "app::overload::without_descriptors_it_waits_and_idle_connections_go_first",
            "app::overload::the_longest_idle_make_room_and_who_works_stays",
        ],
    ),
    case(
        (26, "floods of HTTP/2"),
        ("GOAWAY, or what it costs is bounded", "closed"),
        ("no effect", "8 MiB each, 32 MiB all"),
        &[
            "floods::each_flood_is_cut_off_or_costs_little_and_others_are_served",
            "app::overload::a_client_that_resets_all_it_asks_for_is_cut",
        ],
    ),
    case(
        (27, "no JSON, and odd JSON"),
        ("400 `invalid_json`, `invalid_value`; or as it is", "kept"),
        ("never asked", "-"),
        &[
            "payloads::a_body_is_json_or_refused_and_nobody_reads_it_differently",
            "payloads::what_is_read_takes_time_by_its_length_alone",
        ],
    ),
    case(
        (28, "no model, or one that nobody serves"),
        ("400 `missing_model`, 404 `model_not_found`", "kept"),
        ("never asked", "-"),
        &["payloads::a_request_names_a_model_that_there_is"],
    ),
    case(
        (29, "a compressed body"),
        ("415 `unsupported_encoding`", "kept"),
        ("never asked", "nothing is unpacked"),
        &["payloads::what_is_compressed_is_not_taken_for_json"],
    ),
    case(
        (30, "values that engines are to judge"),
        ("their 4xx, to the byte", "kept"),
        ("no effect", "-"),
        &["payloads::what_engines_are_to_judge_is_theirs_and_so_are_their_words"],
    ),
];
