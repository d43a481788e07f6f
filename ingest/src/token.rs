//! The token of SASL OAUTHBEARER, from a file that somebody else keeps fresh.
//!
//! It is read again whenever the client wants a token: at the start, and when four fifths of the last one's time are over.
//! So a platform that rotates tokens (a projected service account of Kubernetes, an agent of an identity provider) is all
//! that is needed, and no secret of the provider is here.

use std::error::Error;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

use crate::IngestConfig;

/// A setting of ours among the client's: path of the file that holds the token, a JWT.
pub(crate) const TOKEN_FILE: &str = "sasl.oauthbearer.token.file";

/// What we look at in a token; whether it is genuine is for the broker to say.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970, possibly with a fraction (RFC 7519, NumericDate).
    exp: f64,
}

/// The token that the file holds now.
pub(crate) fn read(config: &IngestConfig) -> Result<OAuthToken, Box<dyn Error>> {
    let Some(path) = config.kafka.get(TOKEN_FILE) else {
        return Err(format!("no {TOKEN_FILE} is given").into());
    };
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the token file {path}: {error}"))?;
    parse(text.trim()).ok_or_else(|| format!("{path} holds no JWT with the claims sub and exp").into())
}

/// The error has no words, for they could hold a part of the token.
fn parse(token: &str) -> Option<OAuthToken> {
    let payload = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "a time beyond i64 saturates, which is for ever")]
    let lifetime_ms = (claims.exp * 1e3) as i64;
    Some(OAuthToken { token: token.to_owned(), principal_name: claims.sub, lifetime_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_and_end_are_read_from_a_token() {
        // The example of RFC 7519, section 6.1, is of this form but has no subject.
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub": "weir", "exp": 1300819380}"#);
        let token = format!("eyJhbGciOiJub25lIn0.{payload}.");
        let parsed = parse(&token).unwrap();
        assert_eq!((parsed.principal_name.as_str(), parsed.lifetime_ms), ("weir", 1_300_819_380_000));
        assert_eq!(parsed.token, token);
        let example = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
        for bad in ["", "no token", "a.b.c", example] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
