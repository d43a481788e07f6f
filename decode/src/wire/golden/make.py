"""Makes avro.json and protobuf.json: messages as Confluent's Python serializers write them, and what they hold.

    python3 -m venv v && v/bin/pip install 'confluent-kafka[avro,protobuf,schemaregistry]' grpcio-tools
    v/bin/python make.py

The registry is the one in memory that comes with the package; ids, framing and values are the serializers' own, GUIDs
new each time. What a
Protobuf message holds is what Google's Python library reads of its bytes, also where they are bytes that it would not
write itself: messages written one behind the other, which Protobuf merges.
"""

import base64

import datetime
import decimal
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile

from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import json_format

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

SHARED_PROTO = """syntax = "proto3";
package example;
message Candidate {
  string model = 1;
  optional double propensity = 2;
}
"""
PROTO = """syntax = "proto3";
package example;
import "shared.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
message First { string unused = 1; }
message Outer {
  map<string, int32> counted_among_the_types = 1;
  message Request {
    enum Tier {
      option allow_alias = true;
      FREE = 0;
      PAID = 1;
      BOUGHT = 1;
      BEFORE = -1;
    }
    string request_id = 1;
    google.protobuf.Timestamp arrival_ms = 2;
    optional int32 prompt_tokens = 3;
    int64 completion_tokens = 4;
    google.protobuf.Duration duration_ms = 5;
    google.protobuf.DoubleValue cost_usd = 6;
    Tier tier = 7;
    repeated string tags = 8;
    map<string, double> scores = 9;
    repeated Candidate candidates = 10;
    google.protobuf.Struct beside = 11;
    bytes raw = 12;
    bool stream = 13;
    fixed64 large = 14;
    repeated sint32 deltas = 15;
    oneof outcome {
      string answer = 16;
      Candidate second = 17;
      int32 status = 18;
    }
    map<sint64, Candidate> by_number = 19;
    map<bool, Tier> by_flag = 20;
    uint64 largest = 100;
    sfixed32 small = 101;
    float share = 102;
    google.protobuf.ListValue list = 103;
    google.protobuf.Value any = 104;
    Request inner = 105;
    repeated Tier tiers = 106;
    google.protobuf.StringValue note = 107;
  }
}
"""
NEWER_PROTO = PROTO.replace("package example;", "package example.newer;").replace(
    "    string request_id = 1;",
    "    string request_id = 1;\n    string added = 50;\n    repeated fixed32 more = 51;\n    Candidate deep = 52;"
    "\n    double real = 53;")
OLD_PROTO = """syntax = "proto2";
package old;
message Old {
  required string request_id = 1;
  optional int32 tokens = 2 [default = 7];
  repeated int32 loose = 3;
  repeated int32 tight = 4 [packed = true];
  optional group Route = 5 {
    optional string model = 6;
    repeated group Hop = 7 { optional int32 ms = 8; }
  }
  optional bytes raw = 9 [default = "x"];
}
"""


def framed(serializer, topic, value):
    return serializer(value, SerializationContext(topic, MessageField.VALUE)).hex()


def framed_by_header(serializer, topic, value):
    """The header that names the schema, and the message behind it."""
    headers = {}
    payload = serializer(value, SerializationContext(topic, MessageField.VALUE, headers))
    return (headers["__value_schema_id"] + payload).hex()


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
    by_header = AvroSerializer(client, text, conf={"schema.id.serializer": header_schema_id_serializer})
    sent, row = AVRO_ROWS[0]
    messages.append({"hex": framed_by_header(by_header, "requests", sent), "row": row})
    number, references = registered(client, "requests-value")
    write("avro.json", {str(number): {"text": text, "references": references}}, messages)


def json_of(value, field):
    if field.type == field.TYPE_ENUM:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    if field.type == field.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return row_of(value) if field.type in (field.TYPE_MESSAGE, field.TYPE_GROUP) else value


def row_of(message):
    """What a message stands for, by Google's own reflection."""
    kind = message.DESCRIPTOR.full_name
    if kind == "google.protobuf.Timestamp":
        return message.ToMilliseconds()
    if kind == "google.protobuf.Duration":
        return message.ToMicroseconds() / 1000
    if kind in ("google.protobuf.Struct", "google.protobuf.ListValue", "google.protobuf.Value"):
        return json_format.MessageToDict(message)
    if kind.startswith("google.protobuf.") and kind.endswith("Value"):
        return message.value
    row = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            of = field.message_type.fields_by_name["value"]
            text = lambda key: str(key).lower() if isinstance(key, bool) else str(key)
            row[field.name] = {text(key): json_of(value[key], of) for key in value}
        elif field.is_repeated:
            row[field.name] = [json_of(element, field) for element in value]
        elif not field.has_presence or message.HasField(field.name):
            row[field.name] = json_of(value, field)
    return row


