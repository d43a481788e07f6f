"""A program as its authors instrument it: OpenAI's client with OpenTelemetry's instrumentation, and OpenTelemetry's SDK.

    python otel_calls.py PROVIDER        # PROVIDER is the address of openai_server.py, http://127.0.0.1:PORT/v1

Spans, log records and metrics go where OTEL_EXPORTER_OTLP_ENDPOINT says, by OTEL_EXPORTER_OTLP_PROTOCOL (grpc or
http/protobuf). OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT lets prompts and answers into them: true for the
conventions that hold them in events' bodies, SPAN_AND_EVENT for those of OTEL_SEMCONV_STABILITY_OPT_IN=
gen_ai_latest_experimental, which hold them in attributes. Prints the trace's id.
"""

import os
import sys
import time

import openai
from opentelemetry import _logs, metrics, trace
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

RULE = "Answer as a lighthouse keeper."
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


class Ended(SpanProcessor):
    """Remembers the span that ended last: what an evaluation is about."""

    def on_end(self, span):
        self.context = span.get_span_context()


def main(provider):
    resource = Resource.create({"service.name": "assistant", "service.namespace": "acme"})
    span_exporter, log_exporter, metric_exporter = exporters()
    ended = Ended()
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    tracers.add_span_processor(ended)
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
    meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(metric_exporter)])
    trace.set_tracer_provider(tracers)
    _logs.set_logger_provider(logs)
    metrics.set_meter_provider(meters)
    OpenAIInstrumentor().instrument()

    client = openai.OpenAI(base_url=provider, api_key="none", max_retries=0)
    with trace.get_tracer("assistant").start_as_current_span("turn") as turn:
        ask(client, "steady")
        evaluate(ended.context)
        ask(client, "steady", stream=True, stream_options={"include_usage": True})
        ask(client, "tools", tools=[{"type": "function", "function": {"name": "opening_hours", "parameters": {}}}])
        try:
            ask(client, "busy")
        except openai.RateLimitError:
            pass
    for part in (tracers, logs, meters):
        part.force_flush()
        part.shutdown()
    print(trace.format_trace_id(turn.get_span_context().trace_id))


def ask(client, model, **more):
    messages = [{"role": "system", "content": RULE}, {"role": "user", "content": QUESTION}]
    answer = client.chat.completions.create(model=model, messages=messages, **more)
    if more.get("stream"):
        for _ in answer:
            pass


def evaluate(context):
    """Says, as an evaluator does, what it thinks of a call; its explanation quotes the prompt."""
    _logs.get_logger("evaluator").emit(
        _logs.LogRecord(
            timestamp=time.time_ns(),
            context=trace.set_span_in_context(trace.NonRecordingSpan(context)),
            event_name="gen_ai.evaluation.result",
            attributes={
                "gen_ai.evaluation.name": "Relevance",
                "gen_ai.evaluation.score.value": 0.75,
                "gen_ai.evaluation.score.label": "relevant",
                "gen_ai.evaluation.explanation": f"It was asked: {QUESTION}",
            },
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
