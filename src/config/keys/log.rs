//! Filters of log lines: whether one is what it was meant to be.
//!
//! A filter takes a word that it does not know for the name of a module, and then writes that module's lines and no
//! others. So a level has to be a level here, and a module one that exists.

use tracing_subscriber::EnvFilter;

use super::layers::Layers;
use crate::config::report::diagnostic::closest;
use crate::config::report::private;
use crate::config::report::problems::{Complaint, Problems};

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
/// Levels of syslog, of other programs, and their numbers.
const OTHER_LEVELS: [(&str, &str); 26] = [
    ("warning", "warn"),
    ("verbose", "debug"),
    ("notice", "info"),
    ("information", "info"),
    ("informational", "info"),
    ("normal", "info"),
    ("default", "info"),
    ("on", "info"),
    ("all", "trace"),
    ("critical", "error"),
    ("crit", "error"),
    ("fatal", "error"),
    ("alert", "error"),
    ("emerg", "error"),
    ("emergency", "error"),
    ("err", "error"),
    ("panic", "error"),
    ("none", "off"),
    ("quiet", "off"),
    ("silent", "off"),
    ("0", "off"),
    ("1", "error"),
    ("2", "warn"),
    ("3", "info"),
    ("4", "debug"),
    ("5", "trace"),
];
/// Our modules, and the crates that are built in: `build.rs` lists both.
const MODULES: &[&str] = &include!(concat!(env!("OUT_DIR"), "/modules.rs"));
const CRATES: &[&str] = &include!(concat!(env!("OUT_DIR"), "/crates.rs"));

/// Checks `log.level`; the filter of `RUST_LOG` has its own check.
pub(in crate::config) fn check(level: &str, layers: &Layers, problems: &mut Problems) {
    let at = layers.place("log.level");
    for complaint in complaints(level) {
        let diagnostic = problems.error(&at, complaint.message);
        diagnostic.hints.extend(complaint.hint);
    }
    if problems.is_clean()
        && let Some(remark) = remark(level)
    {
        problems.warning(&at, remark.message).hints.extend(remark.hint);
    }
}

/// The problems of a filter.
fn complaints(filter: &str) -> Vec<Complaint> {
    let found: Vec<Complaint> =
        directives(filter).filter(|directive| !directive.is_empty()).filter_map(complaint).collect();
    if found.is_empty() && (directives(filter).all(str::is_empty) || EnvFilter::try_new(filter).is_err()) {
        return vec![Complaint::new(
            format!("{} is not a filter for log lines", private::shown(filter)),
            "for example \"info\" or \"info,eventsubd::auth=debug\"",
        )];
    }
    found
}

/// A remark about a filter that is right, and keeps back more than it seems to.
fn remark(filter: &str) -> Option<Complaint> {
    let has_level = directives(filter).any(is_level);
    let first = directives(filter).find(|directive| !directive.is_empty())?;
    (!has_level).then(|| {
        Complaint::new(
            "the filter for log lines has no level for the rest: nothing else is logged, errors included",
            format!("begin with one, such as \"info,{}\"", first.split('[').next().unwrap_or_default()),
        )
    })
}

