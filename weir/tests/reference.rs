//! The reference pages say what the binary and the sources say.
//!
//! `docs/reference/cli.md` and `views.md` are generated: `WEIR_BLESS=1 cargo test -p weir --test reference` rewrites
//! them. `configuration.md` and `metrics.md` are written by hand and checked against the code, and every command and
//! link in `docs/` must lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

// The configuration's own types give the keys and the defaults: a key that is added does not compile until it is here.
#[allow(dead_code, unreachable_pub)]
#[path = "../src/config.rs"]
mod config;
#[allow(dead_code, unreachable_pub, unused_macros)]
#[path = "../src/error.rs"]
mod error;

const BLESS: &str = "WEIR_BLESS=1 cargo test -p weir --test reference";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Compares a generated page with the file, or writes the file when asked to.
fn is_up_to_date(path: &str, page: &str) {
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(repository().join(path), page).expect("the page can be written");
    }
    let written = read(path);
    if let Some((number, (found, wanted))) =
        written.lines().zip(page.lines()).enumerate().find(|(_, (found, wanted))| found != wanted)
    {
        panic!("{path} line {} is {found:?}, should be {wanted:?}; {BLESS} rewrites it", number + 1);
    }
    assert_eq!(written.len(), page.len(), "{path} has another length; {BLESS} rewrites it");
}

/// What the binary prints, with the width that a page has.
fn weir(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder)
        .args(arguments)
        .env("WEIR_LOG", "off")
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "weir {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the binary prints UTF-8")
}

/// The help of every command, by what one types after `weir`, parents before their children.
fn help_pages() -> Vec<(Vec<String>, String)> {
    let mut pages = Vec::new();
    let mut todo = vec![Vec::<String>::new()];
    while let Some(command) = todo.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = weir(&repository(), &arguments);
        for name in subcommands(&help).into_iter().rev() {
            todo.push([command.clone(), vec![name]].concat());
        }
        pages.push((command, help));
    }
    pages
}

fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A description that goes on in the next line is indented deeper than a name.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn cli_page_is_the_help_of_every_command() {
    let mut page = String::from(
        "# Command line\n\n\
         Generated from the help texts of the binary. Exit codes: 0 done, 2 the command, its configuration or its input\n\
         is wrong, 3 something that Weir depends on failed, 4 Weir is wrong. A failure is one sentence on standard\n\
         error; with `--json` it is also one object on standard output, with `error`, `fault` and `retry_helps`. Logs go\n\
         to standard error, as JSON lines unless that is a terminal; `WEIR_LOG` sets their level (`WEIR_LOG=debug`,\n\
         `WEIR_LOG=off`).\n",
    );
    for (command, help) in help_pages() {
        let name = [vec!["weir".to_owned()], command].concat().join(" ");
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()).expect("a string takes text");
    }
    is_up_to_date("docs/reference/cli.md", &page);
}

