//! Definitions that are refused, each with the sentence that says how to mend it.

use weir_adapters::{Adapter, Definition};

const COLUMNS: &str = "id text, at bigint, seconds double, name text, secret text, parts list<struct<a text>>, \
                       attributes map<text, text>, body json";

fn compile(columns: &str, table: &str, sql: &str, more: &str) -> Result<Adapter, String> {
    let text = format!(
        "name = \"x\"\ncolumns = '''{columns}'''\npersonal = [\"secret\", \"body\", \"attributes.prompt\"]\n\
         [[outputs]]\ntable = \"{table}\"\nsql = '''{sql}'''\n{more}"
    );
    let no_file = |file: &str| Err(format!("cannot read {file}"));
    let definition = Definition::from_toml(&text, no_file).map_err(|error| error.to_string())?;
    Adapter::compile(&definition).map_err(|error| error.to_string())
}

fn select(item: &str) -> String {
    format!("SELECT id AS request_id, at AS arrival_ms, {item} FROM message")
}

#[test]
fn a_plain_projection_compiles() {
    for item in [
        "name AS tenant",
        "coalesce(name, 'none') AS tenant",
        "seconds AS ttft_ms",
        "at AS ttft_ms",
        "secret AS prompt_text",
        "json_text(body, 'a[0].b') AS response_text",
        "word(secret) AS domain",
        "secret IS NULL AS fact_check",
        "attributes['team'] AS tenant",
        "attributes['prompt'] AS prompt_text",
        "attributes AS prompt_text",
        "array_transform(parts, part -> part['a']) AS scopes",
        "NULL AS tenant",
    ] {
        let compiled = compile(COLUMNS, "requests", &select(item), "");
        if item == "attributes AS prompt_text" {
            assert!(compiled.unwrap_err().contains("needs Utf8, and the expression gives Map"), "{item}");
        } else {
            compiled.unwrap_or_else(|error| panic!("{item}: {error}"));
        }
    }
}

#[test]
fn what_a_select_item_may_not_be_is_said() {
    for (item, said) in [
        ("now() AS tenant", "calls now, which says something else each time"),
        ("random() AS ttft_ms", "calls random, which says something else each time"),
        ("uuid() AS tenant", "calls uuid, which"),
        ("CAST(current_date() AS VARCHAR) AS tenant", "calls current_date, which"),
        ("count(*) AS turn", "is an aggregate over messages"),
        ("row_number() OVER () AS turn", "looks at other messages"),
        ("(SELECT max(name) FROM message) AS tenant", "holds a subquery: each message stands alone"),
        ("name IN (SELECT name FROM message) AS fact_check", "holds a subquery"),
        ("unnest(parts) AS tenant", "name the list as `each` of the output"),
        ("$1 AS tenant", "holds a variable"),
        ("nothing AS tenant", "nothing"),
        ("nofunction(name) AS tenant", "nofunction"),
        ("name", "column name: requests has no such column"),
        ("upper(name)", "say which column `upper(name)` is for"),
        ("*", "name each with AS"),
        ("name AS nowhere", "column nowhere: requests has no such column: docs/reference/events.md"),
        ("name AS tenant, name AS tenant", "column tenant: it is selected twice"),
        ("name AS turn", "column turn: it needs Int32, and the expression gives Utf8; convert it"),
        ("seconds AS turn", "column turn: it needs Int32, and the expression gives Float64"),
        ("parts AS tools_called", "column tools_called: it needs List"),
        ("secret AS tenant", "column tenant: it is made from secret, which holds people's text; only prompt_text"),
        ("substr(secret, 1, 3) AS tenant", "it is made from secret"),
        ("json_text(body, 'user') AS caller", "it is made from body"),
        ("attributes['prompt'] AS domain", "it is made from attributes.prompt"),
        ("attributes[name] AS domain", "attributes"),
        ("attributes AS gateway_tags", "it is made from attributes"),
        ("element_at(attributes, 'prompt')[1] AS domain", "it is made from attributes"),
        ("CASE WHEN secret = 'x' THEN 'y' END AS domain", "it is made from secret"),
        ("array_transform(make_array(secret), s -> s) AS scopes", "it is made from secret"),
    ] {
        let error = compile(COLUMNS, "requests", &select(item), "").expect_err(item);
        assert!(error.contains(said), "{item}: {error}");
        assert!(error.starts_with("adapter x, output requests") && !error.contains('\n'), "{item}: {error}");
    }
}

