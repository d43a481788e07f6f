//! A draw that is the same for every request of a session.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A number in \[0, 1) from HMAC-SHA256(salt, session): the first 8 bytes, big-endian, top 53 bits, times 2^-53.
///
/// Every process that holds the salt draws the same number for a session, so a session keeps its action for as long
/// as its propensities hold still; without the salt the draw cannot be foreseen. A new salt reshuffles all sessions.
#[must_use]
pub fn sticky_uniform(salt: &[u8], session: &str) -> f64 {
    let mut mac = keyed(salt);
    mac.update(session.as_bytes());
    to_uniform(mac)
}

/// [`sticky_uniform`] of several texts together. Each goes in behind its length (8 bytes, big-endian), so that no two
/// lists are one: ("ab", "c") and ("a", "bc") draw apart.
#[must_use]
pub fn sticky_uniform_of(salt: &[u8], parts: &[&str]) -> f64 {
    let mut mac = keyed(salt);
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    to_uniform(mac)
}

fn keyed(salt: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(salt).expect("HMAC takes a key of any length (RFC 2104)")
}

fn to_uniform(mac: Hmac<Sha256>) -> f64 {
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let (head, _) = digest.as_chunks::<8>();
    (u64::from_be_bytes(head[0]) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of CPython 3's `hmac` and `hashlib`:
    /// `int.from_bytes(hmac.new(salt, session, hashlib.sha256).digest()[:8], 'big') >> 11` times `2.0 ** -53`.
    #[test]
    fn draws_are_those_of_another_implementation() {
        assert_eq!(sticky_uniform(b"demo", "session-1"), 0.425_335_299_471_521_4);
        assert_eq!(sticky_uniform(b"demo", "session-2"), 0.234_422_445_755_610_44);
        assert_eq!(sticky_uniform(b"", ""), 0.711_233_592_133_868_5);
    }

    /// Chi-square over 100 cells, 99 degrees of freedom: the 0.999 quantile is 148.23 (NIST/SEMATECH e-Handbook,
    /// table 1.3.6.7.4, for 99 degrees). The draws are fixed by the salt, so this cannot flicker.
    #[test]
    fn draws_are_spread_evenly() {
        let (draws, cells) = (100_000u32, 100usize);
        let mut counts = vec![0u32; cells];
        for i in 0..draws {
            counts[(sticky_uniform(b"even", &format!("session-{i}")) * cells as f64) as usize] += 1;
        }
        let expected = f64::from(draws) / cells as f64;
        let chi_square: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        assert!(chi_square < 148.23, "chi-square {chi_square} over 99 degrees of freedom");
    }

    /// `struct.pack('>Q', len(part)) + part` for every part, into the same `hmac` as above.
    #[test]
    fn draws_of_several_texts_are_those_of_another_implementation_and_keep_the_texts_apart() {
        assert_eq!(sticky_uniform_of(b"demo", &["session", "acme", "s-1"]), 0.708_969_018_403_610_5);
        assert_ne!(sticky_uniform_of(b"demo", &["ab", "c"]), sticky_uniform_of(b"demo", &["a", "bc"]));
        assert_ne!(sticky_uniform_of(b"demo", &["a"]), sticky_uniform(b"demo", "a"));
    }

    #[test]
    fn another_salt_reshuffles_the_sessions() {
        assert_ne!(sticky_uniform(b"a", "session"), sticky_uniform(b"b", "session"));
    }
}