#[test]
fn views_page_lists_every_view_with_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let rows = |query: &str| -> Vec<serde_json::Value> {
        serde_json::from_str(&weir(folder.path(), &["--data", "data", "sql", query, "--json"])).expect("JSON rows")
    };
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let mut columns: BTreeMap<String, Vec<(String, &str)>> = BTreeMap::new();
    for row in rows(
        "select table_name, column_name, data_type from information_schema.columns \
         where table_schema = 'public' order by table_name, ordinal_position",
    ) {
        let kind = kind(&text(&row, "data_type"));
        columns.entry(text(&row, "table_name")).or_default().push((text(&row, "column_name"), kind));
    }
    let events = read("docs/reference/events.md");
    let mut page = String::from(
        "# Views and tables\n\n\
         What `weir sql` and the console read. Generated from `select * from views` and the columns of an empty data\n\
         folder. A summary column is bytes in a canonical form; the functions in\n\
         [how to query](../how-to/query.md) read it. Tables that the list lacks can be queried by their names too, for\n\
         example `policy_events`, the history of the registry.\n\n\
         | name | one row is |\n| --- | --- |\n",
    );
    let views: Vec<(String, String)> =
        rows("select * from views").iter().map(|row| (text(row, "name"), text(row, "about"))).collect();
    for (name, about) in &views {
        writeln!(page, "| [`{name}`](#{name}) | {about} |").unwrap();
    }
    for (name, about) in &views {
        writeln!(page, "\n## `{name}`\n\n{}{}.", about[..1].to_uppercase(), &about[1..]).unwrap();
        for source in ["sql/src/views", "features/src/sql/views", "features/src/sql"] {
            let file = format!("{source}/{name}.sql");
            if repository().join(&file).exists() {
                writeln!(page, "Defined in [{file}](../../{file}).").unwrap();
            }
        }
        let mut found = columns.remove(name).unwrap_or_else(|| panic!("{name} has no columns"));
        // The contracts have a page of their own; here is what the view adds to them.
        let contract = name.trim_start_matches("raw_");
        if let Some(fields) = contract_fields(&events, contract) {
            let before = found.len();
            found.retain(|(column, _)| !fields.contains(column.as_str()));
            assert_eq!(before - found.len(), fields.len(), "{name} lacks a field of its contract");
            writeln!(page, "\nAll fields of [`{contract}`](events.md#{contract}), and:").unwrap();
        }
        page.push_str("\n| column | type |\n| --- | --- |\n");
        for (column, kind) in found {
            writeln!(page, "| `{column}` | {kind} |").unwrap();
        }
    }
    is_up_to_date("docs/reference/views.md", &page);
}

fn contract_fields<'a>(events: &'a str, contract: &str) -> Option<BTreeSet<&'a str>> {
    let section = events.split("\n## ").find(|section| section.starts_with(&format!("`{contract}`\n")))?;
    Some(section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect())
}

/// Arrow's type in the words of the reference; a partition column is text, whether it is encoded or not.
fn kind(arrow: &str) -> &'static str {
    match arrow {
        "Utf8" | "Utf8View" | "LargeUtf8" => "text",
        "Boolean" => "flag",
        "Binary" | "BinaryView" | "LargeBinary" => "bytes",
        "Float32" | "Float64" => "number",
        "Decimal128(38, 0)" => "integer",
        _ if arrow.starts_with("Int") || arrow.starts_with("UInt") => "integer",
        _ if arrow.starts_with("Timestamp") => "timestamp, UTC",
        _ if arrow.starts_with("Dictionary") => "text",
        _ if arrow.starts_with("List") => "list",
        _ if arrow.starts_with("Map") => "map",
        _ => panic!("the reference has no word for columns of type {arrow}"),
    }
}

