"""A program as its authors instrument it: OpenAI's client with OpenTelemetry's instrumentation, and OpenTelemetry's SDK.

    python otel_calls.py PROVIDER        # PROVIDER is the address of openai_server.py, http://127.0.0.1:PORT/v1

It is told to capture prompts and answers. Spans, log records and metrics go where OTEL_EXPORTER_OTLP_ENDPOINT says, by
OTEL_EXPORTER_OTLP_PROTOCOL (grpc or http/protobuf). Prints one line of JSON: the ids of the calls' spans.
"""

import json
import logging
import os
import sys

import openai
from opentelemetry import _logs, metrics, trace
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

QUESTION = "When does the bridge open?"


def exporters():
    if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    else:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter(), OTLPLogExporter(), OTLPMetricExporter()


def main(provider):
    resource = Resource.create({"service.name": "assistant", "service.namespace": "acme"})
    span_exporter, log_exporter, metric_exporter = exporters()
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(metric_exporter)])
    trace.set_tracer_provider(tracers)
    _logs.set_logger_provider(logs)
    metrics.set_meter_provider(meters)
    OpenAIInstrumentor().instrument()

    client = openai.OpenAI(base_url=provider, api_key="none", max_retries=0)
    tracer = trace.get_tracer("assistant")
    with tracer.start_as_current_span("turn") as turn:
        ask(client, "steady")
        ask(client, "steady", stream=True, stream_options={"include_usage": True})
        ask(client, "tools", tools=[{"type": "function", "function": {"name": "opening_hours", "parameters": {}}}])
        try:
            ask(client, "busy")
        except openai.RateLimitError:
            pass
    for provider in (tracers, logs, meters):
        provider.force_flush()
        provider.shutdown()
    print(json.dumps({"trace_id": trace.format_trace_id(turn.get_span_context().trace_id)}))


def ask(client, model, **more):
    messages = [{"role": "system", "content": "Answer as a lighthouse keeper."}, {"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(model=model, messages=messages, **more)
    if more.get("stream"):
        for _ in answer:
            pass


if __name__ == "__main__":
    main(sys.argv[1])
