"""Lets every contestant read one Kafka topic into a Delta table, round by round, and prints what each used.

Rates are events per CPU-second of the whole process tree. A program's start is part of a run, and weighs on short runs:
so each also reads a topic of a few events once, and the rate without that start is given beside the plain one.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

import contestants
import measured

EVENTS_FOR_THE_START = 1_000


def main():
    arguments = parsed()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    schema_file = arguments.folder / "schema.json"
    schema_file.write_text(weir_bench(arguments, "schema"), encoding="utf-8")
    topic = produce(arguments, "peers", arguments.events)
    short = produce(arguments, "peers-start", EVENTS_FOR_THE_START)

    everyone = contestants.all_of(arguments.bench, arguments.cache)
    results = {name: Result(everyone[name]) for name in arguments.contestants}
    for result in results.values():
        if result.contestant.skipped:
            print(f"skipped: {result.contestant.name} ({result.contestant.skipped})", flush=True)

    for result in taking_part(results):
        attempt(result, lambda: result.begin(one_run(arguments, result.contestant, short, schema_file, "start")))
    for number in range(arguments.rounds):
        # Forth and back, so that whatever drifts during the runs falls on all of them alike.
        for result in taking_part(results)[:: 1 if number % 2 == 0 else -1]:
            label = f"round-{number + 1}"
            attempt(result, lambda: result.add(one_run(arguments, result.contestant, topic, schema_file, label)))

    summary = {
        "events": topic["events"],
        "partitions": topic["partitions"],
        "bytes_per_event": round(topic["bytes"] / topic["events"]),
        "rounds": arguments.rounds,
    }
    for name, result in results.items():
        summary[name.replace("-", "_")] = result.summary(results.get("weir"))
    print(json.dumps(summary))
    weir = results.get("weir")
    if weir and (weir.failed or not weir.is_whole()):
        sys.exit("weir's table does not hold every event once")


class RunFailed(Exception):
    """A contestant that ended with an error, or left no table that can be read."""


def taking_part(results):
    return [result for result in results.values() if not result.contestant.skipped and not result.failed]


def attempt(result, run):
    """A contestant that fails once is out; the others go on."""
    try:
        run()
    except RunFailed as failure:
        result.failed = str(failure)
        print(f"failed: {result.contestant.name} ({failure})", flush=True)


class Run:
    """One contestant that read one topic once."""

    def __init__(self, used, table, events):
        self.used, self.table, self.events = used, table, events

    def is_whole(self):
        return self.table["rows"] == self.table["distinct"] == self.events

    def per_cpu_s(self):
        return self.events / self.used.cpu_s

    def per_cpu_s_without(self, start):
        return (self.events - start.events) / max(self.used.cpu_s - start.used.cpu_s, 1e-3)


class Result:
    """All runs of one contestant."""

    def __init__(self, contestant):
        self.contestant, self.start, self.runs, self.failed = contestant, None, [], None

    def begin(self, run):
        self.start = run

    def add(self, run):
        self.runs.append(run)

    def is_whole(self):
        return all(run.is_whole() for run in self.runs)

    def without_start(self):
        return [run.per_cpu_s_without(self.start) for run in self.runs]

    def summary(self, weir):
        if self.contestant.skipped:
            return {"skipped": self.contestant.skipped}
        if self.failed:
            return {"what": self.contestant.what, "failed": self.failed}
        summary = {
            "what": self.contestant.what,
            "events_per_cpu_s": round(statistics.median(run.per_cpu_s() for run in self.runs)),
            "events_per_cpu_s_without_start": round(statistics.median(self.without_start())),
            "start_cpu_s": round(self.start.used.cpu_s, 2),
            "events_per_wall_s": round(statistics.median(run.events / run.used.wall_s for run in self.runs)),
            "rss_mib_peak": round(max(run.used.rss_mib_peak for run in self.runs)),
            "commits": self.runs[-1].table["versions"],
            "lost": max(run.events - run.table["distinct"] for run in self.runs),
            "doubled": max(run.table["rows"] - run.table["distinct"] for run in self.runs),
        }
        if weir and weir is not self and not weir.failed:
            pairs = list(zip(weir.runs, self.runs))
            summary["ratio"] = round(statistics.median(a.per_cpu_s() / b.per_cpu_s() for a, b in pairs), 2)
            pairs = zip(weir.without_start(), self.without_start())
            summary["ratio_without_start"] = round(statistics.median(a / b for a, b in pairs), 2)
            summary["same_sums"] = all(sums(a.table) == sums(b.table) for a, b in zip(weir.runs, self.runs))
        return summary


def sums(table):
    return table["completion_tokens"], table["ttft_ms"]


def one_run(arguments, contestant, topic, schema_file, label):
    run = f"{contestant.name}-{label}"
    place = contestants.Place(arguments.brokers, topic["topic"], arguments.folder / run, schema_file, run)
    place.folder.mkdir()
    contestant.prepare(place)
    table = contestant.table(place)
    until = None if contestant.ends_itself else lambda: contestants.rows_in_log(table) >= topic["events"]
    log_path = arguments.folder / f"{run}.log"
    with open(log_path, "w", encoding="utf-8") as log:
        used = measured.run(contestant.command(place), log, contestant.environment(place), until, arguments.limit_s)
    if used.code != 0:
        print(log_path.read_text(encoding="utf-8", errors="replace")[-3000:], file=sys.stderr)
        raise RunFailed(f"code {used.code} in {label} after {used.wall_s:.0f} s")
    try:
        found = json.loads(contestants.table_py(arguments.cache, "read", table))
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        raise RunFailed(f"the table of {label} cannot be read") from error
    result = Run(used, found, topic["events"])
    print(
        f"{contestant.name:<20} {label:<8} {used.wall_s:7.1f} s {used.cpu_s:7.1f} CPU-s "
        f"{result.per_cpu_s():9.0f} events/CPU-s {used.rss_mib_peak:6.0f} MiB "
        f"{found['rows']} rows, {found['distinct']} distinct, in {found['versions']} versions",
        flush=True,
    )
    shutil.rmtree(place.folder)
    return result


def produce(arguments, topic, events):
    produced = weir_bench(arguments, "produce", arguments.brokers, topic, events, arguments.partitions)
    return {"topic": topic, **json.loads(produced)}


def weir_bench(arguments, *words):
    command = [arguments.bench, *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=pathlib.Path, required=True, help="the program weir-bench")
    parser.add_argument("--cache", type=pathlib.Path, required=True, help="what setup.sh filled")
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="for tables and logs")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--limit-s", type=int, default=3600, help="a run that takes longer is ended")
    parser.add_argument(
        "--contestants",
        type=str.split,
        default=["weir", "spark", "bytewax", "kafka-delta-ingest"],
        help="names, with blanks between",
    )
    arguments = parser.parse_args()
    if arguments.events <= EVENTS_FOR_THE_START or arguments.partitions < 1 or arguments.rounds < 1:
        parser.error(f"give more than {EVENTS_FOR_THE_START} events, and at least one partition and one round")
    known = contestants.all_of(arguments.bench, arguments.cache)
    for name in arguments.contestants:
        if name not in known:
            parser.error(f"no contestant is called {name}: choose among {', '.join(known)}")
    return arguments


if __name__ == "__main__":
    main()