def protobuf():
    with tempfile.TemporaryDirectory() as folder:
        files = {"shared.proto": SHARED_PROTO, "requests.proto": PROTO, "newer.proto": NEWER_PROTO, "old.proto": OLD_PROTO}
        for name, text in files.items():
            pathlib.Path(folder, name).write_text(text)
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={folder}", *files], check=True)
        sys.path.insert(0, folder)
        requests, newer, old = (importlib.import_module(name) for name in ("requests_pb2", "newer_pb2", "old_pb2"))
    Request = requests.Outer.Request

    full = Request(
        request_id="a \"quoted\" \u00e9", prompt_tokens=0, completion_tokens=34, tier=1, tags=["x", ""],
        scores={"math": 0.25, "": -1.0}, raw=b"\x00\xff", stream=True, large=1 << 40, deltas=[-1, 2], answer="")
    full.arrival_ms.FromMilliseconds(AT_MS)
    full.duration_ms.FromMicroseconds(1500)
    full.cost_usd.value = 0.5
    full.candidates.add(model="m", propensity=0.5)
    full.candidates.add(model="n")
    full.beside.update({"a": [1, None, "x"], "b": {"c": True}})

    extremes = Request(
        request_id="b", prompt_tokens=-2147483648, completion_tokens=-9223372036854775808, tier=-1,
        largest=18446744073709551615, large=18446744073709551615, small=-2147483648, share=0.1,
        deltas=[2147483647, -2147483648], by_flag={True: 1, False: 5}, tiers=[0, 1, 99, -1])
    extremes.by_number[-9223372036854775808].model = "least"
    extremes.by_number[7].propensity = 0.125
    extremes.arrival_ms.FromMilliseconds(-1)
    extremes.duration_ms.FromMicroseconds(-1)
    extremes.cost_usd.SetInParent()
    extremes.note.value = "n"
    extremes.list.extend([1, "x", None, [True]])
    extremes.any.null_value = 0
    extremes.inner.inner.request_id = "in"

    later = Request(
        request_id="later", tags=["z"], scores={"math": 0.75, "code": 1.0}, deltas=[3], by_number={7: {"model": "seven"}})
    later.second.model = "s"
    later.inner.inner.tags.append("merged")
    later.any.string_value = "set"
    again = Request(request_id="again")
    again.second.propensity = 0.5
    merged = full.SerializeToString() + extremes.SerializeToString() + later.SerializeToString() + again.SerializeToString()
    other = Request(request_id="other", status=0).SerializeToString()

    unknown = newer.Outer.Request(request_id="u", added="later", more=[1, 2], real=1.5, completion_tokens=3)
    unknown.deep.model = "unknown"

    ancient = old.Old(request_id="o", loose=[1, -2], tight=[3, -4])
    ancient.route.model = "m"
    ancient.route.hop.add(ms=1)
    ancient.route.hop.add()
    bare = old.Old(request_id="p")

    client = SchemaRegistryClient.new_client({"url": "mock://"})
    options = {"use.deprecated.format": False}
    nested = ProtobufSerializer(Request, client, options)
    frame = bytes.fromhex(framed(nested, "requests", Request()))

    def read(kind, payload):
        message = kind()
        message.ParseFromString(payload)
        return row_of(message)

    messages = [{"hex": framed(nested, "requests", sent), "row": row_of(sent)} for sent in (full, Request(), extremes)]
    first = requests.First(unused="u")
    messages.append({
        "hex": framed(ProtobufSerializer(requests.First, client, options), "requests", first), "row": row_of(first)})
    for payload in (merged, merged + other, other + again.SerializeToString(), unknown.SerializeToString()):
        messages.append({"hex": (frame + payload).hex(), "row": read(Request, payload)})
    by_header = ProtobufSerializer(Request, client, {**options, "schema.id.serializer": header_schema_id_serializer})
    messages.append({"hex": framed_by_header(by_header, "requests", full), "row": row_of(full)})
    number, _ = registered(client, "requests-value")
    schemas = {str(number): {"text": PROTO, "references": [["shared.proto", SHARED_PROTO]]}}

    for sent in (ancient, bare):
        framed_old = framed(ProtobufSerializer(old.Old, client, options), "old", sent)
        messages.append({"hex": framed_old, "row": row_of(sent)})
    # Numbers that lie apart where the schema says together, and the other way round.
    swapped = old.Old(request_id="s").SerializeToString() + bytes([0x1A, 2, 5, 6, 0x20, 7, 0x20, 8])
    messages.append({"hex": framed_old[:12] + swapped.hex(), "row": read(old.Old, swapped)})
    number, _ = registered(client, "old-value")
    schemas[str(number)] = {"text": OLD_PROTO, "references": []}

    # What the serializer itself registers is the compiled file, in base64.
    compiled = {
        name: base64.b64encode(importlib.import_module(name + "_pb2").DESCRIPTOR.serialized_pb).decode()
        for name in ("requests", "shared")}
    assert client.get_latest_version("requests-value").schema.schema_str == compiled["requests"]
    schemas["9"] = {"text": compiled["requests"], "references": [["shared.proto", compiled["shared"]]]}
    nine = frame[:1] + (9).to_bytes(4, "big") + frame[5:] + full.SerializeToString()
    messages.append({"hex": nine.hex(), "row": row_of(full)})
    write("protobuf.json", schemas, messages)


avro()
protobuf()
