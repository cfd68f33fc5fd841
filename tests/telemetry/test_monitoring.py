"""The dashboard and the alert rules in `monitoring/` ask for what is exposed, and for nothing else."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tidegate.telemetry.families import PREFIX, TABLE, Spec

LOG_PAGE = Path("docs/reference/log.md")
MONITORING = Path("monitoring")
DASHBOARD, RULES, RULE_TESTS = (MONITORING / name for name in ("grafana-dashboard.json", "rules.yml", "rules_test.yml"))
# A name, with what selects among its series.
SELECTOR = re.compile(r"(?<![\w:])(tidegate[_:][\w:]*)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
# What Prometheus and buckets add.
ADDED = {"job", "instance", "le"}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def exposed() -> dict[str, Spec]:
    """Every name that a scrape has, with its metric."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {PREFIX + spec.name + suffix: spec for spec in TABLE for suffix in suffixes[spec.type]}


def recorded() -> set[str]:
    """The names that the rules record."""
    return set(re.findall(r"- record: (\S+)", RULES.read_text()))


def expressions() -> list[str]:
    """What panels, variables, rules and the rules' tests ask for."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    rules = re.sub(r"(?m)^ +(?:summary|description|- record|- alert): .*$|^#.*$|^ +- name: .*$", "", RULES.read_text())
    series = re.findall(r"series: '(.*)'", RULE_TESTS.read_text())
    return [*panels, *variables, rules, *series]


def test_every_metric_that_is_asked_for_is_exposed_with_the_labels_that_it_is_selected_by() -> None:
    known, records, asked = exposed(), recorded(), set[str]()
    for expression in expressions():
        for name, selected in SELECTOR.findall(expression):
            if name in records:
                continue
            assert name in known, f"{name} in {expression}"
            labels = {*known[name].labels, *ADDED}
            assert set(MATCHER.findall(selected)) <= labels, f"{name} in {expression}"
            asked.add(known[name].name)
    assert len(asked) > len(TABLE) / 2


def test_every_label_that_is_grouped_by_is_one_of_a_metric_beside_it() -> None:
    known = exposed()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            labels = {label for name, _ in SELECTOR.findall(expression) for label in known[name].labels} | ADDED
            grouped = {label.strip() for group in GROUPING.findall(expression) for label in group.split(",")}
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert grouped | shown <= labels, expression


def test_every_metric_has_a_panel() -> None:
    text = DASHBOARD.read_text()
    shown = {spec.name for name, spec in exposed().items() if re.search(rf"{name}\W", text)}
    # By key, dollars and tokens are for who bills; the rest is told apart by what is shown.
    left_out = {"key_refusals", "key_tokens", "key_cost_usd", "ruled", "answers", "concurrency"}
    left_out |= {"kv_ship_seconds", "kv_shipped_bytes"}
    assert shown == {spec.name for spec in TABLE} - left_out


def test_panels_have_ids_of_their_own_and_stand_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for alert in RULES.read_text().split("- alert: ")[1:]:
        for told in ("severity: ", "summary: ", "description: "):
            assert told in alert, alert


def test_what_alerts_say_of_the_log_stands_on_its_page() -> None:
    named, page = re.findall(r"log's `([^`]+)`", RULES.read_text()), LOG_PAGE.read_text()
    assert named
    assert [name for name in named if f"`{name}`" not in page] == []


@pytest.mark.lengthy
@promtool
@pytest.mark.parametrize("asked", [("check", "rules", str(RULES)), ("test", "rules", str(RULE_TESTS))])
def test_prometheus_takes_the_rules_and_their_tests_pass(asked: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *asked], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
