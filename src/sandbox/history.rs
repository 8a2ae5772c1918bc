//! Messages that were sent, and what became of them.

use std::collections::{BTreeMap, VecDeque};

use super::send::Address;
use crate::platform::{Message, is_accepted};

/// Messages that are kept for sending again.
const KEPT_MESSAGES: usize = 1_000;
/// Message ids that are kept.
const KEPT_IDS: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct History {
    messages: VecDeque<(Message, Address)>,
    sent: VecDeque<String>,
    accepted: VecDeque<String>,
    /// Answers of callbacks to notifications and revocations by status; `None` stands for no answer.
    answers: BTreeMap<Option<u16>, u64>,
}

impl History {
    pub(super) fn keep(&mut self, message: Message, address: Address) {
        if self.messages.len() == KEPT_MESSAGES {
            self.messages.pop_front();
        }
        self.messages.push_back((message, address));
    }

    pub(super) fn find(&self, id: &str) -> Option<(Message, Address)> {
        self.messages.iter().find(|(message, _)| message.id == id).cloned()
    }

    /// A message was written to a socket.
    pub(super) fn record_sent(&mut self, id: String) {
        keep_id(&mut self.sent, id);
    }

    /// A callback has answered a message, or has not.
    pub(super) fn record_answer(&mut self, id: &str, status: Option<u16>) {
        *self.answers.entry(status).or_default() += 1;
        if is_accepted(status) {
            keep_id(&mut self.accepted, id.to_owned());
        }
    }

    pub(super) fn sent(&self) -> Vec<String> {
        self.sent.iter().cloned().collect()
    }

    pub(super) fn accepted(&self) -> Vec<String> {
        self.accepted.iter().cloned().collect()
    }

    pub(super) fn answers(&self) -> BTreeMap<Option<u16>, u64> {
        self.answers.clone()
    }
}

fn keep_id(kept: &mut VecDeque<String>, id: String) {
    if kept.len() == KEPT_IDS {
        kept.pop_front();
    }
    kept.push_back(id);
}
