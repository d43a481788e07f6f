"""Spark Structured Streaming: a topic, to its end, into a Delta table. Run by spark-submit."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json
from pyspark.sql.types import StructType
import json

brokers, topic, table, checkpoint, schema_file, rows_per_commit = sys.argv[1:]
with open(schema_file, encoding="utf-8") as file:
    schema = StructType.fromJson(json.load(file))

spark = SparkSession.builder.getOrCreate()
messages = (
    spark.readStream.format("kafka")
    .option("kafka.bootstrap.servers", brokers)
    .option("subscribe", topic)
    .option("startingOffsets", "earliest")
    .option("maxOffsetsPerTrigger", rows_per_commit)
    .load()
)
rows = messages.select(from_json(col("value").cast("string"), schema).alias("event")).select("event.*")
# Offsets in the checkpoint and the batch's number in the Delta commit make each batch land once.
query = (
    rows.writeStream.format("delta")
    .option("checkpointLocation", checkpoint)
    .trigger(availableNow=True)
    .start(table)
)
query.awaitTermination()
spark.stop()