/// Every key with its default as `weir.toml` would write it; `none` where leaving it out means something of its own.
fn keys_and_defaults() -> Vec<(&'static str, String)> {
    use config::*;
    let text = |value: &str| format!("\"{value}\"");
    let path = |value: &Path| format!("\"{}\"", value.display());
    let none = || "none".to_owned();
    let Config {
        store,
        upkeep,
        retention,
        keys,
        kafka,
        adapters,
        ingest,
        http,
        postgres,
        policy,
        objective,
        estimators,
        energy,
        bridge,
    } = Config::default();
    let StoreSection { url, credentials, options } = store;
    assert!(credentials.is_none() && options.is_empty(), "the page says none and {{}}");
    let UpkeepSection { interval_ms, target_file_bytes, settle_ms, bytes_per_s } = upkeep;
    assert!(retention.is_empty() && energy.is_empty(), "the page says {{}}");
    let KeysSection { path: keys_path } = keys;
    let KafkaSection { brokers, group_id, job, topics, registry, properties, secrets } = kafka;
    assert!(registry.is_none(), "without the section there is none");
    let named: RegistrySection = toml::from_str("url = \"\"\n").expect("one required key");
    let RegistrySection { url: _, basic_auth_file: None, bearer_token_file: None } = named else {
        panic!("the page says none");
    };
    let IngestSection {
        flush_rows,
        flush_bytes,
        flush_interval_ms,
        keep_text,
        allowed_unknown,
        type_conflicts,
        dead_letter_days,
        start,
        on_data_loss,
    } = ingest;
    let HttpSection { listen, tokens } = http;
    let PostgresSection { listen: None, user, password_file: None, max_connections, query_timeout_ms, max_rows } =
        postgres
    else {
        panic!("the page says none");
    };
    let PolicySection { trusted_keys, kafka_topic, refresh_ms } = policy;
    let ObjectiveSection { outcome: None, quality, usd, gamma, action_parts, floor } = objective else {
        panic!("the page says none")
    };
    assert!(action_parts.is_empty(), "the page says []");
    let EstimatorsSection { hallucination } = estimators;
    assert!(secrets.is_empty());
    assert!(type_conflicts.is_empty(), "the page says {{}}");
    assert!(properties.is_empty() && allowed_unknown.is_empty() && tokens.is_none() && hallucination.is_none());
    assert!(adapters.is_empty(), "the page says []");
    let adapter: weir_adapters::DefinitionText =
        toml::from_str("name = \"\"\ncolumns = \"\"\n[[outputs]]\ntable = \"\"\n").expect("the required keys");
    assert!(adapter.personal.is_empty() && adapter.group_by.is_empty() && adapter.sum_over.is_empty());
    let weir_adapters::OutputText { table: _, sql: None, sql_file: None, each: None } = &adapter.outputs[0] else {
        panic!("the page says none");
    };
    let list = |names: &[String]| format!("[{}]", names.iter().map(|name| text(name)).collect::<Vec<_>>().join(", "));
    let BridgeSection {
        listen: bridge_listen,
        token_file,
        signals,
        metrics_topic,
        traces_topic,
        logs_topic,
        buffer,
        buffer_max_bytes,
        max_body_bytes,
        keep_text: bridge_keep_text,
        text_attributes,
        drain_ms,
    } = bridge;
    assert!(token_file.is_none());
    let names: Vec<String> = topics
        .iter()
        .map(|TopicSection { name, pattern, format, encoding, headers }| {
            assert!(headers.is_empty() && pattern.is_none(), "the page says so");
            let name = name.as_deref().expect("default topics are named");
            assert_eq!(*encoding, TopicEncoding::Json, "the page says so");
            assert_ne!(*format, TopicFormat::VllmSemanticRouter, "{name} is not among the default topics");
            text(name)
        })
        .collect();
    let named: EstimatorsSection = toml::from_str("[hallucination]\nartifact = \"file\"\n").expect("one required key");
    let HallucinationSection { artifact: _, sample_share } = named.hallucination.expect("it was named");
    vec![
        ("store.url", text(&url)),
        ("store.credentials", none()),
        ("store.options", "{}".to_owned()),
        ("upkeep.interval_ms", interval_ms.to_string()),
        ("upkeep.target_file_bytes", target_file_bytes.to_string()),
        ("upkeep.settle_ms", settle_ms.to_string()),
        ("upkeep.bytes_per_s", bytes_per_s.to_string()),
        ("retention", "{}".to_owned()),
        ("keys.path", path(&keys_path)),
        ("kafka.brokers", text(&brokers)),
        ("kafka.group_id", text(&group_id)),
        ("kafka.job", text(&job)),
        ("kafka.properties", "{}".to_owned()),
        ("kafka.secrets", "{}".to_owned()),
        ("kafka.registry.url", "required".to_owned()),
        ("kafka.registry.basic_auth_file", none()),
        ("kafka.registry.bearer_token_file", none()),
        ("kafka.topics", names.join(", ")),
        ("kafka.topics.name", "required, or pattern".to_owned()),
        ("kafka.topics.pattern", none()),
        ("kafka.topics.format", "required".to_owned()),
        ("kafka.topics.encoding", text("json")),
        ("kafka.topics.headers", "[]".to_owned()),
        ("adapters", "[]".to_owned()),
        ("adapters.name", "required".to_owned()),
        ("adapters.doc", text(&adapter.doc)),
        ("adapters.input", text(&format!("{:?}", adapter.input).to_lowercase())),
        ("adapters.columns", "required".to_owned()),
        ("adapters.personal", "[]".to_owned()),
        ("adapters.group_by", "[]".to_owned()),
        ("adapters.sum_over", "[]".to_owned()),
        ("adapters.outputs.table", "required".to_owned()),
        ("adapters.outputs.sql", none()),
        ("adapters.outputs.sql_file", none()),
        ("adapters.outputs.each", none()),
        ("ingest.flush_rows", flush_rows.to_string()),
        ("ingest.flush_bytes", flush_bytes.to_string()),
        ("ingest.flush_interval_ms", flush_interval_ms.to_string()),
        ("ingest.keep_text", keep_text.to_string()),
        ("ingest.allowed_unknown", "[]".to_owned()),
        ("ingest.type_conflicts", "{}".to_owned()),
        ("ingest.dead_letter_days", dead_letter_days.to_string()),
        ("ingest.start", text(&format!("{start:?}").to_lowercase())),
        ("ingest.on_data_loss", text(&format!("{on_data_loss:?}").to_lowercase())),
        ("http.listen", text(&listen)),
        ("http.tokens", none()),
        ("postgres.listen", none()),
        ("postgres.user", text(&user)),
        ("postgres.password_file", none()),
        ("postgres.max_connections", max_connections.to_string()),
        ("postgres.query_timeout_ms", query_timeout_ms.to_string()),
        ("postgres.max_rows", max_rows.to_string()),
        ("policy.trusted_keys", path(&trusted_keys)),
        ("policy.kafka_topic", text(&kafka_topic)),
        ("policy.refresh_ms", refresh_ms.to_string()),
        ("objective.outcome", none()),
        ("objective.quality", format!("{quality:?}")),
        ("objective.usd", format!("{usd:?}")),
        ("objective.gamma", gamma.map_or_else(none, |gamma| format!("{gamma:?}"))),
        ("objective.action_parts", "[]".to_owned()),
        ("objective.floor", format!("{floor:?}")),
        ("estimators.hallucination.artifact", "required".to_owned()),
        ("estimators.hallucination.sample_share", format!("{sample_share:?}")),
        ("energy", "{}".to_owned()),
        ("energy.profile", "required".to_owned()),
        ("energy.sequences", "required".to_owned()),
        ("bridge.listen", list(&bridge_listen)),
        ("bridge.token_file", none()),
        ("bridge.signals", list(&signals)),
        ("bridge.metrics_topic", text(&metrics_topic)),
        ("bridge.traces_topic", text(&traces_topic)),
        ("bridge.logs_topic", text(&logs_topic)),
        ("bridge.buffer", path(&buffer)),
        ("bridge.buffer_max_bytes", buffer_max_bytes.to_string()),
        ("bridge.max_body_bytes", max_body_bytes.to_string()),
        ("bridge.keep_text", bridge_keep_text.to_string()),
        ("bridge.text_attributes", list(&text_attributes)),
        ("bridge.drain_ms", drain_ms.to_string()),
    ]
}

