"""Sends what LiteLLM knows of each call to Kafka, for Weir's format `adapter:litellm`.

In the proxy, beside config.yaml:      litellm_settings: {callbacks: ["weir_callback.weir"]}
In a program that uses the library:    litellm.callbacks = [weir_callback.weir]

A message is LiteLLM's StandardLoggingPayload as JSON, keyed by the session. The call that it describes waits for
nothing: the payload is put into a bounded queue and a thread does the rest. When Kafka is away for longer than the queue
lasts, payloads are dropped and counted, and a warning says how many.

Prompts, answers, tool arguments, error texts, addresses and headers stay here: only the fields listed below leave. Set
WEIR_KEEP_TEXT=1 to send the payload whole, but for `metadata.weir`, which is held to names and numbers all the same.

Environment:
  WEIR_KAFKA_BROKERS     host:port, comma separated; without it nothing is sent, and a warning says so
  WEIR_KAFKA_TOPIC       default: litellm
  WEIR_KAFKA_CONFIG      a JSON file of librdkafka's settings: TLS, SASL, compression
  WEIR_QUEUE_PAYLOADS    how many may wait; default 10000, about 3 kB each
  WEIR_KEEP_TEXT         1: keep prompts and answers
  WEIR_DRAWS             1: believe what callers say of their draws; without it `metadata.weir` stays here
  WEIR_METADATA_KEYS     keys of the caller's own metadata to keep, comma separated, beside `weir`

A caller that draws the model before the call says so in the call's metadata, and the next policy can be judged:
  {"model": decision["model"], "messages": [...], "metadata": {"weir": {"context": ..., "decision": decision}}}
where `decision` is what `weir decide` answered and `context` what it was asked with. Any holder of a key can claim a
draw, so that it takes WEIR_DRAWS=1: for proxies whose callers are one's own. A decision that contradicts itself is left
out, and so is that of a failed attempt.

Needs confluent-kafka. Tested with LiteLLM 1.110 and confluent-kafka 2.16.
"""

import atexit
import json
import logging
import os
import queue
import re
import signal
import threading
import time

from litellm.integrations.custom_logger import CustomLogger

log = logging.getLogger("weir_callback")

# What leaves, by name. A field that a later LiteLLM adds stays until someone has looked at it.
FIELDS = frozenset(
    "id trace_id session_id litellm_call_id call_type stream status status_fields custom_llm_provider startTime endTime "
    "completionStartTime response_time model model_id model_group api_base cache_hit saved_cache_cost response_cost "
    "cost_breakdown autorouter_savings total_tokens prompt_tokens completion_tokens request_tags end_user".split()
)
METADATA = frozenset(
    "user_api_key_hash user_api_key_alias user_api_key_org_id user_api_key_team_id user_api_key_team_alias "
    "user_api_key_project_id user_api_key_user_id user_api_key_end_user_id user_api_key_request_route applied_guardrails "
    "usage_object".split()
)
ROUTING = frozenset(
    "router_model_name router_type routed_model cause tier request_type score classifier_model classifier_cost "
    "classifier_confidence classifier_probabilities escalated context_escalated conversation_continuing".split()
)
ERROR = frozenset("error_code error_class llm_provider error_rate_limit_category error_rate_limit_type".split())
HIDDEN = frozenset("model_id litellm_model_name litellm_overhead_time_ms upstream_provider".split())
HEADERS = frozenset("x-litellm-attempted-retries x-litellm-attempted-fallbacks x-litellm-model-group".split())
PARAMETERS = frozenset(
    "temperature top_p n stream max_tokens max_completion_tokens seed reasoning_effort parallel_tool_calls "
    "service_tier user".split()
)

# Names of models, policies, subjects and languages; a sentence is none. `word(text)` of Weir's adapters is narrower. An action may be
# more than a model: MODEL;provider=PROVIDER;reasoning=MODE.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/:.@+;=-]{0,127}")
CANDIDATES_MAX = 1024
# Probabilities that differ by less are the same. Weir's door bears a little more, so that it refuses nothing sent from here.
TOLERANCE = 1e-6

IDLE_S = 1.0
WARN_EVERY_S = 60.0


def with_text(payload, believes_draws=False):
    """The payload whole, but for the draw, which becomes columns that hold no text."""
    metadata = payload.get("metadata") or {}
    callers = metadata.get("requester_metadata")
    own = {name: one for name, one in callers.items() if name != "weir"} if isinstance(callers, dict) else {}
    if drawn := drawn_by_caller(payload, believes_draws):
        own["weir"] = drawn
    return {**payload, "metadata": {**metadata, "requester_metadata": own or None}}


