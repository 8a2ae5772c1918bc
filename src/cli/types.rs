//! `eventsubd types`: prints the catalogue.

mod describe;

use std::time::SystemTime;

use globset::Glob;

use self::describe::{Entry, detail, table};
use super::args::{Args, TypesArgs};
use super::term::{self, Failure};
use crate::model::catalog::{self, TypeVersion};
use crate::model::json;
use crate::model::subscription::Condition;
use crate::model::time::Timestamp;
use crate::samples::{self, SampleRequest, SampleUser};

/// Exit code for a name that nothing has, as for wrong usage.
const WRONG_USAGE: u8 = 2;

pub(super) fn run(args: &Args, flags: &TypesArgs) -> Result<u8, Failure> {
    let rows = match &flags.name {
        None => catalog::all().iter().collect(),
        Some(name) => select(name, flags.version.as_deref())?,
    };
    if flags.sample {
        return sample(&rows, flags.variant.as_deref());
    }
    if flags.json {
        return term::write_json(&rows.iter().map(|row| Entry::of(row)).collect::<Vec<_>>());
    }
    let is_one_type = rows.iter().all(|row| row.name == rows[0].name);
    let text = match chosen(&rows) {
        Some(row) if is_one_type => detail(row, term::use_colour(&std::io::stdout())),
        _ => table(&rows),
    };
    args.print(&text)
}

/// The rows that a type, a glob or a word means.
fn select(name: &str, version: Option<&str>) -> Result<Vec<&'static TypeVersion>, Failure> {
    let wanted = name.to_ascii_lowercase();
    let names = meant(&wanted)?;
    let is_wanted = |row: &&TypeVersion| {
        names.contains(&row.name.as_str()) && version.is_none_or(|version| row.version == version)
    };
    let rows: Vec<_> = catalog::all().iter().filter(is_wanted).collect();
    if !rows.is_empty() {
        return Ok(rows);
    }
    let failure = match (names.first(), version) {
        (Some(name), Some(version)) => {
            let known: Vec<&str> = catalog::versions(name).map(|row| &*row.version).collect();
            Failure::new(format!("{name} has no version {version}"))
                .hint(format!("there is {}", known.join(", ")))
        }
        _ => unknown(&wanted),
    };
    Err(failure.code(WRONG_USAGE))
}

/// The types that have this name, else match this glob, else have this word in their name, else in their sentence.
fn meant(wanted: &str) -> Result<Vec<&'static str>, Failure> {
    if let Some(name) = catalog::names().find(|name| *name == wanted) {
        return Ok(vec![name]);
    }
    if wanted.contains(['*', '?', '[', '{']) {
        let glob = Glob::new(wanted).map_err(|error| {
            Failure::new(format!("`{wanted}` is not a valid glob")).caused_by(&error).code(WRONG_USAGE)
        })?;
        let glob = glob.compile_matcher();
        return Ok(catalog::names().filter(|name| glob.is_match(name)).collect());
    }
    let begins = |part: &str| part.starts_with(wanted) || wanted.strip_suffix('s') == Some(part);
    let sentence = |name: &str| {
        let row = catalog::default_version(name)?;
        samples::description(name, &row.version).map(|found| found.sentence.to_ascii_lowercase())
    };
    let tiers: [&dyn Fn(&str) -> bool; 3] =
        [&|name| name.split(['.', '_']).any(begins), &|name| name.contains(wanted), &|name| {
            sentence(name).is_some_and(|sentence| sentence.contains(wanted))
        }];
    let found =
        tiers.iter().map(|is_meant| catalog::names().filter(|name| is_meant(name)).collect::<Vec<_>>());
    Ok(found.into_iter().find(|names| !names.is_empty()).unwrap_or_default())
}

fn unknown(name: &str) -> Failure {
    let closest = catalog::names()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| known);
    let failure = Failure::new(format!("this release knows no subscription type {name}"));
    match closest {
        Some(known) => failure.hint(format!("did you mean {known}?")),
        None => failure.hint("`eventsubd types` lists all of them"),
    }
}

/// The version that is meant out of several: the one that the file takes if it names none, else the newest listed.
fn chosen<'a>(rows: &[&'a TypeVersion]) -> Option<&'a TypeVersion> {
    let first = rows.first()?;
    let usual = catalog::default_version(&first.name)?;
    rows.iter().find(|row| row.version == usual.version).or(rows.last()).copied()
}

/// Prints a sample event.
fn sample(rows: &[&'static TypeVersion], variant: Option<&str>) -> Result<u8, Failure> {
    let row =
        chosen(rows).filter(|row| rows.iter().all(|other| other.name == row.name)).ok_or_else(|| {
            let names: Vec<&str> = rows.iter().map(|row| &*row.name).collect();
            Failure::new(format!("a sample is of one type, and this means {}", names.join(", ")))
                .code(WRONG_USAGE)
        })?;
    let variants: Vec<&str> = samples::variants(&row.name, &row.version).collect();
    let name = variant.or_else(|| variants.first().copied()).unwrap_or_default();
    let condition = describe::condition(row);
    let user = describe::somebody;
    let event = samples::variant(&request(row, &condition, &user), name).ok_or_else(|| {
        Failure::new(format!("{} has no variant `{name}`", row.name))
            .hint(format!("there is {}", variants.join(", ")))
            .code(WRONG_USAGE)
    })?;
    let mut text = json::pretty(&event);
    text.push('\n');
    term::write(text.as_bytes())
}

fn request<'a>(
    row: &'a TypeVersion,
    condition: &'a Condition,
    user: &'a dyn Fn(&str) -> SampleUser,
) -> SampleRequest<'a> {
    SampleRequest {
        subscription_type: &row.name,
        version: &row.version,
        condition,
        user,
        now: Timestamp(SystemTime::now()),
        serial: 1,
        happening: None,
    }
}

#[cfg(test)]
mod tests;
