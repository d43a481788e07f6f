//! A listener with TLS that wants credentials: each mechanism that is built in, and what a mistake is called.

use std::time::{SystemTime, UNIX_EPOCH};

use weir_store::Fault;

use super::*;

/// `tests/kafka/kafka.sh` gives the user and the password.
const PASSWORD: &str = "weir-secret";

fn secure(kafka: &Kafka, mechanism: &str, more: &[(&str, &str)]) -> IngestConfig {
    let port = std::fs::read_to_string(kafka.folder.join("secure-port")).unwrap();
    let mut config = config(kafka, "secured");
    config.brokers = format!("localhost:{}", port.trim());
    let authority = kafka.folder.join("tls/ca.pem").display().to_string();
    let given = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", mechanism), ("ssl.ca.location", &authority)];
    for (name, value) in given.iter().chain(more) {
        config.kafka.insert((*name).to_owned(), (*value).to_owned());
    }
    config
}

/// base64url without padding, as RFC 7515 wants it.
fn base64url(bytes: &[u8]) -> String {
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let sextets = bits.as_bytes().chunks(6).map(|sextet| format!("{:0<6}", std::str::from_utf8(sextet).unwrap()));
    sextets.map(|sextet| alphabet[usize::from_str_radix(&sextet, 2).unwrap()]).collect()
}

/// An unsigned token that ends so many seconds from now.
fn token(seconds: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let claims = format!(r#"{{"sub":"weir","iat":{},"exp":{}}}"#, now - 1, now + seconds);
    format!("{}.{}.", base64url(br#"{"alg":"none"}"#), base64url(claims.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_reads_over_tls_and_a_mistake_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start_with(folder.path(), &["--secure"]) else { return };
    kafka.create_topic("secured", 2).await;
    kafka.produce("secured", 0..200);
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, token(600) + "\n").unwrap();
    let token_file = token_file.to_str().unwrap();

    let password = [("sasl.username", "weir"), ("sasl.password", PASSWORD)];
    let from_file = [("sasl.oauthbearer.token.file", token_file)];
    let all = [("PLAIN", &password[..]), ("SCRAM-SHA-512", &password), ("OAUTHBEARER", &from_file)];
    for (mechanism, given) in all {
        let data = tempfile::tempdir().unwrap();
        run(data.path(), secure(&kafka, mechanism, given)).await.unwrap_or_else(|error| panic!("{mechanism}: {error}"));
        assert_eq!(stored(data.path()).await, (0..200).collect::<Vec<_>>(), "{mechanism}");
    }

    let says = async |config: IngestConfig| {
        let error = weir_ingest::probe(&config).await.unwrap_err();
        assert_eq!(error.fault(), Fault::User, "{error}");
        let said = error.to_string();
        assert!(!said.contains(PASSWORD) && !said.contains("not-it") && !said.contains('\n'), "{said}");
        said
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let wrong = says(secure(&kafka, mechanism, &[("sasl.username", "weir"), ("sasl.password", "not-it")])).await;
        assert!(wrong.contains("does not accept the credentials"), "{wrong}");
    }
    std::fs::write(token_file, token(-60)).unwrap();
    let expired = says(secure(&kafka, "OAUTHBEARER", &from_file)).await;
    assert!(expired.contains("does not accept the credentials"), "{expired}");
    std::fs::remove_file(token_file).unwrap();
    let absent = says(secure(&kafka, "OAUTHBEARER", &from_file)).await;
    assert!(absent.contains("cannot read the token file"), "{absent}");
    let other = kafka.folder.join("tls/other-ca.pem").display().to_string();
    let stranger = says(secure(&kafka, "PLAIN", &[password[0], password[1], ("ssl.ca.location", &other)])).await;
    assert!(stranger.contains("no trusted TLS connection"), "{stranger}");
    for said in [expired, absent, stranger] {
        eprintln!("{said}");
    }
}
