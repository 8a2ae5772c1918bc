//! Filters of log lines: whether one is what it was meant to be.

use tracing_subscriber::EnvFilter;

use super::diagnostic::{closest, quote};
use super::value::Complaint;

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// What is wrong with a filter.
pub(super) fn complaints(filter: &str) -> Vec<Complaint> {
    if EnvFilter::try_new(filter).is_err() {
        return vec![Complaint::new(
            format!("{} is no filter for log lines", quote(filter)),
            "for example \"info\" or \"info,eventsubd::auth=debug\"",
        )];
    }
    // A bare word is the name of a module to the filter, and would show everything of it.
    let misspelt = |word: &str| {
        let known =
            LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) || word.contains(['=', '[', ':']);
        let meant = closest(word, LEVELS).filter(|_| !known)?;
        Some(Complaint::new(
            format!("{} is no level of log lines", quote(word)),
            format!("did you mean `{meant}`?"),
        ))
    };
    filter.split(',').map(str::trim).filter_map(misspelt).collect()
}

/// What is wrong with a filter, in one line; `None` when it can be used.
pub fn filter_problem(filter: &str) -> Option<String> {
    let Complaint { message, hint } = complaints(filter).into_iter().next()?;
    Some(match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_say_what_is_wrong_with_them() {
        for good in ["info", "debug,eventsubd::store=trace", "OFF", "eventsubd=info", "some_crate"] {
            assert_eq!(filter_problem(good), None, "{good}");
        }
        assert_eq!(
            filter_problem("info,x=loud").unwrap(),
            "`info,x=loud` is no filter for log lines; for example \"info\" or \"info,eventsubd::auth=debug\""
        );
        assert_eq!(
            filter_problem("debgu").unwrap(),
            "`debgu` is no level of log lines; did you mean `debug`?"
        );
    }
}
