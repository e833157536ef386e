//! What callers did, by name.

use super::{Kind, escaped, family, line, series};
use crate::auth::{Auth, Reason};

/// Appends the series.
pub fn callers(out: &mut String, auth: &Auth) {
    let name = "pilotfish_caller_requests_total";
    family(
        out,
        name,
        Kind::Counter,
        "Requests of known callers that were let in.",
    );
    auth.each_count(|caller, counts| {
        let (requests, _) = counts.read();
        series(out, name, ("caller", &escaped(caller)), requests);
    });
    let name = "pilotfish_caller_refusals_total";
    family(
        out,
        name,
        Kind::Counter,
        "Requests of known callers that were refused.",
    );
    auth.each_count(|caller, counts| {
        let (_, refused) = counts.read();
        let caller = escaped(caller);
        for ((_, reason), count) in Reason::ALL.iter().zip(refused) {
            line(
                out,
                format_args!("{name}{{caller=\"{caller}\",reason=\"{reason}\"}} {count}"),
            );
        }
    });
}
