//! Words of the configuration that stand for one of a few values.

/// A type that the configuration writes as one word for each value.
pub trait Choice: Copy + 'static {
    /// The words, in the order of the manual.
    const WORDS: &'static [&'static str];

    /// Returns the value of a word; `None` if it is not one of [`Self::WORDS`].
    fn from_word(word: &str) -> Option<Self>;

    /// Returns the word of the value.
    fn word(self) -> &'static str;
}

/// Defines an enum with the word of each variant, so that the spelling stands in one place.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $word:literal),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$of_variant])* $variant),+ }

        impl $name {
            /// The word for it in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl $crate::model::choice::Choice for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn word(self) -> &'static str {
                self.name()
            }
        }
    };
}
pub(crate) use choice;

#[cfg(test)]
mod tests {
    use super::Choice;
    use crate::model::mode::{LogFormat, Method, Policy, ShardTransport};
    use crate::model::sink::{Format, SinkType, StartAt};

    fn words_lead_back<T: Choice + PartialEq + std::fmt::Debug>() {
        assert!(!T::WORDS.is_empty());
        for word in T::WORDS {
            assert_eq!(T::from_word(word).map(T::word), Some(*word));
            assert_eq!(T::from_word(&word.to_uppercase()), None, "words are exact");
        }
    }

    #[test]
    fn every_word_leads_to_a_value_and_back() {
        words_lead_back::<Policy>();
        words_lead_back::<Method>();
        words_lead_back::<ShardTransport>();
        words_lead_back::<LogFormat>();
        words_lead_back::<Format>();
        words_lead_back::<SinkType>();
        words_lead_back::<StartAt>();
    }
}
