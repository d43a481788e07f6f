"""An OpenAI-compatible HTTP server for the recipes' tests: what a provider would answer, without one.

    python openai_server.py [PORT]        # prints http://127.0.0.1:PORT/v1, serves until it is ended

Answers depend on the model's name alone, so that a test can say what it wants:
  steady        an answer with usage, cached prompt tokens and reasoning tokens
  tools         a tool call
  busy          429, with the provider's sentence about it
  broken        500
Streams when asked to, with a usage chunk when asked for one. Every text in it is invented.
"""

import itertools
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = ["The", " bridge", " opens", " at", " noon", "."]
USAGE = {
    "prompt_tokens": 1210,
    "completion_tokens": 96,
    "total_tokens": 1306,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
}
TOOL_CALL = {
    "id": "call_opening_hours",
    "type": "function",
    "function": {"name": "opening_hours", "arguments": json.dumps({"place": "bridge"})},
}
ANSWERS = itertools.count(1)
SERVED_AS = {"steady": "steady-2026-08-06", "tools": "tools-2026-08-06"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Quiet: requests hold prompts."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = body.get("model", "")
        if model == "busy":
            self.fail(429, "Rate limit reached for requests", "rate_limit_exceeded")
        elif model == "broken":
            self.fail(500, "The server had an error", "server_error")
        elif self.path.endswith("/embeddings"):
            self.answer({
                "object": "list",
                "model": model,
                "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125]}],
                "usage": {"prompt_tokens": 7, "total_tokens": 7},
            })
        elif body.get("stream"):
            self.stream(body)
        else:
            self.answer(self.completion(model))

    def completion(self, model):
        message = {"role": "assistant", "content": "".join(ANSWER), "refusal": None}
        finish = "stop"
        if model == "tools":
            message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
            finish = "tool_calls"
        return {
            "id": f"chatcmpl-invented-{next(ANSWERS)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": SERVED_AS.get(model, model),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": USAGE,
            "system_fingerprint": "fp_invented",
        }

    def stream(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head = {
            "id": f"chatcmpl-invented-{next(ANSWERS)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": SERVED_AS.get(body["model"], body["model"]),
        }
        for index, piece in enumerate(ANSWER):
            delta = {"content": piece} | ({"role": "assistant"} if index == 0 else {})
            # The first token takes its time, and the others theirs: what TTFT and TPOT are measured on.
            time.sleep(0.08 if index == 0 else 0.02)
            self.event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.event(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if body.get("stream_options", {}).get("include_usage"):
            self.event(head | {"choices": [], "usage": USAGE})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, chunk):
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()

    def fail(self, status, message, code):
        self.answer({"error": {"message": message, "type": code, "param": None, "code": code}}, status)

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("x-request-id", f"req_invented_{next(ANSWERS)}")
        self.send_header("x-ratelimit-remaining-requests", "99")
        self.end_headers()
        self.wfile.write(data)


def start(port=0):
    """The server, bound to the loopback and not yet serving, and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server, f"http://127.0.0.1:{server.server_address[1]}/v1"


if __name__ == "__main__":
    serving, address = start(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(address, flush=True)
    serving.serve_forever()
