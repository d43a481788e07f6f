"""What a Delta table holds, read by one program whoever wrote it.

table.py create FOLDER SCHEMA   makes an empty table with that schema (Delta's JSON)
table.py read FOLDER            prints rows, distinct request ids, and sums of two columns as JSON
"""

import json
import sys

import deltalake
import pyarrow.compute as pc


def create(folder, schema):
    deltalake.DeltaTable.create(folder, schema=deltalake.Schema.from_json(schema))


def read(folder):
    table = deltalake.DeltaTable(folder)
    rows = table.to_pyarrow_dataset().to_table(columns=["request_id", "completion_tokens", "ttft_ms"])
    return {
        "rows": rows.num_rows,
        "distinct": pc.count_distinct(rows["request_id"]).as_py(),
        "completion_tokens": pc.sum(rows["completion_tokens"]).as_py(),
        "ttft_ms": pc.sum(rows["ttft_ms"]).as_py(),
        "columns": len(table.schema().fields),
        "versions": table.version() + 1,
    }


if __name__ == "__main__":
    if sys.argv[1] == "create":
        with open(sys.argv[3], encoding="utf-8") as file:
            create(sys.argv[2], file.read())
    else:
        print(json.dumps(read(sys.argv[2])))
