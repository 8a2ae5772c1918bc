//! `eventsubd types`: the catalogue.

use std::fmt::Write as _;
use std::io;

use super::args::{Args, TypesArgs};
use super::term::{self, Failure};
use crate::model::catalog::{self, Auth, TypeVersion};

/// `eventsubd types`
pub(super) fn run(args: &Args, flags: &TypesArgs) -> Result<u8, Failure> {
    let rows: Vec<&TypeVersion> = match &flags.name {
        None => catalog::all().iter().collect(),
        Some(name) => {
            let rows: Vec<_> = catalog::versions(name).collect();
            if rows.is_empty() {
                return Err(unknown(name));
            }
            rows
        }
    };
    if flags.json {
        return term::write_json(&rows);
    }
    let colour = term::colour(&io::stdout());
    let text = if flags.name.is_some() {
        rows.iter().map(|row| detail(row, colour)).collect()
    } else {
        table(&rows)
    };
    args.print(&text)
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

/// Remarks that belong to a version.
fn marks(row: &TypeVersion) -> Vec<&'static str> {
    let marks = [
        (row.removed, "removed"),
        (row.deprecated, "superseded"),
        (row.beta, "beta"),
        (row.batched, "batched"),
    ];
    marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect()
}

/// Groups of scopes: one of each group is enough.
fn scopes(groups: &[Vec<String>]) -> String {
    groups.iter().map(|group| group.join(" or ")).collect::<Vec<_>>().join(", and ")
}

fn table(rows: &[&TypeVersion]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = format!("{:<width$}  VERSION  CONDITION; SCOPES\n", "TYPE");
    for row in rows {
        let fields: Vec<String> = row
            .condition
            .iter()
            .map(|(name, field)| if field.required { name.clone() } else { format!("[{name}]") })
            .collect();
        let _ = write!(text, "{:<width$}  {:<7}  {}", row.name, row.version, fields.join(" "));
        if !row.scopes.is_empty() {
            let _ = write!(text, "; {}", scopes(&row.scopes));
        }
        let marks = marks(row);
        if !marks.is_empty() {
            let _ = write!(text, " ({})", marks.join(", "));
        }
        text.push('\n');
    }
    text
}

fn detail(row: &TypeVersion, colour: bool) -> String {
    let title = format!("{} version {}", row.name, row.version);
    let mut text = if colour { format!("\x1b[1m{title}\x1b[0m") } else { title };
    let marks = marks(row);
    if !marks.is_empty() {
        let _ = write!(text, " ({})", marks.join(", "));
    }
    text.push('\n');
    for (name, field) in &row.condition {
        let need = if field.required { "required" } else { "optional" };
        let _ = writeln!(text, "  {name:<26} {need}, {}", field.kind.replace('_', " "));
    }
    let granted_by = match (&row.scope_granted_by, row.auth) {
        (Some(field), _) => format!(" by the user of {field}"),
        (None, Auth::App) => " to the application itself".to_owned(),
        (None, _) => String::new(),
    };
    let _ = match scopes(&row.scopes) {
        none if none.is_empty() => writeln!(text, "  nobody has to grant anything"),
        scopes => writeln!(text, "  granted{granted_by}: {scopes}"),
    };
    for grant in &row.additional_grants {
        let _ = write!(text, "  granted by the user of {}: {}", grant.field, scopes(&grant.scopes));
        let _ = match &grant.alternative {
            Some(alternative) => writeln!(text, ", or: {alternative}"),
            None => writeln!(text),
        };
    }
    let free = row.auth != Auth::None || !row.scopes.is_empty();
    let cost =
        if free { "0" } else { "0 when a user of the condition has authorized the application, else 1" };
    let _ = writeln!(text, "  cost: {cost}");
    let _ = writeln!(text, "  transports: {}", row.transports.join(", "));
    if !row.notes.is_empty() {
        let _ = writeln!(text, "  {}", row.notes);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn one_type_in_words() {
        let text: String = catalog::versions("channel.follow").map(|row| detail(row, false)).collect();
        expect![[r#"
            channel.follow version 1 (removed, superseded)
              broadcaster_user_id        required, user id
              nobody has to grant anything
              cost: 0 when a user of the condition has authorized the application, else 1
              transports: webhook, websocket, conduit
              Removed version (2023). Creating it answers 410 Gone. Use version 2.
            channel.follow version 2
              broadcaster_user_id        required, user id
              moderator_user_id          required, user id
              granted by the user of moderator_user_id: moderator:read:followers
              cost: 0
              transports: webhook, websocket, conduit
              The user in moderator_user_id must have granted the scope to this client id and must be a moderator of the channel or its broadcaster. Put the broadcaster id in both fields when the broadcaster is the one who authorized.
        "#]].assert_eq(&text);
    }

    #[test]
    fn every_type_has_its_line() {
        let rows: Vec<_> = catalog::all().iter().collect();
        let table = table(&rows);
        assert_eq!(table.lines().count(), rows.len() + 1);
        assert!(table.lines().skip(1).zip(&rows).all(|(line, row)| line.starts_with(&row.name)));
    }
}
