//! The chart of events per minute, as numbers for an inline SVG. ◆

use serde::Serialize;

use crate::model::text::count;

/// Number of minutes in the chart.
const MINUTES: usize = 60;
/// Size of the drawing; a bar and its gap are ten wide.
const WIDTH: usize = MINUTES * 10;
const HEIGHT: u64 = 80;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bar {
    pub(super) x: usize,
    pub(super) y: u64,
    pub(super) height: u64,
    /// Tooltip.
    pub(super) title: String,
    /// Whether the minute is not over.
    pub(super) open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Chart {
    pub(super) width: usize,
    pub(super) height: u64,
    pub(super) bars: Vec<Bar>,
    pub(super) peak: String,
    /// Events of the last complete minute.
    pub(super) last: String,
    /// Labels below the bars, from left to right.
    pub(super) axis: [&'static str; 5],
    /// Text for screen readers.
    pub(super) summary: String,
}

/// Draws counts; the last one is that of the current minute.
pub(super) fn chart(counts: &[u64]) -> Chart {
    let counts = &counts[counts.len().saturating_sub(MINUTES)..];
    let peak = counts.iter().copied().max().unwrap_or(0);
    let empty = MINUTES - counts.len();
    let bars = counts.iter().enumerate().map(|(index, &events)| {
        let minutes = counts.len() - 1 - index;
        let height = scaled(events, peak);
        let when = if minutes == 0 { "this minute".to_owned() } else { format!("{minutes} min ago") };
        Bar {
            x: (empty + index) * 10 + 1,
            y: HEIGHT - height,
            height,
            title: format!("{when}: {}", count(events)),
            open: minutes == 0,
        }
    });
    let last = counts.len().checked_sub(2).map_or(0, |at| counts[at]);
    let total = counts.iter().fold(0_u64, |total, events| total.saturating_add(*events));
    Chart {
        width: WIDTH,
        height: HEIGHT,
        bars: bars.collect(),
        peak: count(peak),
        last: count(last),
        axis: ["60 min ago", "45", "30", "15", "now"],
        summary: format!(
            "Events per minute over the last hour: {} in the last full minute, peak {}, {} in total",
            count(last),
            count(peak),
            count(total)
        ),
    }
}

/// Returns the height of a bar; at least 1 if there was an event.
fn scaled(events: u64, peak: u64) -> u64 {
    if events == 0 {
        return 0;
    }
    let height = u128::from(events) * u128::from(HEIGHT) / u128::from(peak.max(1));
    u64::try_from(height).unwrap_or(HEIGHT).clamp(2, HEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_scaled_to_the_peak_and_aligned_right() {
        let chart = chart(&[0, 1, 1_000, 500]);
        let bars: Vec<_> = chart.bars.iter().map(|bar| (bar.x, bar.y, bar.height, bar.open)).collect();
        assert_eq!(
            bars,
            [(561, 80, 0, false), (571, 78, 2, false), (581, 0, 80, false), (591, 40, 40, true)]
        );
        assert_eq!(chart.bars[2].title, "1 min ago: 1,000");
        assert_eq!((chart.peak.as_str(), chart.last.as_str()), ("1,000", "1,000"));
        assert!(chart.summary.ends_with("peak 1,000, 1,501 in total"), "{}", chart.summary);
    }

    #[test]
    fn any_counts_give_bars_within_the_chart() {
        assert!(chart(&[]).bars.is_empty());
        assert_eq!(chart(&[7]).last, "0");
        let chart = chart(&[u64::MAX; 100]);
        assert_eq!((chart.bars.len(), chart.bars[0].x, chart.bars[59].height), (60, 1, 80));
    }
}