def without_text(payload, metadata_keys=frozenset(), believes_draws=False):
    """The payload with the listed fields only: numbers, names and ids; nothing that a person wrote."""
    kept = pick(payload, FIELDS)
    metadata = payload.get("metadata") or {}
    kept["metadata"] = pick(metadata, METADATA)
    if metadata.get("routing_decision"):
        kept["metadata"]["routing_decision"] = pick(metadata["routing_decision"], ROUTING)
    callers = metadata.get("requester_metadata")
    own = pick(callers, metadata_keys - {"weir"}) if isinstance(callers, dict) else {}
    if drawn := drawn_by_caller(payload, believes_draws):
        own["weir"] = drawn
    if own:
        kept["metadata"]["requester_metadata"] = own
    hidden = payload.get("hidden_params") or {}
    kept["hidden_params"] = pick(hidden, HIDDEN)
    kept["hidden_params"]["additional_headers"] = pick(hidden.get("additional_headers") or {}, HEADERS)
    kept["error_information"] = pick(payload.get("error_information") or {}, ERROR)
    parameters = payload.get("model_parameters") or {}
    kept["model_parameters"] = pick(parameters, PARAMETERS)
    # Which tools were offered is a list of names; their descriptions and schemas are not sent.
    tools = [name for tool in parameters.get("tools") or [] if (name := tool_name(tool))]
    if tools:
        kept["model_parameters"]["tools"] = [{"type": "function", "function": {"name": name}} for name in tools]
    response = payload.get("response")
    if isinstance(response, dict):
        kept["response"] = outline(response)
    if isinstance(payload.get("messages"), list):
        # How many there were and who spoke, so that turns can be counted.
        kept["messages"] = [pick(message, {"role"}) for message in payload["messages"] if isinstance(message, dict)]
    return kept


def drawn_by_caller(payload, believes_draws):
    """What is believed of the caller's `metadata.weir`. Each attempt of a call brings the same, and nobody knows of one that
    failed whether another follows: the decision goes with the attempt that succeeded, so that one draw counts once."""
    callers = (payload.get("metadata") or {}).get("requester_metadata")
    if not believes_draws or not isinstance(callers, dict):
        return {}
    drawn = draw(callers.get("weir"))
    if payload.get("status") != "success":
        drawn.pop("decision", None)
    return drawn


def draw(weir):
    """Of what the caller says of its draw: names and numbers, each of its own type, or Weir would refuse the whole call.
    An embedding stays, since it tells what was asked."""
    if not isinstance(weir, dict):
        return {}
    kept = {}
    if isinstance(context := weir.get("context"), dict):
        fits = {"domain": is_name, "complexity": is_name, "language": is_name, "turn": is_count, "fact_check": is_truth}
        if context := {name: context[name] for name in fits if name in context and fits[name](context[name])}:
            kept["context"] = context
    if decided := decision_of(weir.get("decision")):
        kept["decision"] = decided
    return kept


def decision_of(decision):
    """The decision, or None where a part of it has another form or two parts disagree: half a draw is none."""
    if not isinstance(decision, dict):
        return None
    model, propensity, policy = (decision.get(name) for name in ("model", "propensity", "policy_id"))
    if not is_name(model) or not (policy is None or is_name(policy)):
        return None
    if not (propensity is None or is_probability(propensity) and propensity > 0):
        return None
    kept = {"model": model, "propensity": propensity, "policy_id": policy}
    candidates = decision.get("candidates")
    if candidates is None:
        return kept
    if not isinstance(candidates, list) or len(candidates) > CANDIDATES_MAX:
        return None
    chances = {}
    for candidate in candidates:
        if not isinstance(candidate, dict) or not is_name(name := candidate.get("model")) or name in chances:
            return None
        chances[name] = candidate.get("propensity")
    known = [chance for chance in chances.values() if chance is not None]
    if not all(map(is_probability, known)) or sum(known) > 1 + TOLERANCE:
        return None
    chosen = chances.get(model)
    if chosen is not None and propensity is not None and abs(chosen - propensity) > TOLERANCE:
        return None
    kept["candidates"] = [{"model": name, "propensity": chance} for name, chance in chances.items()]
    return kept