/// The directives between the commas; those of fields in brackets belong to their directive.
fn directives(filter: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = filter.split(move |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim)
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

/// The problem of one directive: a level, or `target[span]=level`.
fn complaint(directive: &str) -> Option<Complaint> {
    let (target, level) = match directive.rsplit_once('=') {
        // The sign within brackets belongs to a field.
        Some((target, level)) if !level.contains([']', '}']) => (target, Some(level)),
        _ => (directive, None),
    };
    let module = target.split('[').next().unwrap_or_default();
    match level {
        Some(level) if !is_level(level) => return Some(no_level(level)),
        None if module == target && !is_level(target) => {
            return Some(match is_module(target) || is_crate(target) {
                true => Complaint::new(
                    format!(
                        "{} stands without a level, and would be all that is logged",
                        private::shown(target)
                    ),
                    format!("write \"info,{target}=debug\""),
                ),
                false => no_level(target),
            });
        }
        _ => {}
    }
    let known = module.is_empty() || is_level(module) || is_module(module) || is_crate(module);
    (!known).then(|| {
        let of_ours = closest(module, MODULES.iter().copied()).or_else(|| {
            let ours = format!("eventsubd::{module}");
            MODULES.iter().copied().find(|known| *known == ours)
        });
        let hint = match of_ours.or_else(|| closest(module, CRATES.iter().copied())) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name a module such as `eventsubd::auth`, or a library such as `hyper`".to_owned(),
        };
        Complaint::new(format!("there is no module {} to log", private::shown(module)), hint)
    })
}

fn no_level(word: &str) -> Complaint {
    let lower = word.to_ascii_lowercase();
    let other = OTHER_LEVELS.iter().find(|(name, _)| *name == lower).map(|(_, level)| *level);
    let hint = match other.or_else(|| closest(word, LEVELS)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "the levels are `error`, `warn`, `info`, `debug`, `trace` and `off`".to_owned(),
    };
    Complaint::new(format!("{} is not a level of log lines", private::shown(word)), hint)
}

fn is_module(target: &str) -> bool {
    MODULES.contains(&target)
}

/// Returns whether the target is a linked crate, or may be a module of one.
fn is_crate(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    name != "eventsubd" && CRATES.contains(&name)
}

/// The problem of a filter, in one line; `None` if it can be used.
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
    fn filters_that_say_what_they_mean() {
        for good in [
            "info",
            "OFF",
            "debug,eventsubd::store=trace",
            "eventsubd=info",
            "warn,hyper=debug,hyper_util::client=trace",
            "info,eventsubd::config::keys::log=debug",
            "info,[sink{name=a}]=trace",
            "info,eventsubd::delivery[sink]=debug",
        ] {
            assert_eq!(filter_problem(good), None, "{good}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_an_error() {
        for (word, meant) in [
            ("warning", "warn"),
            ("WARNING", "warn"),
            ("verbose", "debug"),
            ("notice", "info"),
            ("critical", "error"),
            ("none", "off"),
            ("3", "info"),
            ("debgu", "debug"),
            ("eventsubd=warning", "warn"),
            ("info,hyper=loud", "the levels are"),
        ] {
            let problem = filter_problem(word).expect(word);
            assert!(problem.contains("is not a level of log lines"), "{word}: {problem}");
            let hint =
                if meant.contains(' ') { meant.to_owned() } else { format!("did you mean `{meant}`?") };
            assert!(problem.contains(&hint), "{word}: {problem}");
        }
    }

    #[test]
    fn a_module_that_does_not_exist_is_an_error() {
        for (filter, problem) in [
            (
                "info,eventsubd::auht=debug",
                "there is no module `eventsubd::auht` to log; did you mean `eventsubd::auth`?",
            ),
            ("info,auth=debug", "there is no module `auth` to log; did you mean `eventsubd::auth`?"),
            (
                "info,nothing_like_it=debug",
                "there is no module `nothing_like_it` to log; name a module such as `eventsubd::auth`, or a library such as `hyper`",
            ),
            (
                "hyper",
                "`hyper` stands without a level, and would be all that is logged; write \"info,hyper=debug\"",
            ),
        ] {
            assert_eq!(filter_problem(filter).as_deref(), Some(problem), "{filter}");
        }
        for broken in ["", ",", "info,x[=debug", "info,[a=b"] {
            assert!(filter_problem(broken).is_some(), "{broken}");
        }
    }

    #[test]
    fn a_filter_without_a_level_for_the_rest_is_remarked() {
        assert!(remark("eventsubd::auth=debug").is_some());
        assert_eq!(remark("info,eventsubd::auth=debug"), None);
    }
}
