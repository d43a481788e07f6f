//! SCRAM-SHA-256, the server's half (RFC 5802, RFC 7677): the password never travels, and is not kept.
//!
//! ```text
//! salted     = PBKDF2-HMAC-SHA256(password, salt, 4096)
//! stored key = SHA256(HMAC(salted, "Client Key"))      server key = HMAC(salted, "Server Key")
//! proof      = HMAC(salted, "Client Key") XOR HMAC(stored key, all messages so far)
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The mechanism's name. There is no TLS here, so none with channel binding.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";
/// What PostgreSQL takes.
const ITERATIONS: u32 = 4096;

type Key = [u8; 32];

/// What is kept of a user and a password.
pub(super) struct Verifier {
    user: String,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// An exchange whose first half went well.
pub(super) struct Pending {
    /// An unknown user goes through the same exchange with the same salt: nobody learns which names exist.
    known: bool,
    channel: String,
    client_first: String,
    server_first: String,
    nonce: String,
}

/// The client did not follow the protocol, or does not know the password.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed(&'static str),
    WrongPassword,
}

impl Verifier {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self::with_salt(user, password, rand::rng().random::<[u8; 16]>().to_vec())
    }

    fn with_salt(user: &str, password: &str, salt: Vec<u8>) -> Self {
        let salted = salted(password, &salt);
        Self {
            user: user.to_owned(),
            salt,
            stored_key: Sha256::digest(hmac(&salted, &[b"Client Key"])).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// Answers the client's first message. PostgreSQL's clients leave the name in it empty: `user` is the connection's.
    pub(super) fn first(&self, user: &str, message: &str) -> Result<(String, Pending), Refusal> {
        let nonce = BASE64.encode(rand::rng().random::<[u8; 18]>());
        self.first_with_nonce(user, message, &nonce)
    }

    fn first_with_nonce(&self, user: &str, message: &str, ours: &str) -> Result<(String, Pending), Refusal> {
        let malformed = Refusal::Malformed("the first message is no SCRAM message");
        let (channel, rest) = message.split_once(',').ok_or(malformed)?;
        if channel.starts_with('p') {
            return Err(Refusal::Malformed("channel binding needs TLS, which this server does not offer"));
        }
        let client_first =
            rest.split_once(',').ok_or(Refusal::Malformed("the first message is no SCRAM message"))?.1.to_owned();
        let theirs = client_first
            .split(',')
            .find_map(|part| part.strip_prefix("r="))
            .ok_or(Refusal::Malformed("the first message holds no nonce"))?;
        let nonce = format!("{theirs}{ours}");
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(&self.salt));
        let channel = message[..message.len() - client_first.len()].to_owned();
        let pending =
            Pending { known: user == self.user, channel, client_first, server_first: server_first.clone(), nonce };
        Ok((server_first, pending))
    }

    /// Judges the client's last message, and proves to it that we know the password as well.
    pub(super) fn last(&self, pending: &Pending, message: &str) -> Result<String, Refusal> {
        let malformed = || Refusal::Malformed("the last message is no SCRAM message");
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or_else(malformed)?;
        let mut parts = without_proof.split(',');
        let channel = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or_else(malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or_else(malformed)?;
        if channel != BASE64.encode(&pending.channel) || nonce != pending.nonce {
            return Err(Refusal::Malformed("the last message belongs to another exchange"));
        }
        let proof: Key = BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or_else(malformed)?;
        let said = [pending.client_first.as_str(), ",", &pending.server_first, ",", without_proof].map(str::as_bytes);
        let signature = hmac(&self.stored_key, &said);
        let client_key: Key = std::array::from_fn(|at| proof[at] ^ signature[at]);
        let matches: bool = Key::from(Sha256::digest(client_key)).ct_eq(&self.stored_key).into();
        if !(matches & pending.known) {
            return Err(Refusal::WrongPassword);
        }
        Ok(format!("v={}", BASE64.encode(hmac(&self.server_key, &said))))
    }
}

/// PBKDF2 with one block: the hash is as long as the key.
fn salted(password: &str, salt: &[u8]) -> Key {
    let mut last = hmac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()]);
    let mut sum = last;
    for _ in 1..ITERATIONS {
        last = hmac(password.as_bytes(), &[&last]);
        sum = std::array::from_fn(|at| sum[at] ^ last[at]);
    }
    sum
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn verifier(password: &str) -> Verifier {
        Verifier::with_salt("user", password, BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap())
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let verifier = verifier("pencil");
        let (said, pending) = verifier.first_with_nonce("user", FIRST, NONCE).unwrap();
        assert_eq!(said, format!("r=rOprNGfwEbeRWgbNEkqO{NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        assert_eq!(verifier.last(&pending, LAST).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_look_the_same() {
        let wrong = verifier("pencils");
        let (_, pending) = wrong.first_with_nonce("user", FIRST, NONCE).unwrap();
        assert_eq!(wrong.last(&pending, LAST), Err(Refusal::WrongPassword));
        let right = verifier("pencil");
        let (said, pending) = right.first_with_nonce("somebody", FIRST, NONCE).unwrap();
        assert!(said.contains("s=W22ZaJ0SNY7soEsUEjb6gQ=="), "the same salt for everybody");
        assert_eq!(right.last(&pending, LAST), Err(Refusal::WrongPassword));
    }

    #[test]
    fn what_is_no_message_of_the_protocol_is_refused() {
        let verifier = verifier("pencil");
        for first in ["", "n", "n,,", "n,,n=user", "p=tls-server-end-point,,n=,r=abc"] {
            assert!(matches!(verifier.first("user", first), Err(Refusal::Malformed(_))), "{first}");
        }
        let (_, pending) = verifier.first("user", FIRST).unwrap();
        for last in ["", "c=biws", "c=biws,r=abc,p=AAAA", LAST] {
            assert!(matches!(verifier.last(&pending, last), Err(Refusal::Malformed(_))), "{last}");
        }
    }
}