def is_name(value):
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def is_probability(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def is_truth(value):
    return isinstance(value, bool)


def outline(response):
    """Of an answer: the model that gave it, the tokens, how it ended, and which tools it called."""
    kept = pick(response, {"id", "model", "object", "created", "usage"})
    kept["choices"] = []
    for choice in response.get("choices") or []:
        if not isinstance(choice, dict):
            continue
        message = choice.get("message") if isinstance(choice.get("message"), dict) else {}
        called = [name for call in message.get("tool_calls") or [] if (name := tool_name(call))]
        kept["choices"].append({
            "index": choice.get("index"),
            "finish_reason": choice.get("finish_reason"),
            "message": {"tool_calls": [{"type": "function", "function": {"name": name}} for name in called]},
        })
    return kept


def tool_name(tool):
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def pick(value, names):
    return {name: value[name] for name in value if name in names}


class WeirCallback(CustomLogger):
    """Puts payloads into a bounded queue; a thread of its own sends them."""

    def __init__(self):
        super().__init__()
        self.brokers = os.environ.get("WEIR_KAFKA_BROKERS", "")
        self.topic = os.environ.get("WEIR_KAFKA_TOPIC", "litellm")
        self.keep_text = os.environ.get("WEIR_KEEP_TEXT") == "1"
        self.believes_draws = os.environ.get("WEIR_DRAWS") == "1"
        self.metadata_keys = frozenset(filter(None, os.environ.get("WEIR_METADATA_KEYS", "").split(",")))
        self.waiting = queue.Queue(maxsize=int(os.environ.get("WEIR_QUEUE_PAYLOADS", "10000")))
        self.lock = threading.Lock()
        self.thread = None
        self.closing = threading.Event()
        self.ending = threading.Event()
        # Each is written by one place only: `received` and `dropped` under the lock, the others by the thread.
        self.received = self.dropped = self.sent = self.failed = 0
        self.warned_at = float("-inf")
        if not self.brokers:
            log.warning("WEIR_KAFKA_BROKERS is not set: calls are not sent to Weir")

    # LiteLLM awaits the first two for calls of its asynchronous interface, and calls the others for the rest.
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.take(kwargs)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.take(kwargs)

    def log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.take(kwargs)

    def log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.take(kwargs)

    def take(self, kwargs):
        """Never waits and never raises: the call has been answered, and its answer must not depend on us."""
        payload = kwargs.get("standard_logging_object")
        if payload is None or not self.brokers:
            return
        with self.lock:
            self.received += 1
            # Not in __init__: a server forks its workers after it has read the configuration, and threads stay behind.
            if self.thread is None:
                self.thread = threading.Thread(target=self.run, name="weir-callback", daemon=True)
                self.thread.start()
                atexit.register(self.close)
                self.hear_termination()
            try:
                # LiteLLM hands the same object to every logger, so what is kept is copied now.
                self.waiting.put_nowait(self.encode(payload))
            except queue.Full:
                self.dropped += 1
            except Exception as error:  # noqa: BLE001 parts of a payload are whatever its caller sent
                self.dropped += 1
                log.warning("a payload cannot be written as JSON: %s", type(error).__name__)
        if self.ending.is_set():
            # The process may be killed as soon as this call is answered: the one time that a call waits for us.
            self.flush(1.0)

    def hear_termination(self):
        """Sends what waits on SIGTERM. The proxy's server ends by that signal after its own clean-up, without `atexit`."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)

        def terminate(number, frame):
            self.ending.set()
            self.flush(10.0)
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        signal.signal(signal.SIGTERM, terminate)

    def flush(self, timeout_s):
        """Waits until every payload so far is sent or given up, for at most so long. Takes no lock: a signal may have come
        while it is held."""
        give_up = time.monotonic() + timeout_s
        while self.sent + self.failed + self.dropped < self.received and time.monotonic() < give_up:
            time.sleep(0.01)

    def encode(self, payload):
        if self.keep_text:
            kept = with_text(payload, self.believes_draws)
        else:
            kept = without_text(payload, self.metadata_keys, self.believes_draws)
        key = payload.get("session_id") or payload.get("trace_id") or ""
        return key, json.dumps(kept, default=str, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")

    def run(self):
        producer = self.connect()
        while producer and not (self.closing.is_set() and self.waiting.empty()):
            try:
                hurries = self.closing.is_set() or self.ending.is_set()
                key, value = self.waiting.get(timeout=0.1 if hurries else IDLE_S)
            except queue.Empty:
                producer.poll(0)
            else:
                self.produce(producer, key, value)
            self.warn()
        if producer:
            producer.flush(10)

    def connect(self):
        try:
            from confluent_kafka import Producer

            settings = {
                "bootstrap.servers": self.brokers,
                "client.id": "weir-litellm",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 50,
                # The queue above is the one that is bounded; this one holds what is on its way.
                "queue.buffering.max.messages": 1000,
            }
            if path := os.environ.get("WEIR_KAFKA_CONFIG"):
                with open(path, encoding="utf-8") as file:
                    settings |= json.load(file)
            return Producer(settings)
        except Exception as error:  # noqa: BLE001 the thread's end: whatever it is, it is said once and calls go on
            log.error("cannot produce to Kafka, calls are not sent to Weir: %s", error)
            self.brokers = ""
            return None

    def produce(self, producer, key, value):
        while True:
            try:
                producer.produce(self.topic, value, key=key, on_delivery=self.delivered)
                producer.poll(0)
                return
            except BufferError:  # Kafka is away or slow: wait here, and let the queue fill
                producer.poll(0.1)
                self.warn()

    def delivered(self, error, _message):
        if error is None:
            self.sent += 1
        else:
            self.failed += 1
            log.debug("not delivered: %s", error)

    def warn(self):
        lost = self.dropped + self.failed
        if lost and time.monotonic() - self.warned_at > WARN_EVERY_S:
            self.warned_at = time.monotonic()
            log.warning("calls lost on the way to Weir: %d of %d (queue full: %d, not delivered: %d)",
                        lost, self.received, self.dropped, self.failed)

    def counters(self):
        """Payloads since the start: received = sent + failed + dropped + those still on their way."""
        return {"received": self.received, "sent": self.sent, "failed": self.failed, "dropped": self.dropped}

    def close(self, timeout_s=10.0):
        """Sends what waits, for at most so long; returns how many are left."""
        if self.thread and not self.closing.is_set():
            self.closing.set()
            self.thread.join(timeout_s)
        self.warn()
        return self.received - self.sent - self.failed - self.dropped


weir = WeirCallback()
