//! The chart of events by type over an hour, a day or a week, as numbers for an inline SVG. ◆

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::text::count;
use crate::model::time::Timestamp;
use crate::store::TypeCount;

/// Height of the drawing; a bar and its gap are [`STEP`] wide.
const HEIGHT: u64 = 100;
const STEP: u64 = 10;
/// Types with a colour of their own; further ones are drawn as one.
const SHOWN: usize = 5;
/// Name of the sum of further types.
const OTHERS: &str = "other types";
const MINUTE: u64 = 60_000;

/// The time that the chart covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Range {
    #[default]
    Hour,
    Day,
    Week,
}

impl Range {
    const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// Returns the range that a page's query asks for.
    pub(super) fn parse(query: &str) -> Self {
        let mut asked = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "chart");
        let named = |(_, value): (_, std::borrow::Cow<'_, str>)| {
            Self::ALL.into_iter().find(|range| range.name() == value)
        };
        asked.next().and_then(named).unwrap_or_default()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// Number of bars.
    fn bars(self) -> u64 {
        match self {
            Self::Hour => 60,
            Self::Day => 24,
            Self::Week => 56,
        }
    }

    /// Minutes of one bar.
    fn minutes(self) -> u64 {
        match self {
            Self::Hour => 1,
            Self::Day => 60,
            Self::Week => 180,
        }
    }

    fn per_bar(self) -> &'static str {
        match self {
            Self::Hour => "per minute",
            Self::Day => "per hour",
            Self::Week => "in three hours",
        }
    }

    fn axis(self) -> &'static [&'static str] {
        match self {
            Self::Hour => &["60 min ago", "45", "30", "15", "now"],
            Self::Day => &["24 h ago", "18", "12", "6", "now"],
            Self::Week => &["7 days ago", "6", "5", "4", "3", "2", "1", "now"],
        }
    }

    /// Returns the first hour of the range, since the epoch.
    pub(super) fn first_hour(self, now: Timestamp) -> u64 {
        (self.bar(now) + 1).saturating_sub(self.bars()) * self.minutes() / 60
    }

    /// Returns the number of the current bar since the epoch.
    fn bar(self, now: Timestamp) -> u64 {
        now.unix_millis() / MINUTE / self.minutes()
    }
}

