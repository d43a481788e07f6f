//! Against a server that gives the answers of a registry, one after the other.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use super::*;

/// Paths that were asked for, each with its `Authorization`.
type Asked = Vec<(String, Option<String>)>;

/// Answers one request after the other, and says what each asked for and how it was let in.
fn registry(answers: Vec<(u16, String)>) -> (String, std::thread::JoinHandle<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        answers
            .into_iter()
            .map(|(status, body)| {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let length = body.len();
                write!(stream, "HTTP/1.1 {status} .\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                    .unwrap();
                let path = head[0].split(' ').nth(1).unwrap().to_owned();
                let authorization = head.iter().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
                });
                (path, authorization)
            })
            .collect()
    });
    (url, asked)
}

fn client(url: &str, access: RegistryAccess) -> Registry {
    let mut client = Registry::new(&RegistryConfig { url: url.to_owned(), access }).unwrap();
    client.pauses = vec![Duration::ZERO; 2];
    client.grace = vec![Duration::ZERO; 2];
    client
}

fn schema(client: &Registry, id: SchemaId) -> Arc<RegisteredSchema> {
    match client.schema(id) {
        Ok(SchemaAnswer::Schema(schema)) => schema,
        other => panic!("{other:?}"),
    }
}

/// Status 404 as a registry says it.
fn missing(code: u32) -> (u16, String) {
    (404, format!(r#"{{"error_code":{code},"message":"not found"}}"#))
}

fn paths(asked: std::thread::JoinHandle<Asked>) -> Vec<String> {
    asked.join().unwrap().into_iter().map(|(path, _)| path).collect()
}

#[test]
fn a_schema_is_read_once_with_what_it_refers_to_and_passing_trouble_is_waited_out() {
    let reference = |name: &str| format!(r#"{{"name":"{name}","subject":"a/{name}","version":3}}"#);
    let (url, asked) = registry(vec![
        (500, String::new()),
        (200, format!(r#"{{"schema":"top","schemaType":"PROTOBUF","references":[{}]}}"#, reference("b"))),
        (200, format!(r#"{{"schema":"middle","references":[{}]}}"#, reference("c"))),
        (200, r#"{"schema":"bottom"}"#.to_owned()),
    ]);
    let client = client(&url, RegistryAccess::Open);
    let found = schema(&client, SchemaId::Number(7));
    assert_eq!((found.language, found.text.as_str()), (SchemaLanguage::Protobuf, "top"));
    let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(found.references, [named("c", "bottom"), named("b", "middle")]);
    assert_eq!(schema(&client, SchemaId::Number(7)), found, "nobody is there to answer a second time");
    let expected = ["/schemas/ids/7", "/schemas/ids/7", "/subjects/a%2Fb/versions/3", "/subjects/a%2Fc/versions/3"];
    assert_eq!(paths(asked), expected);
}

#[test]
fn credentials_come_from_a_file_and_a_refusal_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry");
    std::fs::write(&file, "Aladdin:open sesame\n").unwrap();
    // RFC 7617, section 2: the example of the Basic scheme.
    for (access, header) in [
        (RegistryAccess::Basic(file.clone()), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (RegistryAccess::Bearer(file.clone()), "Bearer Aladdin:open sesame"),
    ] {
        let (url, asked) = registry(vec![(401, String::new())]);
        let said = client(&url, access).schema(SchemaId::Number(1)).unwrap_err().to_string();
        assert!(said.contains("refused access to schema 1") && !said.contains("sesame"), "{said}");
        assert_eq!(asked.join().unwrap()[0].1.as_deref(), Some(header));
    }
}

#[test]
fn a_server_that_does_not_say_what_is_not_found_is_trouble_and_no_verdict() {
    for answer in [(404, String::new()), missing(404), (500, String::new())] {
        let (url, asked) = registry(vec![answer; 3]);
        let error = IngestError::from(client(&url, RegistryAccess::Open).schema(SchemaId::Number(9)).unwrap_err());
        assert!(error.retry_helps() && error.fault() == weir_store::Fault::Outside, "{error}");
        assert_eq!(asked.join().unwrap().len(), 3);
    }
}

#[test]
fn an_id_that_stays_unknown_for_a_moment_is_unknown_for_a_while() {
    let found = (200, r#"{"schema":"late"}"#.to_owned());
    let (url, asked) = registry(vec![missing(40_403), missing(40_403), missing(40_403), missing(40_403), found]);
    let mut client = client(&url, RegistryAccess::Open);
    let id = SchemaId::Number(9);
    for _ in 0..3 {
        assert_eq!(client.schema(id), Ok(SchemaAnswer::Unknown));
    }
    // The while is over: one question each time, until it is there.
    client.answers.unknown_for = Duration::ZERO;
    assert_eq!(client.schema(id), Ok(SchemaAnswer::Unknown));
    assert_eq!(schema(&client, id).text, "late");
    assert_eq!(paths(asked), ["/schemas/ids/9"; 5]);
}

#[test]
fn a_schema_that_is_registered_just_after_its_first_message_is_found() {
    let found = (200, r#"{"schema":"late"}"#.to_owned());
    let (url, _asked) = registry(vec![missing(40_403), found]);
    assert_eq!(schema(&client(&url, RegistryAccess::Open), SchemaId::Number(9)).text, "late");
}

#[test]
fn a_schema_without_what_it_refers_to_is_unknown_too() {
    let top = (200, r#"{"schema":"top","references":[{"name":"n","subject":"b","version":1}]}"#.to_owned());
    let (url, _asked) = registry(vec![[top, missing(40_402)]; 3].concat());
    assert_eq!(client(&url, RegistryAccess::Open).schema(SchemaId::Number(9)), Ok(SchemaAnswer::Unknown));
}

#[test]
fn a_number_that_no_registry_gives_is_not_asked_for() {
    let client = client("http://127.0.0.1:1", RegistryAccess::Open);
    assert_eq!(client.schema(SchemaId::Number(0x8000_0000)), Ok(SchemaAnswer::Unknown));
}

#[test]
fn a_guid_is_unknown_to_a_registry_that_has_none_and_a_server_that_is_no_registry_is_trouble() {
    let guid = SchemaId::Guid([0xab; 16]);
    let (url, asked) = registry(vec![[missing(404), missing(40_403)]; 3].concat());
    assert_eq!(client(&url, RegistryAccess::Open).schema(guid), Ok(SchemaAnswer::Unknown));
    assert_eq!(paths(asked)[..2], ["/schemas/guids/abababab-abab-abab-abab-abababababab", NO_ID]);
    let (url, _asked) = registry(vec![(404, "<html>".to_owned()); 6]);
    client(&url, RegistryAccess::Open).schema(guid).unwrap_err();
}

#[test]
fn the_latest_of_a_subject_comes_with_what_it_refers_to_and_a_missing_subject_is_no_trouble() {
    let reference = r#"{"name":"n","subject":"b","version":1}"#;
    let latest = (200, format!(r#"{{"schema":"top","version":4,"references":[{reference}]}}"#));
    let below = (200, r#"{"schema":"below"}"#.to_owned());
    let (url, asked) = registry(vec![
        latest.clone(),
        below,
        missing(40_401),
        // A server that is no registry, and a subject that is only referred to.
        missing(404),
        (404, "<html>".to_owned()),
        latest,
        missing(40_401),
    ]);
    let client = client(&url, RegistryAccess::Open);
    let (version, schema) = client.latest("a/b-value").unwrap().unwrap();
    assert_eq!((version, schema.text.as_str(), schema.references.len()), (4, "top", 1));
    assert_eq!(client.latest("a").unwrap(), None);
    for _ in 0..2 {
        let said = client.latest("a").unwrap_err().0;
        assert!(said.contains("does not know the latest version of a;"), "{said}");
    }
    let said = client.latest("a").unwrap_err().0;
    assert!(said.contains("does not know version 1 of b;"), "{said}");
    assert_eq!(asked.join().unwrap()[0].0, "/subjects/a%2Fb-value/versions/latest");
}

#[test]
fn addresses_that_are_none_and_passwords_in_them_are_refused() {
    for (url, mend) in [("registry:8081", "http://HOST"), ("ftp://r", "http://HOST"), ("http://u:hunter2@r", "a file")]
    {
        let config = RegistryConfig { url: url.to_owned(), access: RegistryAccess::Open };
        let said = Registry::new(&config).unwrap_err().to_string();
        assert!(said.contains(mend) && !said.contains("hunter2"), "{said}");
    }
}
