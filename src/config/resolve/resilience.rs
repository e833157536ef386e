//! Deadlines, limits, breaker and retries: what a schema cannot say of them.

use std::time::Duration;

use super::super::dynamic::{
    CauseEntry, CommitEntry, DynamicFile, PolicyTimeoutsEntry, TimeoutsEntry,
};
use super::super::{
    Admission, Breaker, Causes, Checks, Commit, Limits, Retry, Seconds, Shed, Timeouts,
};
use super::Resolving;

/// A deadline below this would end every request; none can be switched off.
const SHORTEST: Duration = Duration::from_millis(10);
/// Bytes of one body that may be held: 1 GiB.
const MOST_BYTES: usize = 1 << 30;
/// How long requests wait for a place.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that may wait.
const MOST_QUEUED: u32 = 100_000;
/// Further engines that may be tried.
const MOST_ATTEMPTS: u32 = 7;
/// How often engines are asked how they are.
const CHECK_EVERY: u32 = 60;

type Deadline<'a> = (&'a str, Option<Seconds>);

fn deadlines(given: &TimeoutsEntry) -> [Deadline<'static>; 10] {
    [
        ("client_head", given.client_head),
        ("client_idle", given.client_idle),
        ("client_body_idle", given.client_body_idle),
        ("client_write_stall", given.client_write_stall),
        ("connect", given.connect),
        ("engine_head", given.engine_head),
        ("first_token", given.first_token),
        ("engine_idle", given.engine_idle),
        ("total", given.total),
        ("pool_idle", given.pool_idle),
    ]
}

fn or(given: Option<Seconds>, usual: Duration) -> Duration {
    given.map_or(usual, |Seconds(given)| given)
}

/// The deadlines at the top.
pub(super) fn timeouts(keys: &DynamicFile) -> Timeouts {
    let given = keys.timeouts.clone().unwrap_or_default();
    let usual = Timeouts::default();
    Timeouts {
        client_head: or(given.client_head, usual.client_head),
        client_idle: or(given.client_idle, usual.client_idle),
        client_body_idle: or(given.client_body_idle, usual.client_body_idle),
        client_write_stall: or(given.client_write_stall, usual.client_write_stall),
        connect: or(given.connect, usual.connect),
        engine_head: or(given.engine_head, usual.engine_head),
        first_token: given.first_token.map(|Seconds(given)| given),
        engine_idle: or(given.engine_idle, usual.engine_idle),
        total: given.total.map(|Seconds(given)| given),
        pool_idle: or(given.pool_idle, usual.pool_idle),
    }
}

/// Those of a policy that has its own.
pub(super) fn policy_timeouts(keys: &DynamicFile, own: &PolicyTimeoutsEntry) -> Timeouts {
    let usual = timeouts(keys);
    let own_or = |own: Option<Seconds>, usual| own.map(|Seconds(own)| own).or(usual);
    Timeouts {
        engine_head: or(own.engine_head, usual.engine_head),
        first_token: own_or(own.first_token, usual.first_token),
        engine_idle: or(own.engine_idle, usual.engine_idle),
        total: own_or(own.total, usual.total),
        ..usual
    }
}

impl Resolving {
    /// What the schema says of the file, and nobody of flags.
    pub(super) fn bounds(&mut self, keys: &DynamicFile) {
        let given = keys.timeouts.clone().unwrap_or_default();
        self.deadlines("timeouts", &deadlines(&given));
        for (name, policy) in keys.policies.iter().flatten() {
            let Some(own) = &policy.timeouts else {
                continue;
            };
            let own = [
                ("engine_head", own.engine_head),
                ("first_token", own.first_token),
                ("engine_idle", own.engine_idle),
                ("total", own.total),
            ];
            self.deadlines(&format!("policies.{name}.timeouts"), &own);
        }
    }

