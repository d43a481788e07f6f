"""The programs that are compared: how each is started, where its table lies, and when it is done."""

import dataclasses
import json
import os
import pathlib
import subprocess
from typing import Callable, Optional

HERE = pathlib.Path(__file__).resolve().parent

# What all of them aim at: a commit every so many rows, or after so long.
ROWS_PER_COMMIT = 100_000
COMMIT_S = 10


@dataclasses.dataclass
class Place:
    """Where one run happens: a folder of its own, and what every contestant is told."""

    brokers: str
    topic: str
    folder: pathlib.Path
    schema_file: pathlib.Path
    # Names this run in Kafka.
    run: str

    @property
    def table(self):
        return self.folder / "table"


@dataclasses.dataclass
class Contestant:
    name: str
    what: str
    command: Callable[[Place], list]
    environment: Callable[[Place], dict] = lambda place: {}
    table: Callable[[Place], pathlib.Path] = lambda place: place.table
    # Called before the clock starts.
    prepare: Callable[[Place], None] = lambda place: None
    # A program that never ends by itself is stopped when its table holds every row.
    ends_itself: bool = True
    skipped: Optional[str] = None


def weir(bench):
    return Contestant(
        "weir",
        "Weir's ingest, release build, commits of 100,000 rows",
        lambda place: [bench, "ingest-alone", place.brokers, place.topic, place.folder],
        table=lambda place: place.folder / "data" / "tables" / "requests",
    )


def spark(cache):
    # Two threads, as the machine has cores; a heap that it does not fill; few partitions for the table's own state,
    # which by default is shuffled into 50; Parquet as the others write it.
    settings = {
        "spark.jars": ",".join(map(str, sorted((cache / "spark-jars").glob("*.jar")))),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.parquet.compression.codec": "snappy",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
    }
    conf = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    return Contestant(
        "spark",
        f"Spark Structured Streaming {version(cache, 'spark', 'pyspark')} with Delta, local[2], 4 GiB heap, "
        "availableNow, 100,000 rows a batch",
        lambda place: [
            cache / "spark" / "bin" / "spark-submit",
            *["--master", "local[2]", "--driver-memory", "4g", *conf],
            HERE / "spark_job.py",
            *[place.brokers, place.topic, place.table, place.folder / "checkpoint"],
            *[place.schema_file, str(ROWS_PER_COMMIT)],
        ],
        environment=lambda place: {
            "PYSPARK_PYTHON": str(cache / "spark" / "bin" / "python"),
            "SPARK_LOCAL_IP": "127.0.0.1",
        },
        skipped=missing(cache, "spark"),
    )


def bytewax(cache):
    python = cache / "bytewax" / "bin" / "python"

    def prepare(place):
        table_py(cache, "create", place.table, place.schema_file)
        (place.folder / "recovery").mkdir()
        subprocess.run([python, "-m", "bytewax.recovery", place.folder / "recovery", "1"], check=True)

    return Contestant(
        "bytewax",
        f"Bytewax {version(cache, 'bytewax', 'bytewax')} with deltalake {version(cache, 'bytewax', 'deltalake')} for the "
        "table, one worker, orjson, at least once",
        lambda place: [
            *[python, "-m", "bytewax.run", "bytewax_job:flow", "--workers-per-process", "1"],
            *["--recovery-directory", place.folder / "recovery"],
            *["--snapshot-interval", str(COMMIT_S), "--backup-interval", "0"],
        ],
        environment=lambda place: {
            "PYTHONPATH": str(HERE),
            "PEER_BROKERS": place.brokers,
            "PEER_TOPIC": place.topic,
            "PEER_TABLE": str(place.table),
            "PEER_ROWS_PER_COMMIT": str(ROWS_PER_COMMIT),
        },
        prepare=prepare,
        skipped=missing(cache, "bytewax"),
    )


def kafka_delta_ingest(cache):
    variable = "KAFKA_DELTA_INGEST_BIN"
    program = os.environ.get(variable, "")
    skipped = None
    if not program:
        skipped = f"{variable} does not name the program kafka-delta-ingest"
    elif not os.access(program, os.X_OK):
        skipped = f"{variable} is {program}, which cannot be run"
    return Contestant(
        "kafka-delta-ingest",
        f"kafka-delta-ingest, {ROWS_PER_COMMIT:,} messages a batch, {COMMIT_S} s of latency allowed",
        lambda place: [
            *[program, "ingest", place.topic, place.table, "--kafka", place.brokers],
            *["--consumer_group", place.run, "--app_id", place.run, "--auto_offset_reset", "earliest"],
            *["--allowed_latency", str(COMMIT_S), "--max_messages_per_batch", str(ROWS_PER_COMMIT)],
            *["--min_bytes_per_file", str(64 << 20), "--checkpoints"],
        ],
        prepare=lambda place: table_py(cache, "create", place.table, place.schema_file),
        ends_itself=False,
        skipped=skipped,
    )


def all_of(bench, cache):
    everyone = [weir(bench), spark(cache), bytewax(cache), kafka_delta_ingest(cache)]
    return {contestant.name: contestant for contestant in everyone}


def table_py(cache, *arguments):
    """Runs table.py in the environment that can read Delta; what it printed."""
    program = [cache / "reader" / "bin" / "python", HERE / "table.py"]
    return subprocess.run([*program, *arguments], check=True, capture_output=True, text=True).stdout


def rows_in_log(table):
    """Rows of the files that a Delta log names, by the log alone."""
    rows = 0
    for entry in sorted((table / "_delta_log").glob("*.json")):
        for line in entry.read_text(encoding="utf-8").splitlines():
            added = json.loads(line).get("add")
            if added:
                rows += json.loads(added["stats"])["numRecords"]
    return rows


def missing(cache, name):
    reason = cache / f"{name}.missing"
    return reason.read_text(encoding="utf-8").strip() if reason.exists() else None


def version(cache, environment, package):
    found = list((cache / environment).glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found[0].name.removeprefix(f"{package}-").removesuffix(".dist-info") if found else "(not installed)"
