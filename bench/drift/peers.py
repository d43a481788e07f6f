"""Detectors of river on series that Weir's monitor has judged.

    python peers.py SERIES.jsonl WEIR.json

Prints a table and, as the last line, JSON. The threshold of Page-Hinkley and the bounds of 3-sigma have a scale: every detector
gets the values less their mean, divided by their standard deviation, both taken from the first day. ADWIN and Page-Hinkley
have river's defaults. 3-sigma compares a value with the day before it, as the WRP paper proposes for its outcome tables.
"""

import json
import statistics
import sys
from collections import defaultdict, deque

from river import drift

DAY = 144
WEEK = 7 * DAY


class ThreeSigma:
    def __init__(self):
        self.day = deque(maxlen=DAY)

    def update(self, value):
        if len(self.day) == DAY:
            mean, deviation = statistics.fmean(self.day), statistics.pstdev(self.day)
            self.drift_detected = abs(value - mean) > 3 * deviation
        else:
            self.drift_detected = False
        self.day.append(value)


DETECTORS = {"ADWIN": drift.ADWIN, "Page-Hinkley": drift.PageHinkley, "3-sigma": ThreeSigma}


def alarms(detector, values):
    first = values[:DAY]
    mean, deviation = statistics.fmean(first), statistics.pstdev(first)
    for at, value in enumerate(values):
        detector.update((value - mean) / deviation)
        if detector.drift_detected:
            yield at


def rank(ordered, q):
    return ordered[max(0, -(-int(q * 1000) * len(ordered) // 1000) - 1)]


def main(series_file, weir_file):
    delays, false, seeds, weeks = defaultdict(list), defaultdict(int), defaultdict(int), defaultdict(float)
    with open(series_file) as lines:
        for line in lines:
            series = json.loads(line)
            seeds[series["kind"]] += 1
            weeks[series["kind"]] += series["change_at"] / WEEK
            for name, detector in DETECTORS.items():
                found = list(alarms(detector(), series["values"]))
                key = series["kind"], name
                false[key] += sum(at < series["change_at"] for at in found)
                after = [at - series["change_at"] + 1 for at in found if at >= series["change_at"]]
                delays[key] += after[:1]
    with open(weir_file) as file:
        result = json.load(file)
    for kind in seeds:
        for name in DETECTORS:
            ordered = sorted(delays[kind, name])
            result["detectors"].append({
                "kind": kind,
                "detector": name,
                "found_share": len(ordered) / seeds[kind],
                "delay_windows_p50": rank(ordered, 0.5) if ordered else None,
                "delay_windows_p90": rank(ordered, 0.9) if ordered else None,
                "false_alarms_per_week": false[kind, name] / weeks[kind],
            })
    print(f"{'change':34}{'detector':14}{'found':>7}{'delay p50':>11}{'p90':>6}{'false a week':>14}")
    for row in sorted(result["detectors"], key=lambda row: row["kind"]):
        p50, p90 = (row[name] if row[name] is not None else "-" for name in ("delay_windows_p50", "delay_windows_p90"))
        print(f"{row['kind']:34}{row['detector']:14}{row['found_share']:7.2f}{p50:>11}{p90:>6}"
              f"{row['false_alarms_per_week']:14.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