#[test]
fn a_statement_is_a_projection_and_nothing_else() {
    let plain = select("name AS tenant");
    for sql in [
        "DELETE FROM message".to_owned(),
        format!("{plain}; {plain}"),
        format!("{plain} GROUP BY 1"),
        format!("{plain} ORDER BY id"),
        format!("{plain} LIMIT 1"),
        format!("{plain} QUALIFY true"),
        format!("{plain} UNION ALL {plain}"),
        format!("WITH message AS (SELECT 1) {plain}"),
        format!("{plain}, UNNEST(parts) AS part"),
        format!("{plain} AS m JOIN message ON true"),
        plain.replace("message", "other"),
        plain.replace("SELECT", "SELECT DISTINCT"),
        "SELECT 1 AS request_id".to_owned(),
    ] {
        let error = compile(COLUMNS, "requests", &sql, "").expect_err(&sql);
        assert!(
            error.contains("write SELECT expression AS column, ... FROM message [WHERE condition]"),
            "{sql}: {error}"
        );
    }
}

#[test]
fn the_rest_of_a_definition_is_checked_too() {
    let good = select("name AS tenant");
    for (columns, table, sql, more, said) in [
        (COLUMNS, "nowhere", good.as_str(), "", "there is no such table; take one of requests, feedback"),
        (COLUMNS, "requests", "SELECT id AS request_id FROM message", "", "every row needs arrival_ms: select them"),
        (COLUMNS, "requests", "SELEC", "", "the SQL does not parse"),
        (COLUMNS, "requests", &format!("{good} WHERE name"), "", "WHERE needs a condition, and this one is a Utf8"),
        (COLUMNS, "requests", &format!("{good} WHERE random() < 0.5"), "", "calls random"),
        (COLUMNS, "requests", &good, "each = \"name\"", "each names name, which is not a list column"),
        (COLUMNS, "requests", &good, "each = \"none\"", "each names none, which is not a list column"),
        (COLUMNS, "requests", &good, "sql_file = \"a.sql\"", "give either sql or sql_file"),
        ("id texte", "requests", &good, "", "`texte` is no type"),
        ("id text, body json, attributes text", "requests", &good, "", "personal names secret, which is neither"),
    ] {
        let error = compile(columns, table, sql, more).expect_err(said);
        assert!(error.contains(said), "{said}: {error}");
    }
    for (text, said) in [
        ("name = \"X y\"\ncolumns = \"a text\"\noutputs = []", "name it with small letters"),
        ("name = \"x\"\ncolumns = \"a text\"\noutputs = []", "it has no outputs"),
        ("name = \"x\"\ncolumns = \"a text\"\ngroup_by = [\"a\"]\noutputs = []", "for input = \"prometheus\""),
        ("name = \"x\"\ncolumn = \"a text\"", "unknown field `column`"),
        (
            "name = \"x\"\ncolumns = \"a text\"\n[[outputs]]\ntable = \"requests\"\nsql_file = \"a.sql\"",
            "cannot read a.sql",
        ),
    ] {
        let error = Definition::from_toml(text, |file| Err(format!("cannot read {file}"))).expect_err(said).to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
    let pages = "name = \"x\"\ninput = \"prometheus\"\ncolumns = \"up text\"\n\
                 [[outputs]]\ntable = \"gpu_telemetry\"\nsql = \"SELECT 1 AS event_ms FROM message\"";
    let definition = Definition::from_toml(pages, |_| Err(String::new())).expect("it reads");
    let error = Adapter::compile(&definition).expect_err("a metric is a number").to_string();
    assert_eq!(error, "adapter x: columns: in Prometheus pages up is a double");
}
