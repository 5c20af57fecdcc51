//! Digests of what an epoch read and gave out.

use bytes::Bytes;

/// Hashing is several times faster over long stretches, so short pieces are gathered up to this.
const STRETCH_BYTES: usize = 64 * 1024;

/// A digest in the making. How the bytes were cut into pieces does not show in it.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    pending: Vec<u8>,
    /// What came before, once there was more than one stretch.
    hasher: Option<Box<blake3::Hasher>>,
}

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= STRETCH_BYTES {
            self.hasher.get_or_insert_default().update(&self.pending);
            self.pending.clear();
        }
    }

    /// Adds a field: its length, then its bytes.
    pub fn update_field(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_le_bytes());
        self.update(bytes);
    }

    /// The first half of the digest of all that was added: what epoch records keep.
    pub fn short(&self) -> Bytes {
        let whole = match &self.hasher {
            None => blake3::hash(&self.pending),
            Some(hasher) => hasher.clone().update(&self.pending).finalize(),
        };
        Bytes::copy_from_slice(&whole.as_bytes()[..16])
    }

    /// Begins anew, with the memory that is there.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.hasher = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_show() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let whole = Bytes::copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        for piece in [1, 7, 1_000, 65_536, 150_000, bytes.len()] {
            let mut digest = Digest::default();
            digest.update(b"what was before");
            digest.reset();
            bytes.chunks(piece).for_each(|piece| digest.update(piece));
            assert_eq!(digest.short(), whole, "{piece}");
        }
    }
}