/// The part of a bar that stands for one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Part {
    /// Number of the type in the legend.
    kind: usize,
    y: u64,
    height: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Bar {
    x: u64,
    parts: Vec<Part>,
    /// Tooltip.
    title: String,
    /// Whether its time is not over.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Kind {
    number: usize,
    name: String,
    events: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Choice {
    name: &'static str,
    chosen: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Chart {
    choices: Vec<Choice>,
    width: u64,
    height: u64,
    bars: Vec<Bar>,
    /// The types, most frequent first.
    kinds: Vec<Kind>,
    /// Labels beside the bars, from the top down.
    scale: [String; 3],
    /// Labels below the bars, from left to right.
    axis: &'static [&'static str],
    note: String,
    /// Text for screen readers.
    summary: String,
}

/// Draws counts: by minute for an hour, else by hour.
pub(super) fn chart(range: Range, counts: &[TypeCount], now: Timestamp) -> Chart {
    let (last, minutes) = (range.bar(now), range.minutes());
    let first = (last + 1).saturating_sub(range.bars());
    let slot_minutes = if range == Range::Hour { 1 } else { 60 };
    let bar = |row: &TypeCount| row.slot.saturating_mul(slot_minutes) / minutes;
    let shown = counts.iter().map(|row| (bar(row), row)).filter(|(bar, _)| (first..=last).contains(bar));
    let shown: Vec<(u64, &TypeCount)> = shown.collect();

    let kinds = kinds(shown.iter().map(|(_, row)| *row));
    let number = |kind: &str| kinds.iter().position(|(name, _)| name == kind).unwrap_or(kinds.len() - 1);
    let mut bars: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (bar, row) in &shown {
        let bar = bars.entry(*bar).or_insert_with(|| vec![0; kinds.len()]);
        let events = &mut bar[number(&row.kind)];
        *events = events.saturating_add(row.events);
    }
    let total = |bar: &[u64]| bar.iter().fold(0_u64, |total, events| total.saturating_add(*events));
    let peak = bars.values().map(|bar| total(bar)).max().unwrap_or(0);
    let top = top(peak);
    let all = kinds.iter().fold(0_u64, |all, (_, events)| all.saturating_add(*events));
    let (span, per) = (range.name(), range.per_bar());
    let note = format!("{} in the last {span}, at most {} {per}", count(all), count(peak));
    let listed: Vec<String> =
        kinds.iter().map(|(name, events)| format!("{name} {}", count(*events))).collect();
    Chart {
        choices: Range::ALL.map(|each| Choice { name: each.name(), chosen: each == range }).into(),
        width: range.bars() * STEP,
        height: HEIGHT,
        bars: bars
            .iter()
            .map(|(at, events)| Bar {
                x: (at - first) * STEP + 1,
                parts: parts(events, top),
                title: title(range, last - at, events, &kinds),
                open: *at == last,
            })
            .collect(),
        scale: [count(top), if top > 1 { count(top / 2) } else { String::new() }, "0".to_owned()],
        axis: range.axis(),
        summary: format!("Events {per}: {note}. {}", listed.join(", ")).trim_end().to_owned(),
        note,
        kinds: kinds
            .into_iter()
            .enumerate()
            .map(|(number, (name, events))| Kind { number, name, events: count(events) })
            .collect(),
    }
}

/// Returns the most frequent types with their events, and the sum of the others.
fn kinds<'a>(counts: impl Iterator<Item = &'a TypeCount>) -> Vec<(String, u64)> {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for row in counts {
        let total = totals.entry(&row.kind).or_default();
        *total = total.saturating_add(row.events);
    }
    let mut others = totals.remove("");
    let mut named: Vec<(String, u64)> =
        totals.into_iter().map(|(kind, events)| (kind.to_owned(), events)).collect();
    named.sort_by_key(|(_, events)| Reverse(*events));
    for (_, events) in named.drain(SHOWN.min(named.len())..) {
        others = Some(others.unwrap_or(0).saturating_add(events));
    }
    named.extend(others.map(|events| (OTHERS.to_owned(), events)));
    named
}

