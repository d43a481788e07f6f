"""OpenAI-compatible upstreams for the closed loop: models whose chance of a good answer is known, because a test says it.

    python upstreams.py PORT        # serves until it is ended

`POST /world` takes the truth, and takes the place of the one before: {"seed": n, "models": {"MODEL": {"DOMAIN/COMPLEXITY": chance}}}.
`POST /v1/chat/completions` reads the subject and the complexity from the first two words of the question and answers "right" with
the model's chance for them. The draw is a hash of seed, model and question: the same question gets the same answer in every run.

A token is a word here, so that whoever asks can count them too. Every text in it is invented.
"""

import hashlib
import itertools
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Tokens of every answer, whatever it says: what a model costs is then its price alone.
COMPLETION_TOKENS = 400
ANSWERS = itertools.count(1)
WORLD = {"seed": 0, "models": {}}


def is_right(model, question):
    domain, complexity = question.split(" ", 2)[:2]
    chance = WORLD["models"][model][f"{domain}/{complexity}"]
    digest = hashlib.sha256(f"{WORLD['seed']}\n{model}\n{question}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < chance


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in two small segments would wait for each other's acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Quiet: requests hold prompts."""

    def do_POST(self):
        global WORLD
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/world":
            WORLD = body
            self.answer({"models": sorted(WORLD["models"])})
        elif self.path == "/v1/chat/completions" and body.get("model") in WORLD["models"]:
            self.answer(completion(body["model"], body["messages"][-1]["content"]))
        else:
            self.answer({"error": {"message": "no such model", "type": "not_found", "code": "not_found"}}, 404)

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def completion(model, question):
    prompt_tokens = len(question.split())
    return {
        "id": f"chatcmpl-invented-{next(ANSWERS)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "right" if is_right(model, question) else "wrong"},
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": prompt_tokens + COMPLETION_TOKENS,
        },
    }


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    server.serve_forever()
