//! What differs between two policies, value by value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use weir_policy_runtime::{Bundle, POLICY_FILE, PolicyId, knob_tables};

/// One value that is not the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where, e.g. `policy.exploration.gamma` or `files.weights.safetensors`.
    pub what: String,
    /// Value on the left; null when it is not there.
    pub left: Option<Value>,
    /// Value on the right; null when it is not there.
    pub right: Option<Value>,
}

/// Everything that differs: manifest, metrics, spec, and the other files by hash.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyDiff {
    /// Left policy.
    pub left: PolicyId,
    /// Right policy.
    pub right: PolicyId,
    /// In order of place.
    pub differences: Vec<Difference>,
}

impl PolicyDiff {
    pub(crate) fn new(left: &Bundle, right: &Bundle) -> Self {
        let (left_values, right_values) = (values(left), values(right));
        let places: BTreeSet<&String> = left_values.keys().chain(right_values.keys()).collect();
        let differences = places
            .into_iter()
            .filter(|place| left_values.get(*place) != right_values.get(*place))
            .map(|place| Difference {
                what: place.clone(),
                left: left_values.get(place).cloned(),
                right: right_values.get(place).cloned(),
            })
            .collect();
        Self { left: left.id.clone(), right: right.id.clone(), differences }
    }
}

impl fmt::Display for PolicyDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}", self.left.short(), self.right.short())?;
        if self.differences.is_empty() {
            return writeln!(f, "no difference");
        }
        let width = self.differences.iter().map(|d| d.what.chars().count()).max().unwrap_or(0);
        for Difference { what, left, right } in &self.differences {
            let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "absent".to_owned(), shown);
            writeln!(f, "  {what:width$}  {} -> {}", side(left), side(right))?;
        }
        Ok(())
    }
}

/// Text without quotes: these are names and hashes.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn values(bundle: &Bundle) -> BTreeMap<String, Value> {
    let manifest = &bundle.manifest;
    let mut all = BTreeMap::from([
        ("name".to_owned(), Value::from(manifest.name.as_str())),
        ("kind".to_owned(), Value::from(manifest.kind.as_str())),
        ("created_ms".to_owned(), Value::from(manifest.created_ms)),
    ]);
    all.extend(flatten("lineage", &serde_json::to_value(&manifest.lineage).unwrap_or_default()));
    all.extend(flatten("metrics", &manifest.metrics));
    let spec = bundle.files.get(POLICY_FILE).and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    all.extend(flatten("policy", &spec.unwrap_or_default()));
    for (name, table) in knob_tables(bundle) {
        for row in &table.rows {
            let key: Vec<&str> = row.key.iter().map(|part| part.as_deref().unwrap_or("-")).collect();
            let cell = format!("knobs.{name}[{}]", key.join(", "));
            // Three digits: what changes behind them changes with every version, and nobody acts on it.
            let values = table.values.iter().zip(&row.values);
            all.extend(values.filter_map(|(name, value)| Some((format!("{cell}.{name}"), rounded((*value)?)))));
        }
    }
    for (path, file) in manifest.files.iter().filter(|(path, _)| *path != POLICY_FILE) {
        let digits: String = file.sha256.chars().take(12).collect();
        all.insert(format!("files.{path}"), Value::from(format!("sha256 {digits}, {} bytes", file.bytes)));
    }
    all
}

/// To three digits.
fn rounded(value: f64) -> Value {
    format!("{value:.2e}").parse::<f64>().map_or(Value::Null, Value::from)
}

/// Every leaf of a JSON value by its path. Items of a list are called by their model or field if all have one of their
/// own, so that a model that moved or vanished does not make all after it look changed.
pub(super) fn flatten(prefix: &str, value: &Value) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    let mut pending = vec![(prefix.to_owned(), value)];
    while let Some((place, value)) = pending.pop() {
        match value {
            Value::Object(fields) => {
                let dot = if place.is_empty() { "" } else { "." };
                pending.extend(fields.iter().map(|(key, field)| (format!("{place}{dot}{key}"), field)));
            }
            Value::Array(items) => {
                let labels = labels(items);
                pending.extend(labels.into_iter().zip(items).map(|(label, item)| (format!("{place}[{label}]"), item)));
            }
            Value::Null if place.is_empty() || place == prefix => {}
            leaf => {
                leaves.insert(place, leaf.clone());
            }
        }
    }
    leaves
}

fn labels(items: &[Value]) -> Vec<String> {
    let name = |item: &Value| {
        if item.is_string() { item.as_str() } else { item.get("model").or_else(|| item.get("field"))?.as_str() }
            .map(str::to_owned)
    };
    let names: Option<Vec<String>> = items.iter().map(name).collect();
    let distinct = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    names.filter(|names| distinct(names)).unwrap_or_else(|| (0..items.len()).map(|i| i.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_called_by_name_when_they_have_one() {
        let value = serde_json::json!({
            "actions": [{ "model": "b", "usd": 1 }, { "model": "a", "usd": 2 }],
            "plain": [5, 6],
            "twice": [{ "field": "x", "n": 1 }, { "field": "x", "n": 2 }],
        });
        let leaves = flatten("p", &value);
        assert_eq!(leaves["p.actions[a].usd"], 2);
        assert_eq!(leaves["p.plain[1]"], 6);
        assert_eq!(leaves["p.twice[1].n"], 2);
        assert_eq!(leaves.len(), 10);
    }

    #[test]
    fn an_absent_value_has_no_leaves() {
        assert!(flatten("metrics", &Value::Null).is_empty());
        assert!(flatten("", &Value::Null).is_empty());
    }
}
