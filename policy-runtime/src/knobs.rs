//! Tables for knobs beside the choice of a model: what a router may set from outcomes, with the evidence for each cell.
//!
//! A table is a file `knobs/NAME.json` of a bundle: signed, versioned and delivered with it. It is parsed once; a look-up
//! then allocates nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, canonical_json};
use crate::error::BundleError;

/// Version of the shape that this build writes, and the newest that it reads.
pub const KNOB_SCHEMA: u32 = 1;
/// Rows of a table at most.
pub const MAX_KNOB_ROWS: usize = 2_000;
/// Where a bundle keeps its tables.
const FOLDER: &str = "knobs/";

/// What a router does with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// It reads the table and acts by it.
    Enforced,
    /// A person, or a plugin of theirs, carries the figures into its configuration.
    Advisory,
    /// It has nothing that could be set from the table.
    Unsupported,
}

/// A table, as a bundle holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnobTable {
    /// Version of this shape: [`KNOB_SCHEMA`].
    pub schema: u32,
    /// What it says, in a sentence.
    pub about: String,
    /// What each router does with it, by the router's name.
    pub routers: BTreeMap<String, Support>,
    /// Arrival of the oldest and the newest request that it is about, ms since the Unix epoch.
    pub from_ms: i64,
    /// See `from_ms`.
    pub to_ms: i64,
    /// Names of the parts of a key.
    pub keys: Vec<String>,
    /// Names of the values.
    pub values: Vec<String>,
    /// In order of their keys, each key once.
    pub rows: Vec<KnobRow>,
    /// Rows that were left out, those with the least evidence first, so that the table keeps to [`MAX_KNOB_ROWS`].
    pub left_out: usize,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnobRow {
    /// One part for each of the table's keys; null where the requests did not say.
    pub key: Vec<Option<String>>,
    /// One for each of the table's values; null where nobody can tell.
    pub values: Vec<Option<f64>>,
    /// Requests, sessions or verdicts that it rests on.
    pub evidence: u64,
}

impl KnobTable {
    /// Leaves out what is too much, and brings the rows into order.
    ///
    /// # Errors
    /// When a row does not fit the names, or a key is there twice.
    pub fn finished(mut self) -> Result<Self, BundleError> {
        let compare = |a: &KnobRow, b: &KnobRow| b.evidence.cmp(&a.evidence).then_with(|| a.key.cmp(&b.key));
        self.rows.sort_by(compare);
        self.left_out += self.rows.len().saturating_sub(MAX_KNOB_ROWS);
        self.rows.truncate(MAX_KNOB_ROWS);
        self.rows.sort_by(|a, b| a.key.cmp(&b.key));
        self.checked("a knob table")
    }

    fn checked(self, path: &str) -> Result<Self, BundleError> {
        let bad = |why: &str| BundleError::BadKnobTable { path: path.to_owned(), why: why.to_owned() };
        if self.schema > KNOB_SCHEMA {
            return Err(bad("it is of a newer schema than this build reads"));
        }
        if self.rows.len() > MAX_KNOB_ROWS {
            return Err(bad("it has too many rows"));
        }
        let fits = |row: &KnobRow| row.key.len() == self.keys.len() && row.values.len() == self.values.len();
        if !self.rows.iter().all(fits) {
            return Err(bad("a row has not as many keys or values as the table has names"));
        }
        if !self.rows.is_sorted_by(|a, b| a.key < b.key) {
            return Err(bad("its rows are not in the order of their keys, each once"));
        }
        Ok(self)
    }

    /// Reads a table, and checks its shape.
    ///
    /// # Errors
    /// When it cannot be parsed, is of a newer schema or not in order. `path` is named in the error.
    pub fn from_json(path: &str, bytes: &[u8]) -> Result<Self, BundleError> {
        let table: Self = serde_json::from_slice(bytes)
            .map_err(|error| BundleError::BadKnobTable { path: path.to_owned(), why: error.to_string() })?;
        table.checked(path)
    }

    /// Canonical JSON: the same table gives the same bytes.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_value(self).map(|value| canonical_json(&value))
    }

    /// The place of a value's name in [`KnobRow::values`].
    #[must_use]
    pub fn value(&self, name: &str) -> Option<usize> {
        self.values.iter().position(|value| value == name)
    }

    /// The cell of a key. Allocates nothing.
    #[must_use]
    pub fn get(&self, key: &[Option<&str>]) -> Option<&KnobRow> {
        let compare = |row: &KnobRow| -> Ordering { row.key.iter().map(Option::as_deref).cmp(key.iter().copied()) };
        self.rows.binary_search_by(compare).ok().map(|at| &self.rows[at])
    }
}

