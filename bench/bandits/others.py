"""Vowpal Wabbit and MABWiser on the logs that `weir-bench bandits` wrote: what they earn, and how long they take.

usage: others.py FOLDER    reads logs.csv, test.csv and weir.json, prints a table and, in the last line, JSON
"""

import csv
import json
import sys
import time
from pathlib import Path

import numpy as np

csv.field_size_limit(1 << 24)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def floats(text):
    return np.array(text.split(), dtype=float)


class Data:
    def __init__(self, folder):
        logs, test = read(folder / "logs.csv"), read(folder / "test.csv")
        self.domains = sorted({row["domain"] for row in logs})
        self.actions = np.array([int(row["action"]) for row in logs])
        self.propensities = np.array([float(row["propensity"]) for row in logs])
        self.rewards = np.array([float(row["reward"]) for row in logs])
        self.log_rows = [(row["domain"], floats(row["embedding"])) for row in logs]
        self.test_rows = [(row["domain"], floats(row["embedding"])) for row in test]
        self.truth = np.array([floats(row["utilities"]) for row in test])
        self.arms = self.truth.shape[1]

    def value(self, choices):
        return float(self.truth[np.arange(len(choices)), choices].mean())

    def dense(self, rows):
        """One-hot domain, embedding and a 1, shape [rows, features]."""
        out = np.zeros((len(rows), len(self.domains) + len(rows[0][1]) + 1))
        place = {domain: at for at, domain in enumerate(self.domains)}
        for row, (domain, embedding) in enumerate(rows):
            if domain in place:
                out[row, place[domain]] = 1
            out[row, len(self.domains) : -1] = embedding
        out[:, -1] = 1
        return out


def vw_line(row, label=""):
    domain, embedding = row
    numbers = " ".join(f"e{at}:{x:.6g}" for at, x in enumerate(embedding) if x != 0)
    return f"{label}|d {domain.replace(' ', '_').replace(':', '_')} |e {numbers}"


def vowpal_wabbit(data, options, passes):
    from vowpalwabbit import Workspace

    logged = zip(data.log_rows, data.actions, data.rewards, data.propensities)
    lines = [vw_line(row, f"{action + 1}:{-reward:.6g}:{p:.6g} ") for row, action, reward, p in logged]
    asked = [vw_line(row) for row in data.test_rows]
    learner = Workspace(f"--cb {data.arms} {options} --quiet --random_seed 1")
    start = time.perf_counter()
    for _ in range(passes):
        for line in lines:
            learner.learn(line)
    trained = time.perf_counter()
    choices = [int(learner.predict(line)) - 1 for line in asked]
    decided = time.perf_counter()
    learner.finish()
    return choices, trained - start, decided - trained


def mabwiser(data, policy):
    from mabwiser.mab import MAB

    learner = MAB(list(range(data.arms)), policy, seed=1)
    logs, asked = data.dense(data.log_rows), data.dense(data.test_rows)
    start = time.perf_counter()
    learner.fit(data.actions, data.rewards, logs)
    trained = time.perf_counter()
    choices = learner.predict(asked)
    return list(choices), trained - start, time.perf_counter() - trained


def main():
    from mabwiser.mab import LearningPolicy

    folder = Path(sys.argv[1])
    data = Data(folder)
    contestants = {
        "Vowpal Wabbit, dr": lambda: vowpal_wabbit(data, "--cb_type dr", 4),
        "Vowpal Wabbit, dr, domain x embedding": lambda: vowpal_wabbit(data, "--cb_type dr -q de", 4),
        "Vowpal Wabbit, ips": lambda: vowpal_wabbit(data, "--cb_type ips", 4),
        "MABWiser, LinGreedy": lambda: mabwiser(data, LearningPolicy.LinGreedy(epsilon=0, l2_lambda=1)),
        "MABWiser, LinUCB (by its upper bound)": lambda: mabwiser(data, LearningPolicy.LinUCB(alpha=1, l2_lambda=1)),
        "MABWiser, LinTS (drawn)": lambda: mabwiser(data, LearningPolicy.LinTS(alpha=0.1, l2_lambda=1)),
    }
    found = json.loads((folder / "weir.json").read_text())
    for name, run in contestants.items():
        choices, train_s, decide_s = run()
        found[name] = {"value": data.value(choices), "train_s": train_s, "decide_us": decide_s * 1e6 / len(choices)}
    found["uniform"] = {"value": float(data.truth.mean())}
    found["oracle"] = {"value": float(data.truth.max(axis=1).mean())}
    print(f"{len(data.actions)} logged decisions, {len(data.truth)} test queries, {data.arms} models", file=sys.stderr)
    print("| who | value on the test queries | training, s | a decision, us |", file=sys.stderr)
    print("|---|---:|---:|---:|", file=sys.stderr)
    for name, figures in found.items():
        if isinstance(figures, dict):
            times = [f"{figures[key]:.2f}" if key in figures else "" for key in ("train_s", "decide_us")]
            print(f"| {name} | {figures['value']:.4f} | {times[0]} | {times[1]} |", file=sys.stderr)
    print(json.dumps(found))


main()
