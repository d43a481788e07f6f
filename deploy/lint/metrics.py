#!/usr/bin/env python3
"""Every metric and label that the dashboard and the alert rules name must be one that the code emits."""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MACRO = re.compile(r"\b(counter|gauge|histogram)!\(\s*\"(weir_[a-z0-9_]+)\"((?:[^()]|\([^()]*\))*)\)", re.S)
LABEL = re.compile(r"\"([a-z_]+)\"\s*=>")
# Labels that several metrics of one event share: `let labels = [("topic", ...), ...];` before the macros.
SHARED = re.compile(r"let labels =\s*\[(.*?)\];", re.S)
PAIR = re.compile(r"\(\"([a-z_]+)\",")
NAME = re.compile(r"\bweir_[a-z0-9_]+\b")
GROUPED = re.compile(r"\b(?:by|on|without|ignoring) \(([a-z_, ]+)\)")
SELECTED = re.compile(r"\b(weir_[a-z0-9_]+)\{([^}]*)\}")
MATCHED = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\\?\"")
SCRAPED = {"job", "instance", "le"}  # added by Prometheus, or part of a histogram


def emitted():
    """Metric name -> labels, of every crate's source."""
    found = {}
    for path in ROOT.glob("*/src/**/*.rs"):
        text = path.read_text(encoding="utf-8")
        for macro in MACRO.finditer(text):
            kind, name, rest = macro.groups()
            labels = set(LABEL.findall(rest))
            if "&labels" in rest:
                before = SHARED.findall(text[: macro.start()])
                labels |= set(PAIR.findall(before[-1])) if before else set()
            for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
                found.setdefault(name + suffix, set()).update(labels)
    return found


def queries():
    """Every PromQL text, with where it stands."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard, {panel['title']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"dashboard, variable {variable['name']}", variable["query"]
    # One text an alert: what stands between its name and its labels.
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text(encoding="utf-8")
    for alert, text in re.findall(r"- alert: (\w+)\n(.*?)\n\s+for:", rules, re.S):
        yield f"rules.yml, {alert}", text


def main():
    known, wrong = emitted(), []
    for where, text in queries():
        names = set(NAME.findall(text))
        for name in sorted(names - known.keys()):
            wrong.append(f"{where}: no code emits {name}")
        labels = {label.strip() for group in GROUPED.findall(text) for label in group.split(",")} - SCRAPED
        for label in sorted(labels):
            lacking = sorted(name for name in names & known.keys() if label not in known[name])
            if lacking:
                wrong.append(f"{where}: {', '.join(lacking)} has no label {label}")
        for name, matchers in SELECTED.findall(text):
            for label in sorted(set(MATCHED.findall(matchers)) - SCRAPED - known.get(name, set())):
                wrong.append(f"{where}: {name} has no label {label}")
    sys.exit("\n".join(wrong) or 0)


main()
