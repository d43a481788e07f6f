//! The adapters that come with Weir: files, in the order in which documents list them.

use crate::Definition;

struct BuiltIn {
    name: &'static str,
    toml: &'static str,
    sql: &'static [(&'static str, &'static str)],
}

macro_rules! built_in {
    ($($name:literal: $($sql:literal),+;)*) => {
        &[$(BuiltIn {
            name: $name,
            toml: include_str!(concat!("../definitions/", $name, "/adapter.toml")),
            sql: &[$(($sql, include_str!(concat!("../definitions/", $name, "/", $sql)))),+],
        }),*]
    };
}

const BUILT_IN: &[BuiltIn] = built_in! {
    "litellm": "requests.sql";
    "otel_genai_spans": "requests.sql";
    "otel_genai_logs": "feedback.sql";
    "envoy_ai_gateway": "requests.sql";
    "vllm_sr_log_lines": "router_events.sql";
    "vllm_metrics": "gpu_telemetry.sql";
    "dcgm_exporter": "gpu_telemetry.sql";
};

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|built_in| built_in.name)
}

pub(crate) fn definition(name: &str) -> Option<Definition> {
    let built_in = BUILT_IN.iter().find(|built_in| built_in.name == name)?;
    let sql_file = |file: &str| {
        let found = built_in.sql.iter().find(|(name, _)| *name == file);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| format!("{file} is not there"))
    };
    // These files are part of this build, and a test reads each of them.
    Some(Definition::from_toml(built_in.toml, sql_file).expect("a definition that comes with Weir reads"))
}
