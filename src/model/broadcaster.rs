//! The channel or user that an event is about.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use super::json_text::{JsonText, TextOrNothing};
use super::readable::readable;

/// Subject of an event, as far as its payload names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broadcaster<'a> {
    /// Id of the channel; of the user if the event is about no channel; else empty.
    pub id: Cow<'a, str>,
    /// Login, if the event has it; else empty.
    pub login: Cow<'a, str>,
}

impl Broadcaster<'_> {
    fn into_owned<'b>(self) -> Broadcaster<'b> {
        Broadcaster { id: self.id.into_owned().into(), login: self.login.into_owned().into() }
    }
}

impl<'a> Broadcaster<'a> {
    /// Reads a payload; missing members stay empty.
    pub fn of(payload: &'a [u8]) -> Self {
        /// Members with an id, the channel's own first. The login has the same prefix.
        const FIELDS: [&str; 4] =
            ["broadcaster_user_id", "to_broadcaster_user_id", "from_broadcaster_user_id", "user_id"];
        #[derive(Deserialize)]
        struct Payload<'a> {
            #[serde(borrow)]
            subscription: Subscription<'a>,
            #[serde(borrow, default)]
            event: Names<'a>,
        }
        #[derive(Deserialize)]
        struct Subscription<'a> {
            #[serde(borrow, default)]
            condition: HashMap<JsonText<'a>, TextOrNothing<'a>>,
        }
        /// The wanted members of an event.
        #[derive(Default, Deserialize)]
        struct Names<'a> {
            #[serde(borrow)]
            broadcaster_user_login: Option<TextOrNothing<'a>>,
            #[serde(borrow)]
            to_broadcaster_user_login: Option<TextOrNothing<'a>>,
            #[serde(borrow)]
            from_broadcaster_user_login: Option<TextOrNothing<'a>>,
            #[serde(borrow)]
            user_login: Option<TextOrNothing<'a>>,
            #[serde(borrow)]
            broadcaster_user_id: Option<TextOrNothing<'a>>,
        }
        fn text(member: Option<TextOrNothing<'_>>) -> Option<Cow<'_, str>> {
            member?.0.filter(|text| !text.is_empty())
        }
        let Ok(Payload { mut subscription, event }) = serde_json::from_slice::<Payload<'_>>(payload) else {
            // The repaired text is read, or is not JSON at all.
            return match readable(payload) {
                Cow::Owned(repaired) => Broadcaster::of(&repaired).into_owned(),
                Cow::Borrowed(_) => Self::default(),
            };
        };
        let Names {
            broadcaster_user_login,
            to_broadcaster_user_login,
            from_broadcaster_user_login,
            user_login,
            broadcaster_user_id,
        } = event;
        let logins =
            [broadcaster_user_login, to_broadcaster_user_login, from_broadcaster_user_login, user_login];
        for (field, login) in FIELDS.into_iter().zip(logins) {
            if let Some(id) = text(subscription.condition.remove(field)) {
                return Self { id, login: text(login).unwrap_or_default() };
            }
        }
        Self { id: text(broadcaster_user_id).unwrap_or_default(), login: Cow::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_of_an_event_is_found() {
        let of = |payload: &str| {
            let Broadcaster { id, login } = Broadcaster::of(payload.as_bytes());
            (id.into_owned(), login.into_owned())
        };
        let pair = |id: &str, login: &str| (id.to_owned(), login.to_owned());
        assert_eq!(
            of(r#"{"subscription":{"condition":{"broadcaster_user_id":"1","user_id":"2"}},
                "event":{"broadcaster_user_login":"one","user_login":"two","other":[{}]}}"#),
            pair("1", "one")
        );
        assert_eq!(
            of(
                r#"{"subscription":{"condition":{"to_broadcaster_user_id":"3","from_broadcaster_user_id":""}},
                "event":{"to_broadcaster_user_login":"three","from_broadcaster_user_login":"four"}}"#
            ),
            pair("3", "three")
        );
        assert_eq!(
            of(r#"{"subscription":{"condition":{"user_id":"5"}},"event":{"user_login":null}}"#),
            pair("5", "")
        );
        assert_eq!(
            of(r#"{"subscription":{"condition":{"client_id":"c"}},"event":{"broadcaster_user_id":"6"}}"#),
            pair("6", "")
        );
        for nothing in ["", "[]", r#"{"subscription":{"condition":{"organization_id":"9"}},"events":[]}"#] {
            assert_eq!(of(nothing), pair("", ""), "{nothing}");
        }
    }
}
