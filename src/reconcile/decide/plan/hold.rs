//! Deletes that wait until a person allows them. ◆

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use sha2::{Digest, Sha256};

use crate::model::subscription::SubscriptionKey;

/// Deletes up to this number are held only if they are all that there is.
pub(in crate::reconcile) const FREE_DELETES: u64 = 10;

/// Memory of held deletes: subscriptions that are created meanwhile do not lift the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reconcile) struct Hold {
    /// How many subscriptions were ours when they were first held.
    pub(in crate::reconcile) of: u64,
    /// A fingerprint of what was wanted then. When something else is wanted, it is looked at anew whether all would
    /// be deleted: what is deleted may then be what was created by mistake.
    pub(in crate::reconcile) wanted: u64,
}

impl Hold {
    /// From the text that [`fmt::Display`] makes.
    pub(in crate::reconcile) fn parse(text: &str) -> Option<Self> {
        let (of, wanted) = text.split_once(' ')?;
        Some(Self { of: of.parse().ok()?, wanted: wanted.parse().ok()? })
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.of, self.wanted)
    }
}

/// How many deletes there are, of how many subscriptions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deletes {
    pub(super) many: u64,
    pub(super) ours: u64,
    /// The part of ours that may be deleted, 0 to 1.
    pub(super) part: f64,
}

/// Whether a list that is not quite the newest could make a difference to [`hold`].
pub(super) fn is_near_a_hold(deletes: Deletes) -> bool {
    let Deletes { many, ours, part } = deletes;
    let part = if part.is_nan() { 0.0 } else { part };
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let is_large = many > FREE_DELETES && many as f64 * 2.0 > part * ours as f64;
    is_large || (many > 0 && many * 2 >= ours)
}

/// The hold on these deletes; `None` if they need no permission.
pub(super) fn hold(
    deletes: Deletes,
    before: Option<Hold>,
    wanted: &[SubscriptionKey],
    own: &HashSet<SubscriptionKey>,
) -> Option<Hold> {
    let Deletes { many, ours, part } = deletes;
    if many == 0 {
        return None;
    }
    // A part that is not a number allows nothing.
    let part = if part.is_nan() { 0.0 } else { part };
    let of = before.map_or(ours, |before| before.of.min(ours));
    let wanted = fingerprint(wanted, own);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let large = many > FREE_DELETES && many as f64 > part * of as f64;
    let all = many >= ours || (many >= of && before.is_some_and(|before| before.wanted == wanted));
    (large || all).then_some(Hold { of, wanted })
}

fn fingerprint(wanted: &[SubscriptionKey], own: &HashSet<SubscriptionKey>) -> u64 {
    sum_of_keys(wanted.iter().filter(|key| !own.contains(key)))
}

/// A fingerprint of these keys, the same in every process and whatever the order.
pub(in crate::reconcile) fn sum_of_keys<'a>(keys: impl Iterator<Item = &'a SubscriptionKey>) -> u64 {
    let mut sum = 0_u64;
    let mut text = String::new();
    for key in keys {
        text.clear();
        let _ = write!(text, "{key}");
        let digest = Sha256::digest(text.as_bytes());
        let bytes = digest.first_chunk().copied().unwrap_or_default();
        sum = sum.wrapping_add(u64::from_be_bytes(bytes));
    }
    sum
}
