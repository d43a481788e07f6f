"""Spans of model calls as OpenTelemetry's own instrumentation of the OpenAI client makes them.

    python genai_spans.py URL     # exports to an OTLP receiver over HTTP, prints the trace ids in the order of the calls

The calls go to openai_server.py: an answer, a tool call, a stream, and one that fails. Contents are captured, so that a
test can see that they are dropped on the way.
"""

import json
import os
import sys
import threading

import openai_server

os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "true"
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"

from openai import APIError, OpenAI  # noqa: E402
from opentelemetry import trace  # noqa: E402
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: E402
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402

QUESTION = [{"role": "user", "content": "When does the bridge open?"}]
CALLS = [{"model": "steady", "max_tokens": 200}, {"model": "tools"}, {"model": "steady", "stream": True},
         {"model": "broken"}]


def main():
    provider = TracerProvider(resource=Resource.create({"service.name": "answers", "service.namespace": "team-a"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{sys.argv[1]}/v1/traces")))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument()
    server, address = openai_server.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = OpenAI(base_url=address, api_key="none", max_retries=0)
    traces = []
    for call in CALLS:
        with trace.get_tracer("recipe").start_as_current_span("turn") as span:
            span.set_attribute("gen_ai.conversation.id", "session-1")
            traces.append(f"{span.get_span_context().trace_id:032x}")
            try:
                answer = client.chat.completions.create(messages=QUESTION, **call)
                if call.get("stream"):
                    for _ in answer:
                        pass
            except APIError as error:
                span.set_attribute("error.type", type(error).__name__)
    provider.shutdown()
    server.shutdown()
    print(json.dumps(traces))


if __name__ == "__main__":
    main()