    fn deadlines(&mut self, path: &str, given: &[Deadline<'_>]) {
        for (name, given) in given {
            if let Some(Seconds(given)) = given.filter(|Seconds(given)| *given < SHORTEST) {
                let message = format!("{given:?} is too short; expected {SHORTEST:?} or more");
                self.wrong(format!("{path}.{name}"), message);
            }
        }
    }

    pub(super) fn limits(&mut self, keys: &DynamicFile) -> Limits {
        let (given, usual) = (keys.limits.clone().unwrap_or_default(), Limits::default());
        for (name, given, least) in [
            ("max_peek_bytes", given.max_peek_bytes, 1024),
            ("max_replay_bytes", given.max_replay_bytes, 0),
        ] {
            if given.is_some_and(|given| !(least..=MOST_BYTES).contains(&given)) {
                let message = format!("expected {least} to {MOST_BYTES}");
                self.wrong(format!("limits.{name}"), message);
            }
        }
        let max_peek_bytes = given.max_peek_bytes.unwrap_or(usual.max_peek_bytes);
        let limits = Limits {
            max_peek_bytes,
            // A small peek alone is no contradiction.
            max_replay_bytes: (given.max_replay_bytes)
                .unwrap_or(usual.max_replay_bytes.min(max_peek_bytes)),
        };
        if limits.max_replay_bytes > max_peek_bytes {
            let message = format!(
                "{} is more than max_peek_bytes ({max_peek_bytes}): no more is kept than is held",
                limits.max_replay_bytes,
            );
            self.wrong("limits.max_replay_bytes", message);
        }
        limits
    }

    pub(super) fn admission(&mut self, keys: &DynamicFile) -> Admission {
        let given = keys.limits.clone().unwrap_or_default();
        let shed = given.shed.unwrap_or_default();
        let limits = [
            ("max_in_flight", given.max_in_flight),
            ("max_in_flight_per_model", given.max_in_flight_per_model),
            ("max_in_flight_per_engine", given.max_in_flight_per_engine),
        ];
        for (name, limit) in limits {
            if limit == Some(0) {
                self.wrong(
                    format!("limits.{name}"),
                    "0 lets nothing in: expected 1 or more",
                );
            }
        }
        let queue_size = given.queue_size.unwrap_or(0);
        if queue_size > MOST_QUEUED {
            self.wrong("limits.queue_size", format!("expected 0 to {MOST_QUEUED}"));
        }
        if queue_size > 0 && limits.iter().all(|(_, limit)| limit.is_none()) {
            let message = "a queue needs a limit to wait for: give max_in_flight, \
                           max_in_flight_per_model or max_in_flight_per_engine";
            self.wrong("limits.queue_size", message);
        }
        if given.queue_timeout.is_some() && queue_size == 0 {
            let message = "there is no queue to wait in: give queue_size";
            self.wrong("limits.queue_timeout", message);
        }
        self.deadlines("limits", &[("queue_timeout", given.queue_timeout)]);
        for (path, value, most) in [
            (
                "limits.shed.requests_waiting",
                shed.requests_waiting,
                f64::MAX,
            ),
            ("limits.shed.kv_cache_usage", shed.kv_cache_usage, 1.0),
        ] {
            self.within(path, value, (f64::MIN_POSITIVE, most));
        }
        Admission {
            max_in_flight: given.max_in_flight,
            max_per_model: given.max_in_flight_per_model,
            max_per_engine: given.max_in_flight_per_engine,
            queue_size,
            queue_timeout: or(given.queue_timeout, QUEUE_TIMEOUT),
            shed: Shed {
                requests_waiting: shed.requests_waiting,
                kv_cache_usage: shed.kv_cache_usage,
            },
        }
    }

    fn within(&mut self, path: &str, given: Option<f64>, (least, most): (f64, f64)) {
        if given.is_some_and(|given| !(least..=most).contains(&given)) {
            let least = if least == f64::MIN_POSITIVE {
                0.0
            } else {
                least
            };
            let message = if most == f64::MAX {
                format!("expected more than {least}")
            } else {
                format!("expected {least} to {most}")
            };
            self.wrong(path, message);
        }
    }

    pub(super) fn breaker(&mut self, keys: &DynamicFile) -> Breaker {
        let (given, usual) = (keys.breaker.clone().unwrap_or_default(), Breaker::default());
        self.within("breaker.ratio", given.ratio, (0.01, 1.0));
        self.within("breaker.max_ejected", given.max_ejected, (0.0, 1.0));
        for (name, count) in [
            ("failures", given.failures),
            ("min_requests", given.min_requests),
            ("probes", given.probes),
        ] {
            if count == Some(0) {
                self.wrong(format!("breaker.{name}"), "expected 1 or more");
            }
        }
        let times = [
            ("ejection", given.ejection),
            ("max_ejection", given.max_ejection),
        ];
        self.deadlines("breaker", &times);
        let ejection = or(given.ejection, usual.ejection);
        // A long first one alone is no contradiction.
        let max_ejection = or(given.max_ejection, usual.max_ejection.max(ejection));
        if max_ejection < ejection {
            let message = format!("{max_ejection:?} is shorter than ejection ({ejection:?})");
            self.wrong("breaker.max_ejection", message);
        }
        Breaker {
            failures: given.failures.unwrap_or(usual.failures),
            ratio: given.ratio.unwrap_or(usual.ratio),
            min_requests: given.min_requests.unwrap_or(usual.min_requests),
            ejection,
            max_ejection,
            max_ejected: given.max_ejected.unwrap_or(usual.max_ejected),
            probes: given.probes.unwrap_or(usual.probes),
        }
    }

    pub(super) fn retry(&mut self, keys: &DynamicFile) -> Retry {
        let (given, usual) = (keys.retry.clone().unwrap_or_default(), Retry::default());
        if given
            .attempts
            .is_some_and(|attempts| attempts > MOST_ATTEMPTS)
        {
            self.wrong("retry.attempts", format!("expected 0 to {MOST_ATTEMPTS}"));
        }
        self.within("retry.budget", given.budget, (0.0, 10.0));
        self.within("retry.reserve", given.reserve, (0.0, 10_000.0));
        let on = given.on.map_or(usual.on, |causes| {
            let has = |cause| causes.contains(&cause);
            Causes {
                reset: has(CauseEntry::Reset),
                busy: has(CauseEntry::Busy),
                timeout: has(CauseEntry::Timeout),
                server_error: has(CauseEntry::ServerError),
            }
        });
        Retry {
            attempts: given.attempts.unwrap_or(usual.attempts),
            on,
            until: match given.until {
                Some(CommitEntry::FirstToken) => Commit::FirstPiece,
                Some(CommitEntry::Head) | None => Commit::Head,
            },
            budget: given.budget.unwrap_or(usual.budget),
            reserve: given.reserve.unwrap_or(usual.reserve),
        }
    }

    pub(super) fn checks(&mut self, keys: &DynamicFile) -> Checks {
        let usual = Checks::default();
        let every = keys.static_backend_health_check_interval;
        let within = keys.static_backend_health_check_timeout_seconds;
        for (name, given) in [
            ("static_backend_health_check_interval", every),
            ("static_backend_health_check_timeout_seconds", within),
        ] {
            if given == Some(0) {
                self.wrong(name, "expected 1 second or more");
            }
        }
        let seconds = |given: u32| Duration::from_secs(u64::from(given));
        let is_on = keys.static_backend_health_checks == Some(true);
        Checks {
            every: is_on.then(|| seconds(every.unwrap_or(CHECK_EVERY))),
            within: within.map_or(usual.within, seconds),
        }
    }
}
