"""The axes of public traces, computed from their raw files without anything of Weir.

    python axes.py DATA

DATA is the folder of public data sets. One line a figure: trace, figure, and the least and the most that it may be,
separated by tabs. Counts and sums are exact. DuckDB only reads the files; every rule is written out here, in loops, so
that it shares neither code nor an engine with the views.
"""

import sys
from collections import Counter, defaultdict
from datetime import datetime, timezone

import duckdb

START_MS = 1_700_006_400_000  # 2023-11-15 00:00:00 UTC, where a trace without a date begins
BOUNDARY_TOKENS = 8192
SKETCH_ERROR = 0.01
CELL_ERROR = 0.05
WINDOWS_S = (1, 10, 60, 600, 3600)


def read(data, file, columns, where="true"):
    names = ", ".join(f'"{name}"' for name in columns)
    return duckdb.sql(f"SELECT {names} FROM '{data}/{file}' WHERE {where}").fetchall()


def phase(prompt, completion):
    if prompt is None or completion is None or prompt + completion == 0:
        return None
    if completion == 0 or prompt / completion >= 8:
        return ("prefill_heavy", "prompt_8_to_1")
    if prompt / completion <= 1:
        return ("decode_heavy", "completion_1_to_1")
    return ("balanced", "between")


def moment(ms):
    return datetime.fromtimestamp(ms // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")


class Trace:
    """Requests of one trace: (arrival ms, prompt, completion), and where each lies."""

    def __init__(self, name):
        self.name = name
        self.calls = []
        self.places = Counter()

    def add(self, arrival_ms, prompt, completion, **axes):
        self.calls.append((arrival_ms, prompt, completion))
        for axis, place in dict(phase=phase(prompt, completion), **axes).items():
            if place is not None:
                self.places[(axis, *place)] += 1

    def line(self, figure, least, most=None):
        print(self.name, figure, repr(least), repr(least if most is None else most), sep="\t")

    def print(self, one_clock):
        self.line("requests", len(self.calls))
        for place, requests in self.places.items():
            self.line(" ".join(place), requests)
        if one_clock:
            self.print_tokens()
            self.print_shares()
            self.print_arrivals()

    def print_tokens(self):
        sums = Counter()
        for arrival_ms, prompt, completion in self.calls:
            place = phase(prompt, completion)
            if place is not None:
                hour = moment(arrival_ms // 3_600_000 * 3_600_000)
                sums[f"prompt_tokens {place[0]} {hour}"] += prompt
                sums[f"completion_tokens {place[0]} {hour}"] += completion
        for figure, tokens in sums.items():
            self.line(figure, tokens)

    def print_shares(self):
        prompts, totals = defaultdict(list), defaultdict(list)
        for arrival_ms, prompt, completion in self.calls:
            if prompt is not None:
                prompts[arrival_ms // 600_000].append(prompt)
            if prompt is not None and completion is not None:
                totals[arrival_ms // 600_000].append(prompt + completion)
        self.print_sliding("share_to_8k", prompts, SKETCH_ERROR)
        self.print_sliding("total_share_to_8k", totals, CELL_ERROR)

    def print_sliding(self, figure, slots, error):
        """A length counts surely when even its estimate is below the boundary, and possibly when that may be."""
        newest = max(arrival_ms // 600_000 for arrival_ms, _, _ in self.calls)
        ends = {slot + later for slot in slots for later in range(1, 7) if slot + later <= newest + 1}
        for end in ends:
            lengths = [length for slot in range(end - 6, end) for length in slots.get(slot, [])]
            surely = sum((1 + error) * length <= BOUNDARY_TOKENS for length in lengths)
            possibly = sum((1 - error) * length <= BOUNDARY_TOKENS for length in lengths)
            self.line(f"{figure} {moment(end * 600_000)}", surely / len(lengths), possibly / len(lengths))

    def print_arrivals(self):
        seconds = [arrival_ms // 1000 for arrival_ms, _, _ in self.calls]
        first, last = min(seconds), max(seconds)
        for window_s in WINDOWS_S:
            begin, end = -(-first // window_s), (last + 1) // window_s
            windows = end - begin
            if windows <= 0:
                continue
            counts = Counter(second // window_s for second in seconds if begin <= second // window_s < end)
            self.line(f"windows {window_s}", windows)
            self.line(f"most {window_s}", max(counts.values(), default=0))
            mean = sum(counts.values()) / windows
            if windows >= 2 and mean > 0:
                # The mean of squares less the square of the mean, where the views add squared deviations.
                squares = sum(count * count for count in counts.values())
                dispersion = (squares - windows * mean * mean) / (windows - 1) / mean
                self.line(f"dispersion {window_s}", dispersion * (1 - 1e-6), dispersion * (1 + 1e-6))


def azure(data):
    for name, file in (("Azure 2023 code", "code"), ("Azure 2023 conversation", "conv")):
        trace = Trace(name)
        columns = ("ts_unix_ns", "context_tokens", "generated_tokens")
        for at_ns, prompt, completion in read(data, f"azure_llm_2023/{file}.parquet", columns):
            trace.add(at_ns // 1_000_000, prompt, completion)
        trace.print(one_clock=True)


def mooncake(data):
    for file in ("conversation", "synthetic"):
        trace = Trace(f"Mooncake {file}")
        rows = read(data, f"mooncake_fast25/{file}.parquet", ("timestamp_ms", "input_length", "output_length"))
        begin = min(row[0] for row in rows)
        for at_ms, prompt, completion in rows:
            trace.add(START_MS + at_ms - begin, prompt, completion)
        trace.print(one_clock=True)


def claude_code(data):
    trace = Trace("Claude Code sessions")
    columns = ("t_s", "seq", "input_tokens", "output_tokens", "output_types", "stop")
    for t_s, seq, prompt, completion, kinds, stop in read(data, "agentic_coding_sessions/requests.parquet", columns):
        trace.add(
            START_MS + int(t_s * 1000),
            prompt,
            completion,
            chat_agent=("agent", "ended_for_tools") if stop == "tool_use" else None,
            turns=("multi", "later_turn") if seq > 0 else ("single", "first_turn"),
            reasoning=("on", "mode_on") if "thinking" in kinds.split(",") else None,
        )
    trace.print(one_clock=False)


def tau(data):
    trace = Trace("tau-bench agents")
    columns = ("sim_id", "i", "t_unix_s", "prompt_tokens", "completion_tokens")
    seen = set()
    for sim, _, t_s, prompt, completion in sorted(
        read(data, "tau_agent_trajectories/llm_calls.parquet", columns, "role = 'assistant'"), key=lambda row: row[:2]
    ):
        turns = ("multi", "later_turn") if sim in seen else ("single", "first_turn")
        seen.add(sim)
        trace.add(int(t_s * 1000), prompt, completion, turns=turns)
    trace.print(one_clock=False)


def aider(data):
    trace = Trace("aider messages")
    columns = ("user", "session", "time_unix_s", "prompt_tokens", "completion_tokens")
    rows = read(data, "aider_usage_events/events.parquet", columns, "event = 'message_send'")
    began = {}
    for user, session, at_s, _, _ in rows:
        began[user, session] = min(at_s, began.get((user, session), at_s))
    for user, session, at_s, prompt, completion in rows:
        later = at_s > began[user, session]
        turns = ("multi", "earlier_in_session") if later else None
        trace.add(at_s * 1000, prompt, completion, turns=turns)
    trace.print(one_clock=True)


if __name__ == "__main__":
    for loader in (azure, mooncake, claude_code, tau, aider):
        loader(sys.argv[1])
