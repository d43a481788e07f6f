//! Names in summaries: their bytes, and their hash.

use super::varint::{Reader, put};

/// XXH3 of a name, 64 bits: a published function, so hashes of different machines and versions are the same.
pub(crate) fn hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u128);
    out.extend_from_slice(text.as_bytes());
}

impl Reader<'_> {
    pub(crate) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u64()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Bytes on the heap of a name in a tree.
pub(crate) fn heap_bytes(name: &str) -> usize {
    name.len() + 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_are_published() {
        // The empty input's XXH3 with seed 0, from the specification's own test vectors.
        assert_eq!(hash(""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(Reader(&[5, b'a']).text(), None);
        assert_eq!(Reader(&[1, 0xff]).text(), None);
        assert_eq!(Reader(&[1, b'a']).text().as_deref(), Some("a"));
    }
}
