//! Which partition a key belongs to: murmur2, as Java clients of Kafka have it, on every log.

/// The partition of `key` among `partitions`.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    if partitions <= 1 { 0 } else { (murmur2(key) & 0x7fff_ffff) % partitions }
}

/// The partition of a compound key, which goes by its first part: all of an account lies together.
pub fn partition_of_compound(key: &str, partitions: u32) -> u32 {
    partition_of(key.split('/').next().unwrap_or(key).as_bytes(), partitions)
}

/// MurmurHash2 by Austin Appleby, 32 bits, with the seed that Kafka's clients use.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values published in the tests of Apache Kafka's own client (UtilsTest).
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, expected) in cases {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    #[test]
    fn compound_keys_lie_with_their_first_part() {
        for partitions in [1, 3, 12] {
            assert_eq!(
                partition_of_compound("acct/BTCUSDT.BINANCE_USDM", partitions),
                partition_of(b"acct", partitions)
            );
        }
    }
}
