//! Which shard gets the messages of a channel (Twitch: "Handling Conduit Events"). ◆

/// The shard that a channel's messages go to by its hash, and the one that is tried if that one is disabled.
/// Twitch documents neither function.
pub fn candidates(channel: &str, shard_count: u32) -> [u32; 2] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in channel.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let count = u64::from(shard_count.max(1));
    let nth = |number: u64| u32::try_from(number % count).unwrap_or(0);
    [nth(hash), nth(hash.wrapping_add(1))]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_candidates_exist_and_differ_if_there_are_two(channel in "[0-9]{0,12}", count in 1..20_000_u32) {
            let [first, second] = candidates(&channel, count);
            prop_assert!(first < count && second < count);
            prop_assert_eq!(first == second, count == 1);
            prop_assert_eq!(candidates(&channel, count), [first, second]);
        }
    }
}
