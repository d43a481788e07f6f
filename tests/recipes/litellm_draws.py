"""What the callback makes of payloads: reads a JSON list of {"settings": {...}, "payload": {...}} from standard input, and
writes the list of messages that deploy/recipes/litellm/weir_callback.py would send, each with these settings set."""

import json
import os
import sys

import weir_callback

sent = []
for case in json.load(sys.stdin):
    os.environ.update(case["settings"])
    _key, message = weir_callback.WeirCallback().encode(case["payload"])
    sent.append(json.loads(message))
    for name in case["settings"]:
        del os.environ[name]
print(json.dumps(sent))
