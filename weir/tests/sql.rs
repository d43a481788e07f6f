//! `weir sql` as people and scripts use it: it reads, and leaves no trace.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn weir(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder)
        .args(arguments)
        .env("WEIR_LOG", "off")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("is piped").write_all(input.as_bytes()).expect("takes its input");
    child.wait_with_output().expect("ends")
}

fn csv(folder: &Path, input: &str) -> String {
    let output = weir(folder, &["--data", "data", "sql", "--format", "csv"], input);
    assert!(output.status.success(), "{input:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("CSV is UTF-8")
}

#[test]
fn a_semicolon_ends_a_query_wherever_it_stands_and_not_in_a_string_or_comment() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    assert_eq!(csv(folder.path(), "select 1 as a; select 2 as b;\n"), "a\n1\nb\n2\n");
    assert_eq!(csv(folder.path(), "select 'x;\ny' as a -- one;\n;\n;\n"), "a\n\"x;\ny\"\n");
    assert_eq!(csv(folder.path(), "select 3 as c"), "c\n3\n", "the last one needs none");
    assert_eq!(csv(folder.path(), "select 3 as c; -- done\n"), "c\n3\n");
    assert_eq!(csv(folder.path(), ";\n"), "");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_by_path_and_by_url_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let typo = folder.path().join("typo");
    for place in [typo.display().to_string(), format!("file://{}", typo.display())] {
        let output = weir(folder.path(), &["--data", &place, "sql", "select 1"], "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{place}: {said}");
        assert!(said.contains("there is no data folder") && said.contains("--data"), "{said}");
        assert!(!typo.exists(), "{place} was made");
    }
}

#[test]
fn reading_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let before = std::fs::metadata(&data).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let place = format!("file://{}", data.display());
    let output = weir(folder.path(), &["--data", &place, "sql", "select count(*) from requests"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::metadata(&data).unwrap().modified().unwrap(), before, "a file came and went");
}
