//! Who may change the registry over HTTP: bearer tokens with a role.
//!
//! The token file holds one token a line, `<role> <name> <SHA-256 of the token, hexadecimal>`; `#` begins a comment.
//! The file never holds a token itself: whoever reads it cannot use it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::{PublisherError, Result};

/// Tokens in a file at most.
const MAX_TOKENS: usize = 10_000;

/// What a token's holder may do; later roles may do all that earlier ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read. No route asks for it: whoever reaches the listener may read.
    Viewer,
    /// Approve, reject, roll back.
    Approver,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
        })
    }
}

impl FromStr for Role {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "approver" => Ok(Self::Approver),
            _ => Err(()),
        }
    }
}

/// Why a request may not change anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Who are you? (401)
    #[error("send the header Authorization: Bearer <token>, with a token of this server's token file")]
    Unauthenticated,
    /// You may not. (403)
    #[error("{name} has the role {has}, this needs the role {needs}: ask for a token of that role")]
    Forbidden {
        /// Name of the token.
        name: String,
        /// Role of the token.
        has: Role,
        /// Role that the request needs.
        needs: Role,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    role: Role,
    name: String,
    sha256: [u8; 32],
}

/// A server's tokens.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<Entry>);

impl Tokens {
    /// Reads a token file.
    ///
    /// # Errors
    /// When it cannot be read or a line is not of the [module's](self) form; the message names the line, not its text.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |why: String| PublisherError::Tokens { path: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let entry = parse_line(line)
                .ok_or_else(|| format!("line {number} is not '<viewer|approver> <name> <sha256 of the token>'"))?;
            entries.push(entry);
        }
        if entries.len() > MAX_TOKENS {
            return Err(format!("it has more than {MAX_TOKENS} tokens: remove some"));
        }
        Ok(Self(entries))
    }

    /// Lets the holder of an `Authorization` header through if its token has at least the role; returns its name.
    ///
    /// The time taken depends on the number of tokens, not on which one matches or how nearly.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] or [`Refusal::Forbidden`].
    pub fn authorise(&self, header: Option<&str>, needs: Role) -> Result<String, Refusal> {
        let token = header.and_then(bearer).ok_or(Refusal::Unauthenticated)?;
        let presented: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let (mut found, mut at) = (Choice::from(0), 0u32);
        for (index, entry) in (0u32..).zip(&self.0) {
            let equal = entry.sha256.ct_eq(&presented);
            at.conditional_assign(&index, equal);
            found |= equal;
        }
        if !bool::from(found) {
            return Err(Refusal::Unauthenticated);
        }
        let entry = &self.0[at as usize];
        if entry.role >= needs {
            return Ok(entry.name.clone());
        }
        Err(Refusal::Forbidden { name: entry.name.clone(), has: entry.role, needs })
    }
}

/// A new token and the line of the token file that admits it. The token is shown once and kept nowhere.
#[must_use]
pub fn issue(role: Role, name: &str) -> (String, String) {
    let mut secret = [0u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let token = hex::encode(secret);
    let line = format!("{role} {name} {}", hex::encode(Sha256::digest(token.as_bytes())));
    (token, line)
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn parse_line(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let (role, name, digits) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let mut sha256 = [0u8; 32];
    hex::decode_to_slice(digits, &mut sha256).ok()?;
    words.next().is_none().then(|| Entry { role, name: name.to_owned(), sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is `printf 'open sesame' | sha256sum`.
    const FILE: &str = "# who may decide\n\
        approver alice 41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb # until May\n\
        \n\
        viewer bob 0000000000000000000000000000000000000000000000000000000000000000\n";

    #[test]
    fn the_right_token_opens_and_others_do_not() {
        let tokens = Tokens::parse(FILE).unwrap();
        assert_eq!(tokens.authorise(Some("Bearer open sesame"), Role::Approver).unwrap(), "alice");
        assert_eq!(tokens.authorise(Some("bearer open sesame"), Role::Viewer).unwrap(), "alice");
        for header in
            [None, Some(""), Some("Bearer "), Some("Bearer open"), Some("Basic open sesame"), Some("open sesame")]
        {
            assert_eq!(tokens.authorise(header, Role::Viewer), Err(Refusal::Unauthenticated), "{header:?}");
        }
        assert_eq!(Tokens::default().authorise(Some("Bearer x"), Role::Viewer), Err(Refusal::Unauthenticated));
    }

    #[test]
    fn a_viewer_may_not_approve() {
        let (token, line) = issue(Role::Viewer, "carol");
        let tokens = Tokens::parse(&line).unwrap();
        let header = format!("Bearer {token}");
        assert_eq!(tokens.authorise(Some(&header), Role::Viewer).unwrap(), "carol");
        let refusal = tokens.authorise(Some(&header), Role::Approver).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "carol has the role viewer, this needs the role approver: ask for a token of that role"
        );
    }

    #[test]
    fn a_bad_line_is_named_by_number_only() {
        for bad in ["admin x 00", "viewer x", "viewer x zz", "viewer x 00 y"] {
            let error = Tokens::parse(&format!("{FILE}{bad}")).unwrap_err();
            assert_eq!(error, "line 5 is not '<viewer|approver> <name> <sha256 of the token>'");
        }
    }
}
