//! A text embedding without a model: hashed words, word pairs and character trigrams.
//!
//! Both sides of a logged decision compute it alike (the router before it chooses, the learner afterwards), so it is
//! fixed here down to the bits: the name [`hash_embedding_model`] stands for this function and its dimension.
//!
//! Each n-gram's 64-bit FNV-1a hash picks a dimension and a sign, so that collisions cancel on average (Weinberger et
//! al. 2009, arXiv 0902.2206). Counts enter as `1 + ln(count)`; the vector has length 1, or 0 for an empty text.

use std::collections::BTreeMap;

/// Longest text that is read, in characters: what follows no longer changes the embedding.
pub const HASH_EMBEDDING_CHARACTERS_MAX: usize = 4096;

/// The name to log as `embedding_model` for an embedding of `dim` dimensions.
#[must_use]
pub fn hash_embedding_model(dim: usize) -> String {
    format!("weir-hash-{dim}")
}

/// Embeds `text` into `dim` dimensions.
///
/// # Panics
/// When `dim` is zero.
#[must_use]
pub fn hash_embedding(text: &str, dim: usize) -> Vec<f32> {
    assert!(dim > 0, "an embedding has at least one dimension");
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    for gram in grams(text) {
        *counts.entry(gram).or_default() += 1;
    }
    let mut sums = vec![0.0_f64; dim];
    for (hash, count) in counts {
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        sums[((hash & (u64::MAX >> 1)) % dim as u64) as usize] += sign * (1.0 + f64::from(count).ln());
    }
    let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    sums.into_iter().map(|x| (x * scale) as f32).collect()
}

/// Hashes of all words, pairs of neighbouring words, and character trigrams of words (with their edges marked).
fn grams(text: &str) -> Vec<u64> {
    let lowered: String = text.chars().take(HASH_EMBEDDING_CHARACTERS_MAX).flat_map(char::to_lowercase).collect();
    let words: Vec<&str> = lowered.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut hashes = Vec::with_capacity(8 * words.len());
    for word in &words {
        hashes.push(fnv1a(&[b"w", word.as_bytes()]));
        let marked: Vec<char> = ['<'].into_iter().chain(word.chars()).chain(['>']).collect();
        for trigram in marked.windows(3) {
            let trigram: String = trigram.iter().collect();
            hashes.push(fnv1a(&[b"c", trigram.as_bytes()]));
        }
    }
    for pair in words.windows(2) {
        hashes.push(fnv1a(&[b"p", pair[0].as_bytes(), pair[1].as_bytes()]));
    }
    hashes
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv), over the parts with a separator after each, then mixed so
/// that the high bit is as good as the low ones (the finaliser of SplitMix64, Steele et al. 2014).
fn fnv1a(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0x1f]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &str, b: &str) -> f32 {
        hash_embedding(a, 256).iter().zip(hash_embedding(b, 256)).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn vectors_have_length_one_and_an_empty_text_has_none() {
        assert!((cosine("a short question", "a short question") - 1.0).abs() < 1e-5);
        assert!(hash_embedding(" ... ", 16).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn texts_that_share_words_lie_closer_than_texts_that_do_not() {
        let near = cosine("what is the capital of France", "what is the capital of Spain");
        let far = cosine("what is the capital of France", "sort a list of integers in Python");
        assert!(near > far + 0.3, "near {near}, far {far}");
    }

    #[test]
    fn case_and_punctuation_do_not_matter() {
        assert_eq!(hash_embedding("Hello, World!", 64), hash_embedding("hello world", 64));
    }

    #[test]
    fn unrelated_texts_are_nearly_orthogonal_on_average() {
        // Signed hashing is unbiased: mean inner product 0, standard deviation about 1/sqrt(dim) = 0.06.
        let texts: Vec<String> = (0..40_u32).map(|i| format!("{:x} {:x}", i * 7919 + 13, i * 104_729 + 7)).collect();
        let mut sum = 0.0;
        for pair in texts.windows(2) {
            sum += cosine(&pair[0], &pair[1]);
        }
        assert!((sum / 39.0).abs() < 0.05, "mean cosine {}", sum / 39.0);
    }
}
