"""Calls through the real LiteLLM, against the server in openai_server.py: one of each kind that its payload tells apart.

    python litellm_traffic.py payloads FILE     # every StandardLoggingPayload as LiteLLM hands it out, one JSON a line
    python litellm_traffic.py kafka             # the same calls with deploy/recipes/litellm/weir_callback.py in place

The last line of output is JSON: the calls made, and with `kafka` what the callback sent and dropped.
"""

import asyncio
import json
import os
import re
import sys
import threading
from pathlib import Path

import openai_server

# Prices and windows from the package itself: nothing is looked up outside.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402
import openai  # noqa: E402
from litellm.integrations.custom_logger import CustomLogger  # noqa: E402

QUESTION = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "When does the bridge open?"},
]
TOOLS = [{
    "type": "function",
    "function": {
        "name": "opening_hours",
        "description": "Hours of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}]


class Payloads(CustomLogger):
    """Keeps what LiteLLM hands to every logger."""

    def __init__(self):
        super().__init__()
        self.seen = []

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append(kwargs["standard_logging_object"])

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append(kwargs["standard_logging_object"])

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append(kwargs["standard_logging_object"])

    def log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.seen.append(kwargs["standard_logging_object"])


def deployment(name, model, address, price=None):
    params = {"model": f"openai/{model}", "api_base": address, "api_key": "none", "max_retries": 0}
    return {"model_name": name, "litellm_params": params | (price or {}), "model_info": {"id": f"{model}-a"}}


def router(address):
    price = {"input_cost_per_token": 2.5e-7, "output_cost_per_token": 2e-6, "cache_read_input_token_cost": 2.5e-8}
    return litellm.Router(
        model_list=[
            deployment("answers", "steady", address, price),
            deployment("agents", "tools", address, price),
            deployment("crowded", "busy", address),
            deployment("faulty", "broken", address),
        ],
        fallbacks=[{"crowded": ["answers"]}],
        num_retries=0,
    )


async def traffic(address):
    """Makes the calls; returns the names of what was called, in order."""
    litellm.cache = litellm.Cache(type="local")
    calls = router(address)
    made = []

    async def call(name, awaitable):
        made.append(name)
        try:
            answer = await awaitable
            if hasattr(answer, "__aiter__"):
                async for _ in answer:
                    pass
        except openai.APIError as error:  # the root of LiteLLM's exceptions too
            made[-1] = f"{name}: {type(error).__name__}"
        # Success is logged by a worker of LiteLLM's: one after the other keeps the order of the file.
        await asyncio.sleep(0.3)

    session = {"session_id": "session-1", "trace_id": "trace-1"}
    await call("answer", calls.acompletion(
        model="answers", messages=QUESTION, user="caller-1", temperature=0.2, max_tokens=200,
        metadata=session | {"tags": ["docs", "internal"], "generation_name": "bridge", "tenant": "team-a"},
        caching=False))
    await call("streamed", calls.acompletion(
        model="answers", messages=QUESTION, stream=True, stream_options={"include_usage": True},
        metadata=session | {"trace_id": "trace-2"}, caching=False))
    await call("streamed without usage", calls.acompletion(
        model="answers", messages=QUESTION, stream=True, caching=False))
    await call("tool call", calls.acompletion(
        model="agents", messages=QUESTION, tools=TOOLS, litellm_session_id="session-2", caching=False))
    await call("cache: first", calls.acompletion(model="answers", messages=QUESTION, caching=True))
    await call("cache: hit", calls.acompletion(model="answers", messages=QUESTION, caching=True))
    await call("fallback", calls.acompletion(
        model="crowded", messages=QUESTION, metadata=session | {"trace_id": "trace-3"}, caching=False))
    await call("failure", calls.acompletion(model="faulty", messages=QUESTION, user="caller-2", caching=False))
    await call("embedding", litellm.aembedding(
        model="openai/small", input=["When does the bridge open?"], api_base=address, api_key="none"))
    await call("no router", litellm.acompletion(
        model="openai/gpt-4o-mini", messages=QUESTION, api_base=address, api_key="none", caching=False))
    await call("unknown price", litellm.acompletion(
        model="openai/unlisted", messages=QUESTION, api_base=address, api_key="none", caching=False))
    await call("mock", litellm.acompletion(
        model="gpt-4o-mini", messages=QUESTION, mock_response="It opens at noon.", caching=False))
    return made


def plain(index, payload):
    """A payload as JSON. Two things are not as they came: the folder of this Python, which LiteLLM quotes in a
    traceback, is taken out; and the entry of its price list, 7 kB of mostly nulls, stands only in the first one."""
    value = payload
    if index > 0:
        value = payload | {"model_map_information": payload["model_map_information"] | {"model_map_value": None}}
    text = json.dumps(value, default=str, ensure_ascii=False)
    return re.sub(r"/[^\s\"]*?/(?=litellm/|site-packages/|asyncio/|concurrent/)", "", text)


def main():
    mode = sys.argv[1]
    server, address = openai_server.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if mode == "payloads":
        payloads = Payloads()
        litellm.callbacks = [payloads]
        made = asyncio.run(traffic(address))
        Path(sys.argv[2]).write_text("".join(plain(*seen) + "\n" for seen in enumerate(payloads.seen)), encoding="utf-8")
        print(json.dumps({"litellm": version(), "calls": made, "payloads": len(payloads.seen)}))
    elif mode == "kafka":
        import weir_callback
        litellm.callbacks = [weir_callback.weir]
        made = asyncio.run(traffic(address))
        left = weir_callback.weir.close(timeout_s=5)
        print(json.dumps({"litellm": version(), "calls": made, "left": left, **weir_callback.weir.counters()}))
    else:
        sys.exit(f"litellm_traffic.py: {mode} is neither payloads nor kafka")
    server.shutdown()


def version():
    from importlib.metadata import version as of
    return of("litellm")


if __name__ == "__main__":
    main()
