//! `ingest` fills the raw tables and `features` may have to make one before ingest does; neither knows the other, so the
//! columns are written down in both. They must be the same columns.

use weir_schemas::contracts;

#[test]
fn ingest_and_features_agree_on_the_columns_of_every_raw_table() {
    for contract in contracts() {
        let (filled, read) = (weir_ingest::raw_table_spec(contract).schema, weir_features::raw_schema(contract));
        assert_eq!(filled, read, "raw table {}", contract.name);
    }
}
