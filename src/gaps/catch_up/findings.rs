//! Conclusions about several channels, sorted by what follows from them. ◆

use std::collections::BTreeSet;

use super::decide::Conclusion;
use super::list::Target;
use crate::model::last_known::{CHANNEL, Change, News, OFFLINE, ONLINE, Source};

/// Events and news that follow from one request about several channels.
#[derive(Debug)]
pub(super) struct Findings<'a, 'b> {
    /// Whether the look only learns how channels are, so that changes make no events.
    is_first: bool,
    doubtful: &'b mut BTreeSet<Box<str>>,
    told: Vec<(&'a Target, Change)>,
    news: Vec<News>,
}

impl<'a, 'b> Findings<'a, 'b> {
    /// Begins without any; channels that have to be asked about again are added to `doubtful`.
    pub(super) fn new(is_first: bool, doubtful: &'b mut BTreeSet<Box<str>>) -> Self {
        Self { is_first, doubtful, told: Vec::new(), news: Vec::new() }
    }

    pub(super) fn record(&mut self, target: &'a Target, conclusion: Conclusion) {
        match conclusion {
            Conclusion::Unchanged => {}
            Conclusion::Doubtful => drop(self.doubtful.insert(target.id.clone())),
            Conclusion::First(change) => self.news.push(answer(target, change)),
            Conclusion::Happened(_) if self.is_first => {}
            Conclusion::Happened(changes) => {
                for change in changes {
                    match target.subscription(kind_of(&change)) {
                        Some(_) => self.told.push((target, change)),
                        None => self.news.push(answer(target, change)),
                    }
                }
            }
        }
    }

    /// Returns the changes that make events, and those that are only remembered.
    pub(super) fn finish(self) -> (Vec<(&'a Target, Change)>, Vec<News>) {
        (self.told, self.news)
    }
}

fn answer(target: &Target, change: Change) -> News {
    News { broadcaster: target.id.clone(), change, source: Source::Answer }
}

fn kind_of(change: &Change) -> &'static str {
    match change {
        Change::Online { .. } => ONLINE,
        Change::Offline { .. } => OFFLINE,
        Change::Channel { .. } => CHANNEL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::last_known::ChannelDigest;

    #[test]
    fn a_change_makes_an_event_if_its_type_is_subscribed_to() {
        let [all, ends] = [Target::with_types("1", [true; 3]), Target::with_types("2", [false, true, false])];
        let begins = || Change::Online { id: "s".into(), started: 5, since: 5 };
        let mut doubtful = BTreeSet::new();
        let mut findings = Findings::new(false, &mut doubtful);
        findings.record(&all, Conclusion::Happened(vec![begins()]));
        findings.record(&ends, Conclusion::Happened(vec![Change::Offline { id: None, since: 0 }, begins()]));
        findings.record(&all, Conclusion::First(Change::Channel { digest: ChannelDigest(7), since: 0 }));
        findings.record(&all, Conclusion::Unchanged);
        findings.record(&ends, Conclusion::Doubtful);
        let (told, news) = findings.finish();
        let told: Vec<_> = told.iter().map(|(target, change)| (&*target.id, kind_of(change))).collect();
        assert_eq!(told, [("1", ONLINE), ("2", OFFLINE)]);
        let news: Vec<_> = news.iter().map(|news| (&*news.broadcaster, kind_of(&news.change))).collect();
        assert_eq!(news, [("2", ONLINE), ("1", CHANNEL)]);
        assert_eq!(doubtful, BTreeSet::from(["2".into()]));
    }

    #[test]
    fn a_first_look_makes_no_event() {
        let all = Target::with_types("1", [true; 3]);
        let mut doubtful = BTreeSet::new();
        let mut findings = Findings::new(true, &mut doubtful);
        findings.record(&all, Conclusion::Happened(vec![Change::Offline { id: None, since: 0 }]));
        let (told, news) = findings.finish();
        assert!(told.is_empty() && news.is_empty() && doubtful.is_empty());
    }
}
