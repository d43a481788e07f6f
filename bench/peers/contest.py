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
    chosen = [everyone[name] for name in arguments.contestants]
    for contestant in chosen:
        if contestant.skipped:
            print(f"skipped: {contestant.name} ({contestant.skipped})", flush=True)
    taking_part = [contestant for contestant in chosen if not contestant.skipped]
    results = {contestant.name: Result(contestant) for contestant in taking_part}

    for contestant in taking_part:
        results[contestant.name].start = one_run(arguments, contestant, short, schema_file, "start")
    for round_number in range(arguments.rounds):
        # Forth and back, so that whatever drifts during the runs falls on all of them alike.
        order = taking_part if round_number % 2 == 0 else taking_part[::-1]
        for contestant in order:
            run = one_run(arguments, contestant, topic, schema_file, f"round-{round_number + 1}")
            results[contestant.name].runs.append(run)

    summary = {
        "events": topic["events"],
        "partitions": topic["partitions"],
        "bytes_per_event": round(topic["bytes"] / topic["events"]),
        "rounds": arguments.rounds,
    }
    for contestant in chosen:
        key = contestant.name.replace("-", "_")
        result = results.get(contestant.name)
        summary[key] = result.summary(results.get("weir")) if result else {"skipped": contestant.skipped}
    print(json.dumps(summary))
    wrong = [result.contestant.name for result in results.values() if not result.is_whole()]
    if "weir" in wrong:
        sys.exit("weir's table does not hold every event once")


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
        self.contestant, self.start, self.runs = contestant, None, []

    def is_whole(self):
        return all(run.is_whole() for run in self.runs)

    def without_start(self):
        return [run.per_cpu_s_without(self.start) for run in self.runs]

    def summary(self, weir):
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
        if weir and weir is not self:
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
        tail = log_path.read_text(encoding="utf-8", errors="replace")[-3000:]
        sys.exit(f"{tail}\n{run} ended with code {used.code}; the end of what it printed is above")
    found = json.loads(contestants.table_py(arguments.cache, "read", table))
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