/// First and second cell of the rows of a page's tables, where the first is code.
fn table_rows(page: &str) -> Vec<(&str, &str)> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells.map(|(name, rest)| (name, rest.split(" |").next().unwrap_or_default().trim_matches('`'))).collect()
}

#[test]
fn configuration_page_has_every_key_with_its_default_and_no_other() {
    let page = read("docs/reference/configuration.md");
    let known = keys_and_defaults();
    let wanted: Vec<(&str, &str)> = known.iter().map(|(key, default)| (*key, default.as_str())).collect();
    assert_eq!(table_rows(&page), wanted, "docs/reference/configuration.md: keys and defaults, in this order");
}

#[test]
fn the_example_configuration_names_every_section_of_the_page() {
    let page = read("docs/reference/configuration.md");
    let mut section = String::new();
    for line in read("deploy/weir.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_start_matches('[').split(']').next().unwrap_or_default().to_owned();
        } else if let Some((key, _)) =
            line.split_once(" = ").filter(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        {
            let key = if section == "kafka.properties" || section == "kafka.secrets" {
                section.clone()
            } else {
                format!("{section}.{key}")
            };
            assert!(page.contains(&format!("`{key}`")), "docs/reference/configuration.md lacks {key}");
        }
    }
}

/// Every metric that a crate's code emits, with its kind.
fn emitted_metrics() -> BTreeSet<(String, &'static str)> {
    let mut found = BTreeSet::new();
    for file in files_below(&repository(), "rs") {
        if !file.components().any(|part| part.as_os_str() == "src") {
            continue;
        }
        let source = std::fs::read_to_string(&file).expect("a source file is text");
        for kind in ["counter", "gauge", "histogram"] {
            for (_, rest) in
                source.match_indices(&format!("{kind}!(")).map(|(at, call)| (at, &source[at + call.len()..]))
            {
                let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                found.extend(name.map(|name| (name.to_owned(), kind)));
            }
        }
    }
    found
}

