#!/usr/bin/env python3
"""Checks what a dashboard's schema cannot, and writes its queries as recording rules for promtool.

A dashboard over SQL has no rules: a test of weir serve runs its queries.

usage: queries.py DASHBOARD.json [RULES.yml]
"""

import json
import re
import sys

# What Grafana puts in place of these; promtool knows PromQL only.
VARIABLES = {"$__rate_interval": "1m", "$job": ".+", "$instance": ".+"}


def main(dashboard_path, rules_path=None):
    with open(dashboard_path, encoding="utf-8") as file:
        dashboard = json.load(file)
    wrong, expressions = [], []

    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        wrong.append("two panels have one id")
    if "datasource" not in variables:
        wrong.append("there is no data source variable, so the dashboard works with one Grafana only")

    for panel in panels:
        title = panel.get("title") or f"panel {panel['id']}"
        if not panel.get("description"):
            wrong.append(f"{title}: no description")
        if not panel["fieldConfig"]["defaults"].get("unit"):
            wrong.append(f"{title}: no unit")
        if not panel.get("targets"):
            wrong.append(f"{title}: no query")
        for target in panel.get("targets", []):
            if target.get("datasource", {}).get("uid") != "${datasource}":
                wrong.append(f"{title}: a query names a data source instead of ${{datasource}}")
            if "rawSql" in target:
                wrong += [f"{title}: {what}" for what in wrong_in_sql(panel, target)]
                continue
            expression = target["expr"]
            if 'job=~"$job", instance=~"$instance"' not in expression:
                wrong.append(f"{title}: a query ignores the job and instance chosen")
            if re.search(r"\brate\(", expression) and "[$__rate_interval]" not in expression:
                wrong.append(f"{title}: a rate over a fixed window misses scrapes; use $__rate_interval")
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            if "$" in expression:
                wrong.append(f"{title}: unknown variable in {expression}")
            expressions.append(expression)
        grid = panel["gridPos"]
        if grid["x"] + grid["w"] > 24:
            wrong.append(f"{title}: wider than the page")
        for other in panels:
            if other["id"] > panel["id"] and overlap(grid, other["gridPos"]):
                wrong.append(f"{title} lies over {other['title']}")

    if rules_path is None:
        sys.exit("\n".join(wrong) or 0)
    rules = [{"record": f"dashboard:query_{number}", "expr": text} for number, text in enumerate(expressions)]
    with open(rules_path, "w", encoding="utf-8") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
    sys.exit("\n".join(wrong) or 0)


def wrong_in_sql(panel, target):
    sql = target["rawSql"]
    over_time = panel["type"] == "timeseries"
    if over_time != (target["format"] == "time_series"):
        yield "the format of the query is not the panel's"
    if over_time and not ("$__timeFilter(" in sql and " AS time," in sql):
        yield "a query over time takes the time range chosen, and names its time"
    # What the test of weir serve puts in place of these is what Grafana does.
    if "$" in sql.replace("$__timeFilter(", ""):
        yield f"unknown variable in {sql}"


def overlap(one, other):
    def apart(start, size):
        return one[start] + one[size] <= other[start] or other[start] + other[size] <= one[start]

    return not (apart("x", "w") or apart("y", "h"))


main(*sys.argv[1:])
