//! Pseudonyms: callers and sessions become keyed hashes at the door.
//!
//! `pseudonym = HMAC-SHA256(tenant key, field || 0x1f || value)`, cut to 128 bits. Without the tenant's key nobody can
//! confirm a guess, and shredding the key makes every pseudonym of that tenant meaningless.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A tenant's 256-bit key. Its bytes never reach logs: `Debug` prints nothing of them.
#[derive(Clone)]
pub struct TenantKey([u8; 32]);

/// 128 bits as 32 lower-case hex digits.
pub type Pseudonym = String;

impl TenantKey {
    /// Wraps key bytes that came from a cryptographic random source.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The pseudonym of `value` in the role of `field` (a caller and a session of the same name differ).
    #[must_use]
    pub fn pseudonym(&self, field: &str, value: &str) -> Pseudonym {
        let digits = self.pseudonyms(field).of(value);
        digits.iter().copied().map(char::from).collect()
    }

    /// For many pseudonyms of one field: what they share is computed once.
    #[must_use]
    pub fn pseudonyms(&self, field: &str) -> Pseudonyms {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(field.as_bytes());
        mac.update(&[0x1f]);
        Pseudonyms(mac)
    }
}

/// Makes the pseudonyms of one field under one tenant's key.
#[derive(Clone)]
pub struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// The pseudonym of `value`: 32 lower-case hex digits.
    #[must_use]
    pub fn of(&self, value: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(value.as_bytes());
        let mut digits = [0; 32];
        hex::encode_to_slice(&mac.finalize().into_bytes()[..16], &mut digits).expect("16 bytes are 32 digits");
        digits
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms(..)")
    }
}

impl std::fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_differs_between_tenants_and_between_fields() {
        let (a, b) = (TenantKey::new([1; 32]), TenantKey::new([2; 32]));
        assert_eq!(a.pseudonym("caller", "ann"), a.pseudonym("caller", "ann"));
        assert_ne!(a.pseudonym("caller", "ann"), b.pseudonym("caller", "ann"));
        assert_ne!(a.pseudonym("caller", "ann"), a.pseudonym("session_id", "ann"));
        assert!(!format!("{a:?}").contains('1'), "a key printed its bytes");
    }
}