#[test]
fn metrics_page_has_every_metric_that_the_code_emits_and_no_other() {
    let page = read("docs/reference/metrics.md");
    let written: BTreeSet<(String, &str)> =
        table_rows(&page).into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    let emitted = emitted_metrics();
    assert!(emitted.len() > 10, "the sources were not found: {emitted:?}");
    assert_eq!(written, emitted, "docs/reference/metrics.md, then the sources");
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                files.extend(files_below(&path, extension));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

#[test]
fn links_between_pages_lead_somewhere() {
    for file in files_below(&repository().join("docs"), "md") {
        let text = std::fs::read_to_string(&file).expect("a page is text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = file.parent().expect("a file lies in a folder").join(path);
            assert!(target.exists(), "{}: no {link}", file.display());
            if !anchor.is_empty() {
                let page = std::fs::read_to_string(&target).expect("a page is text");
                let anchors: Vec<String> = page.lines().filter(|line| line.starts_with('#')).map(slug).collect();
                assert!(anchors.iter().any(|found| found == anchor), "{}: no heading {link}", file.display());
            }
        }
    }
}

/// A heading's anchor, as forges make it.
fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_command_in_the_pages_exists_with_its_options() {
    let help: BTreeMap<String, String> =
        help_pages().into_iter().map(|(command, help)| (command.join(" "), help)).collect();
    let mut checked = 0;
    for file in files_below(&repository().join("docs"), "md") {
        let text = std::fs::read_to_string(&file).expect("a page is text").replace("\\\n", " ");
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("$ weir ")) {
            // What is quoted, or comes after a comment or a pipe, is no option of ours.
            let unquoted: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
            let unquoted = unquoted.split(['#', '|', '>']).next().unwrap_or_default().to_owned();
            let words: Vec<&str> = unquoted.split_whitespace().collect();
            let mut command = String::new();
            for word in &words {
                let deeper = [command.as_str(), word].join(" ").trim().to_owned();
                if help.contains_key(&deeper) {
                    command = deeper;
                }
            }
            let known = &help[&command];
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap_or_default();
                assert!(
                    known.contains(&format!("{option} ")) || known.contains(&format!("{option}\n")),
                    "{}: weir {line}: no {option}",
                    file.display()
                );
            }
            assert!(
                !command.is_empty() || words.iter().all(|word| word.starts_with("--")),
                "{}: no command in weir {line}",
                file.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 0, "no page shows a command");
}
