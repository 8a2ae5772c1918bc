//! The preview in words, one line for each thing that would be done. ◆

use std::io::{self, Write};

use super::{Preview, PreviewConduit};
use crate::model::grants;
use crate::model::subscription::SubscriptionKey;
use crate::model::text::{LONGEST_LINE, one_line};
use crate::reconcile::decide::action::{Action, DeleteReason};

/// The colours of a sign.
const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

impl Preview {
    /// Writes it for people, with a last line that says how much of each there is.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn render(&self, out: &mut dyn Write, color: bool) -> io::Result<()> {
        let mut row = |code: &str, sign: &str, text: &str| {
            let text = one_line(text, LONGEST_LINE);
            if color && !code.is_empty() {
                writeln!(out, "\x1b[{code}m{sign}\x1b[0m {text}")
            } else {
                writeln!(out, "{sign} {text}")
            }
        };
        if let Some(why) = &self.stops {
            row(RED, "✗", &format!("a run ends before it changes anything: {why}"))?;
        }
        match &self.conduit {
            None | Some(PreviewConduit::Keep { .. }) => {}
            Some(PreviewConduit::Resize { id, from, to }) => {
                row(YELLOW, "~", &format!("conduit {id}: {from} shards -> {to}"))?;
            }
            Some(PreviewConduit::Make { gone, shards }) => {
                let gone =
                    gone.as_ref().map(|id| format!(", in place of {id}, which is gone")).unwrap_or_default();
                row(GREEN, "+", &format!("conduit with {shards} shards{gone}"))?;
            }
        }
        for action in &self.plan.actions {
            match action {
                Action::Create { key, worst_cost, exact, moves, .. } => {
                    let cost = match (worst_cost, exact) {
                        (0, _) => String::new(),
                        (cost, true) => format!(" (costs {cost})"),
                        (cost, false) => format!(" (costs at most {cost})"),
                    };
                    let own = if self.own.contains(key) { " (the daemon's own)" } else { "" };
                    let moves = if *moves {
                        " (in place of an older one, which goes once this one delivers)"
                    } else {
                        ""
                    };
                    row(GREEN, "+", &format!("{}{own}{cost}{moves}", self.name(key)))?;
                }
                Action::Delete { key, reason, .. } => {
                    row(RED, "-", &format!("{} ({})", self.name(key), why(reason)))?;
                }
            }
        }
        for action in &self.plan.held {
            let name = self.name(action.key());
            row(
                YELLOW,
                "!",
                &format!("{name} (not in the file; waits for `eventsubd apply --allow-deletes`)"),
            )?;
        }
        for blocked in &self.plan.blocked {
            row(YELLOW, "!", &format!("{}: {}", self.name(&blocked.key), blocked.reason))?;
        }
        for user in &self.grants {
            let name = user.login.as_deref().unwrap_or(&user.user_id);
            if !user.missing.is_empty() {
                let missing = grants::list(&user.missing);
                let text = format!("{name} must allow {missing}: `eventsubd authorize --user {name}`");
                row(YELLOW, "!", &text)?;
            } else {
                row("", " ", &format!("{name} has allowed {}", grants::list(&user.granted)))?;
            }
        }
        for warning in &self.warnings {
            row(YELLOW, "!", warning)?;
        }
        for line in &self.catch_up {
            row("", " ", line)?;
        }
        if self.plan.keep > 0 {
            row("", " ", &format!("keep {}", self.plan.keep))?;
        }
        if let (Some(total), Some(max)) = (self.total_cost, self.max_total_cost) {
            let inexact = |action: &Action| matches!(action, Action::Create { exact: false, .. });
            let at_most = if self.plan.actions.iter().any(inexact) { "at most " } else { "" };
            row("", " ", &format!("cost {total} of {max}, and {at_most}{} more", self.added_cost()))?;
        }
        writeln!(out, "{}", self.summary())
    }

    /// `Plan: 3 to create, 1 to delete, 120 to keep, 2 parked.`
    pub fn summary(&self) -> String {
        let creates = self.plan.actions.iter().filter(|action| action.is_create()).count();
        let mut text = format!(
            "Plan: {creates} to create, {} to delete, {} to keep, {} parked",
            self.plan.actions.len() - creates,
            self.plan.keep,
            self.plan.blocked.len()
        );
        if !self.plan.held.is_empty() {
            text.push_str(&format!(", {} deletes held back", self.plan.held.len()));
        }
        text.push('.');
        text
    }

    fn added_cost(&self) -> u64 {
        let costs = self.plan.actions.iter().map(|action| match action {
            Action::Create { worst_cost, .. } => *worst_cost,
            Action::Delete { .. } => 0,
        });
        costs.fold(0, u64::saturating_add)
    }

    /// `channel.follow v2 broadcaster ninja (19571641) moderator ninja (19571641)`
    fn name(&self, key: &SubscriptionKey) -> String {
        let mut text = format!("{} v{}", key.subscription_type, key.version);
        for (field, value) in key.condition.iter() {
            text.push(' ');
            text.push_str(field.strip_suffix("_user_id").unwrap_or(field));
            text.push(' ');
            match self.logins.get(value).filter(|_| field.ends_with("user_id")) {
                Some(login) => text.push_str(&format!("{login} ({value})")),
                None => text.push_str(value),
            }
        }
        text
    }
}

fn why(reason: &DeleteReason) -> String {
    match reason {
        DeleteReason::Dead(status) => format!("dead: {status}"),
        DeleteReason::Duplicate => "an equal one stays".to_owned(),
        DeleteReason::Unwanted => "not in the file".to_owned(),
        DeleteReason::Moved => "moved".to_owned(),
    }
}