/// Returns the number at the top of the scale: one that is easy to read, and not below the peak.
fn top(peak: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for step in [1, 2, 4, 6, 8] {
            let top = unit.saturating_mul(step);
            if top >= peak {
                return top;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

/// Stacks the types of a bar. A bar with an event can be seen.
fn parts(events: &[u64], top: u64) -> Vec<Part> {
    let (mut sum, mut below) = (0_u64, 0);
    let mut parts = Vec::new();
    let last = events.iter().rposition(|events| *events > 0);
    for (kind, events) in events.iter().enumerate() {
        sum = sum.saturating_add(*events);
        let scaled = u128::from(sum) * u128::from(HEIGHT) / u128::from(top);
        let mut reached = u64::try_from(scaled).unwrap_or(HEIGHT).min(HEIGHT);
        if last == Some(kind) {
            reached = reached.max(2);
        }
        if reached > below {
            parts.push(Part { kind, y: HEIGHT - reached, height: reached - below });
        }
        below = reached;
    }
    parts
}

/// Returns the tooltip of the bar this many bars before the current one.
fn title(range: Range, ago: u64, events: &[u64], kinds: &[(String, u64)]) -> String {
    let when = match (range, ago) {
        (Range::Hour, 0) => "this minute".to_owned(),
        (Range::Hour, ago) => format!("{ago} min ago"),
        (Range::Day, 0) => "this hour".to_owned(),
        (Range::Day, ago) => format!("{ago} h ago"),
        (Range::Week, 0) => "these three hours".to_owned(),
        (Range::Week, ago) => match (ago * 3 / 24, ago * 3 % 24) {
            (0, hours) => format!("{hours} h ago"),
            (days, 0) => format!("{days} d ago"),
            (days, hours) => format!("{days} d {hours} h ago"),
        },
    };
    let of = events.iter().zip(kinds).filter(|(events, _)| **events > 0);
    let of: Vec<String> = of.map(|(events, (name, _))| format!("{name} {}", count(*events))).collect();
    format!("{when}: {}", of.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Half past the hour 1,002.
    fn now() -> Timestamp {
        Timestamp::from_unix_millis((1_002 * 60 + 30) * MINUTE)
    }

    fn row(slot: u64, kind: &str, events: u64) -> TypeCount {
        TypeCount { slot, kind: kind.into(), events }
    }

    #[test]
    fn bars_are_stacked_by_type_and_aligned_right() {
        let counts = [
            row(978, "a", 9),
            row(979, "a", 30),
            row(1_002, "b", 100),
            row(1_002, "a", 50),
            row(1_003, "a", 9),
        ];
        let chart = chart(Range::Day, &counts, now());
        assert_eq!(chart.kinds.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let bars: Vec<_> = chart.bars.iter().map(|bar| (bar.x, bar.open, bar.title.as_str())).collect();
        assert_eq!(bars, [(1, false, "23 h ago: a 30"), (231, true, "this hour: b 100, a 50")]);
        let part = |kind, y, height| Part { kind, y, height };
        assert_eq!(chart.bars[0].parts, [part(1, 85, 15)]);
        assert_eq!(chart.bars[1].parts, [part(0, 50, 50), part(1, 25, 25)]);
        assert_eq!(chart.scale, ["200", "100", "0"]);
        assert_eq!(chart.summary, "Events per hour: 180 in the last day, at most 150 per hour. b 100, a 80");
    }

    #[test]
    fn each_range_has_its_bars() {
        assert_eq!(Range::parse("q=x&chart=week"), Range::Week);
        assert_eq!((Range::parse("chart=year"), Range::parse("")), (Range::Hour, Range::Hour));
        assert_eq!(Range::Day.first_hour(now()), 979);
        let week = Range::Week.first_hour(now());
        assert_eq!((week % 3, 1_002 - week), (0, 7 * 24 - 3));
        let drawn =
            chart(Range::Week, &[row(week, "a", 1), row(week + 2, "a", 1), row(week - 1, "a", 1)], now());
        assert_eq!(drawn.bars.len(), 1);
        assert_eq!(drawn.bars[0].title, "6 d 21 h ago: a 2");
        let minute = 1_002 * 60 + 30;
        let drawn = chart(
            Range::Hour,
            &[row(minute, "a", 1), row(minute - 59, "a", 1), row(minute - 60, "a", 1)],
            now(),
        );
        assert_eq!(drawn.bars.iter().map(|bar| bar.x).collect::<Vec<_>>(), [1, 591]);
        assert_eq!(drawn.scale, ["1", "", "0"]);
    }

    #[test]
    fn further_types_are_drawn_as_one() {
        let counts: Vec<TypeCount> =
            (0..9).map(|nth| row(1_002, &format!("t{nth}"), 100 - nth)).chain([row(1_002, "", 7)]).collect();
        let chart = chart(Range::Day, &counts, now());
        assert_eq!(chart.kinds.len(), SHOWN + 1);
        let others = &chart.kinds[SHOWN];
        assert_eq!((others.name.as_str(), others.events.as_str()), (OTHERS, "381"));
    }

    proptest! {
        #[test]
        fn any_counts_give_bars_within_the_chart(
            counts in proptest::collection::vec((any::<u64>(), 0_u64..2_000, 0_u8..9, any::<u64>()), 0..60),
            now in any::<u32>(),
            range in 0_usize..3,
        ) {
            let rows: Vec<TypeCount> = counts
                .iter()
                .flat_map(|(slot, near, kind, events)| {
                    [row(*slot, &kind.to_string(), *events), row(*near, &kind.to_string(), *events)]
                })
                .collect();
            let chart = chart(Range::ALL[range], &rows, Timestamp::from_unix_millis(u64::from(now)));
            for bar in &chart.bars {
                prop_assert!(bar.x < chart.width);
                let mut bottom = HEIGHT;
                for part in &bar.parts {
                    prop_assert!(part.height > 0 && part.y + part.height == bottom && part.kind < chart.kinds.len());
                    bottom = part.y;
                }
            }
        }
    }
}