/// Path of a table in a bundle.
#[must_use]
pub fn knob_path(name: &str) -> String {
    format!("{FOLDER}{name}.json")
}

/// The tables of a bundle by name. Files in `knobs/` that are of another shape are left out.
#[must_use]
pub fn knob_tables(bundle: &Bundle) -> BTreeMap<&str, KnobTable> {
    let named = bundle.files.iter().filter_map(|(path, bytes)| {
        let name = path.strip_prefix(FOLDER)?.strip_suffix(".json")?;
        Some((name, KnobTable::from_json(path, bytes).ok()?))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(key: &[Option<&str>], value: f64, evidence: u64) -> KnobRow {
        KnobRow { key: key.iter().map(|part| part.map(str::to_owned)).collect(), values: vec![Some(value)], evidence }
    }

    fn table(rows: Vec<KnobRow>) -> KnobTable {
        KnobTable {
            schema: KNOB_SCHEMA,
            about: "rates".to_owned(),
            routers: BTreeMap::from([("r".to_owned(), Support::Advisory)]),
            from_ms: 0,
            to_ms: 1,
            keys: vec!["model".to_owned(), "domain".to_owned()],
            values: vec!["rate".to_owned()],
            rows,
            left_out: 0,
        }
    }

    #[test]
    fn a_cell_is_found_by_its_key_and_no_domain_is_a_key_too() {
        let cells = vec![
            row(&[Some("b"), None], 0.2, 5),
            row(&[Some("a"), Some("law")], 0.1, 9),
            row(&[Some("b"), Some("law")], 0.3, 1),
        ];
        let table = table(cells).finished().unwrap();
        let read = KnobTable::from_json("knobs/x.json", &table.to_json().unwrap()).unwrap();
        assert_eq!(read, table);
        let rate = |key: &[Option<&str>]| read.get(key).and_then(|row| row.values[read.value("rate").unwrap()]);
        assert_eq!(rate(&[Some("a"), Some("law")]), Some(0.1));
        assert_eq!(rate(&[Some("b"), None]), Some(0.2));
        assert_eq!(rate(&[Some("a"), None]), None);
        assert_eq!(rate(&[Some("a")]), None);
    }

    #[test]
    fn what_rests_on_the_least_is_left_out_first() {
        let names: Vec<String> = (0..MAX_KNOB_ROWS + 3).map(|n| format!("m{n:05}")).collect();
        let rows = names.iter().zip(0..).map(|(name, evidence)| row(&[Some(name), None], 0.5, evidence)).collect();
        let table = table(rows).finished().unwrap();
        assert_eq!((table.rows.len(), table.left_out), (MAX_KNOB_ROWS, 3));
        assert!(table.get(&[Some("m00002"), None]).is_none() && table.get(&[Some("m00003"), None]).is_some());
    }

    #[test]
    fn rows_that_do_not_fit_and_keys_that_are_there_twice_are_refused() {
        assert!(table(vec![row(&[Some("a")], 0.1, 1)]).finished().unwrap_err().to_string().contains("as many keys"));
        let twice = vec![row(&[Some("a"), None], 0.1, 1), row(&[Some("a"), None], 0.2, 2)];
        assert!(table(twice).finished().unwrap_err().to_string().contains("each once"));
        let mut newer = serde_json::to_value(table(Vec::new())).unwrap();
        newer["schema"] = 2.into();
        assert!(
            KnobTable::from_json("knobs/x.json", newer.to_string().as_bytes())
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(KnobTable::from_json("knobs/x.json", &bytes));
        }

        #[test]
        fn every_cell_is_found(keys in prop::collection::btree_set((prop::option::of("[a-c]{0,2}"), prop::option::of("[a-c]{0,2}")), 0..20)) {
            let rows = keys.iter().map(|(a, b)| row(&[a.as_deref(), b.as_deref()], 0.5, 1)).collect();
            let table = table(rows).finished().unwrap();
            for (a, b) in &keys {
                prop_assert!(table.get(&[a.as_deref(), b.as_deref()]).is_some());
            }
        }
    }
}
