"""Bytewax: a topic, to its end, into a Delta table that is there already. Run by `python -m bytewax.run`.

Bytewax has a Kafka source and no Delta sink; this one writes with the Python package `deltalake`. Rows are committed when
enough have come, and in every snapshot before the source's offsets are: at least once. Arguments come by environment
(brokers, topic, table, rows per commit), since the command line is Bytewax's own.
"""

import os

import bytewax.operators as op
import deltalake
import orjson
import pyarrow as pa
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

TABLE = os.environ["PEER_TABLE"]
ROWS_PER_COMMIT = int(os.environ["PEER_ROWS_PER_COMMIT"])
# Messages that one step of the dataflow carries.
MESSAGES_PER_POLL = 10_000


class DeltaPartition(StatefulSinkPartition):
    def __init__(self):
        self.table = deltalake.DeltaTable(TABLE)
        self.schema = pa.schema(self.table.schema().to_arrow())
        self.maps = [field.name for field in self.schema if pa.types.is_map(field.type)]
        self.waiting, self.rows = [], 0

    def write_batch(self, values):
        for messages in values:
            self.waiting.append(self.batch_of(messages))
            self.rows += len(messages)
        if self.rows >= ROWS_PER_COMMIT:
            self.commit()

    def batch_of(self, messages):
        events = [orjson.loads(message) for message in messages]
        for event in events:
            # Arrow takes a map as pairs.
            for name in self.maps:
                if name in event:
                    event[name] = list(event[name].items())
        return pa.RecordBatch.from_pylist(events, schema=self.schema)

    def commit(self):
        if self.rows:
            deltalake.write_deltalake(self.table, pa.Table.from_batches(self.waiting), mode="append")
            self.waiting, self.rows = [], 0

    def snapshot(self):
        self.commit()

    def close(self):
        self.commit()


class DeltaSink(FixedPartitionedSink):
    def list_parts(self):
        return ["table"]

    def build_part(self, step_id, for_part, resume_state):
        return DeltaPartition()


flow = Dataflow("peer")
source = KafkaSource([os.environ["PEER_BROKERS"]], [os.environ["PEER_TOPIC"]], tail=False, batch_size=MESSAGES_PER_POLL)
messages = op.input("messages", flow, source)
# One item for each poll: an item for each message would cost more than reading it.
polls = op.flat_map_batch("polls", messages, lambda batch: [("table", [message.value for message in batch])])
op.output("rows", polls, DeltaSink())
