use super::*;

fn these(ids: &[&str]) -> Channels {
    Channels::These(ids.iter().map(|id| Box::from(*id)).collect())
}

fn doubt(ids: &[&str]) -> BTreeSet<Box<str>> {
    ids.iter().map(|id| Box::from(*id)).collect()
}

fn schedule() -> Schedule {
    Schedule::new([0, 60_000, 180_000])
}

#[test]
fn a_gap_is_looked_at_at_once_and_after_60_and_180_seconds() {
    let mut schedule = schedule();
    assert_eq!((schedule.next(), schedule.begin(1_000, 5)), (None, None));
    schedule.add("g", Channels::All, 1_000);
    assert_eq!(schedule.begin(1_000, 5), Some(Look { number: 1, channels: Channels::All }));
    assert!(schedule.end(doubt(&["7"]), 2_000).is_empty());
    assert_eq!((schedule.next(), schedule.begin(60_999, 5)), (Some(61_000), None));
    assert_eq!(schedule.begin(61_000, 5), Some(Look { number: 2, channels: Channels::All }));
    assert!(schedule.end(doubt(&[]), 62_000).is_empty());
    assert_eq!(schedule.next_look(), Some(181_000));
    assert_eq!(schedule.begin(181_000, 5), Some(Look { number: 3, channels: Channels::All }));
    assert_eq!(schedule.end(doubt(&["7"]), 182_000), ["g".into()]);
    assert_eq!((schedule.next(), schedule.gaps()), (None, 0));
}

#[test]
fn of_many_channels_only_the_doubtful_ones_are_asked_about_after_60_seconds() {
    let mut schedule = schedule();
    schedule.add("g", Channels::All, 0);
    schedule.begin(0, 65_000).expect("the first");
    schedule.end(doubt(&["7", "9"]), 50_000);
    assert_eq!(schedule.begin(60_000, 65_000), Some(Look { number: 2, channels: these(&["7", "9"]) }));
    schedule.end(doubt(&["9"]), 61_000);
    assert_eq!(schedule.begin(180_000, 65_000), Some(Look { number: 3, channels: Channels::All }));
}

#[test]
fn a_gap_that_comes_meanwhile_begins_anew_for_both() {
    let mut schedule = schedule();
    schedule.add("a", these(&["1"]), 0);
    schedule.begin(0, 5).expect("the first");
    schedule.add("b", these(&["2"]), 500);
    assert!(schedule.end(doubt(&["1"]), 1_000).is_empty());
    assert_eq!(schedule.begin(1_000, 5), Some(Look { number: 1, channels: these(&["1", "2"]) }));
    schedule.end(doubt(&[]), 1_100);
    schedule.add("c", Channels::All, 30_000);
    assert_eq!(schedule.begin(30_000, 5), Some(Look { number: 1, channels: Channels::All }));
    schedule.end(doubt(&[]), 30_100);
    schedule.begin(90_000, 5).expect("the second");
    schedule.end(doubt(&[]), 90_100);
    schedule.begin(210_000, 5).expect("the third");
    assert_eq!(schedule.end(doubt(&[]), 210_100), ["a".into(), "b".into(), "c".into()]);
}

#[test]
fn new_channels_are_looked_at_once_and_mend_nothing() {
    let mut schedule = schedule();
    schedule.list_changed();
    schedule.add("g", these(&["1"]), 0);
    assert_eq!(schedule.begin(0, 5).map(|look| look.number), Some(1), "gaps go first");
    schedule.end(doubt(&[]), 10);
    assert_eq!(schedule.begin(20, 5), Some(Look { number: 0, channels: Channels::All }));
    assert!(schedule.end(doubt(&[]), 30).is_empty());
    assert_eq!(schedule.next(), Some(60_000));
    schedule.clear();
    assert_eq!(schedule.next(), None);
}
