"""Makes avro.json: messages as Confluent's Python serializer writes them, and what they hold.

    python3 -m venv v && v/bin/pip install 'confluent-kafka[avro,schemaregistry]'
    v/bin/python make.py

The registry is the one in memory that comes with the package; ids, framing and values are the serializer's own.
"""

import datetime
import decimal
import json
import pathlib

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

HERE = pathlib.Path(__file__).parent
AT_MS = 1_700_000_000_123
AT = datetime.datetime.fromtimestamp(AT_MS / 1000, datetime.timezone.utc)

AVRO = {
    "type": "record", "name": "Request", "namespace": "com.example", "fields": [
        {"name": "request_id", "type": "string"},
        {"name": "arrival_ms", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "prompt_tokens", "type": ["null", "int"], "default": None},
        {"name": "cost_usd", "type": [
            "null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 6}], "default": None},
        {"name": "balance", "type": {
            "type": "fixed", "name": "Money", "size": 4, "logicalType": "decimal", "precision": 8, "scale": 2}},
        {"name": "duration_ms", "type": ["null", "float"], "default": None},
        {"name": "stream", "type": "boolean"},
        {"name": "tier", "type": {"type": "enum", "name": "Tier", "symbols": ["FREE", "PAID"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "scores", "type": {"type": "map", "values": "double"}},
        {"name": "candidates", "type": {"type": "array", "items": {
            "type": "record", "name": "Candidate", "fields": [
                {"name": "model", "type": "string"}, {"name": "propensity", "type": ["null", "double"]}]}}},
        {"name": "second", "type": ["null", "Candidate"]},
        {"name": "raw", "type": {"type": "fixed", "name": "Two", "size": 2}},
    ],
}
AVRO_ROWS = [
    ({"request_id": "a \"quoted\" \u00e9", "arrival_ms": AT, "prompt_tokens": 12, "cost_usd": decimal.Decimal("0.012345"),
      "balance": decimal.Decimal("-3.50"),
      "duration_ms": 1.5, "stream": True, "tier": "PAID", "tags": ["x", ""], "scores": {"math": 0.25},
      "candidates": [{"model": "m", "propensity": 0.5}, {"model": "n", "propensity": 0.5}],
      "second": {"model": "s", "propensity": None}, "raw": b"\x00\xff"},
     {"request_id": "a \"quoted\" \u00e9", "arrival_ms": AT_MS, "prompt_tokens": 12, "cost_usd": 0.012345, "balance": -3.5,
      "duration_ms": 1.5, "stream": True, "tier": "PAID", "tags": ["x", ""], "scores": {"math": 0.25},
      "candidates": [{"model": "m", "propensity": 0.5}, {"model": "n", "propensity": 0.5}],
      "second": {"model": "s", "propensity": None}, "raw": "AP8="}),
    ({"request_id": "", "arrival_ms": AT, "prompt_tokens": -2147483648, "cost_usd": None, "balance": decimal.Decimal(0), "duration_ms": None,
      "stream": False, "tier": "FREE", "tags": [], "scores": {}, "candidates": [], "second": None, "raw": b"ab"},
     {"request_id": "", "arrival_ms": AT_MS, "prompt_tokens": -2147483648, "cost_usd": None, "balance": 0.0, "duration_ms": None,
      "stream": False, "tier": "FREE", "tags": [], "scores": {}, "candidates": [], "second": None, "raw": "YWI="}),
]


def framed(serializer, topic, value):
    return serializer(value, SerializationContext(topic, MessageField.VALUE)).hex()


def registered(client, subject):
    found = client.get_latest_version(subject)
    references = [
        [reference.name, client.get_version(reference.subject, reference.version).schema.schema_str]
        for reference in found.schema.references or []
    ]
    return found.schema_id, references


def write(name, schemas, messages):
    text = json.dumps({"schemas": schemas, "messages": messages}, indent=1, ensure_ascii=True)
    (HERE / name).write_text(text + "\n")


def avro():
    client = SchemaRegistryClient.new_client({"url": "mock://"})
    text = json.dumps(AVRO)
    serializer = AvroSerializer(client, text)
    messages = [{"hex": framed(serializer, "requests", sent), "row": row} for sent, row in AVRO_ROWS]
    number, references = registered(client, "requests-value")
    write("avro.json", {str(number): {"text": text, "references": references}}, messages)


avro()
