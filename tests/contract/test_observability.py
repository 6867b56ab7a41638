"""What watches the installation: every alert is tried and reaches somebody, and what is drawn or alerted on exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.compose import CONTAINERS, ROOT, SERVICES, mounts

FOLDER = ROOT / "infra/observability"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES}
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
ALERTMANAGER = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
BOARD = json.loads((FOLDER / "grafana/dashboards/overview.json").read_text())
NAMES = {service.replace("_", "-") for service in SERVICES}

SOURCES = "".join(
    path.read_text() for folder in ("libs", "services") for path in sorted((ROOT / folder).glob("*/src/**/*.py"))
)
DECLARED = re.compile(r'= (Counter|Gauge|Histogram)\(\s*"(\w+)",\s*(?:"[^"]*"|\'[^\']*\')(?:,\s*(\[[^\]]*\]))?')
METRICS = {name: (kind, set(re.findall(r'"(\w+)"', labels))) for kind, name, labels in DECLARED.findall(SOURCES)}
"""Every metric of the source: name -> kind and labels."""

OF_TARGETS = {"service", "instance", "job"}
OWN = {"up": OF_TARGETS, "tgi_request_generated_tokens_sum": OF_TARGETS}
"""Metrics that Prometheus makes itself, and those of TGI's own, a histogram where ours counts."""


def read_by(expression: str) -> dict[str, set[str]]:
    """The metrics that an expression of PromQL reads: name -> the labels it is asked for, of the whole expression."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    labels = {name for inner in re.findall(r"\{([^}]*)\}", bare) for name in re.findall(r"(\w+)\s*(?:=|!)", inner)}
    grouped = re.findall(r"\b(?:by|without) \(([^)]*)\)", bare)
    labels |= {name.strip() for inner in grouped for name in inner.split(",")}
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on) ?\([^)]*\)|\boffset \w+", " ", bare)
    names = re.findall(r"\b([a-z]\w*)\b(?!\s*\()", bare)
    return {name: labels for name in names if name not in ("or", "and", "unless", "by", "without")}


def declared(name: str) -> set[str] | None:
    """The labels of a metric as Prometheus has it; None for one that nobody exports."""
    if name in OWN:
        return OWN[name]
    plain = re.sub(r"_(bucket|sum|count)$", "", name)
    if plain != name and METRICS.get(plain, ("",))[0] == "Histogram":
        return METRICS[plain][1] | OF_TARGETS | {"le"}
    kind, labels = METRICS.get(name, ("", set()))
    return labels | OF_TARGETS if kind in ("Counter", "Gauge") else None


EXPRESSIONS = {f"alert {name}": rule["expr"] for name, rule in ALERTS.items()} | {
    f"panel {panel['title']}": target["expr"] for panel in BOARD["panels"] for target in panel["targets"]
}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_what_is_read_is_exported(where: str) -> None:
    found = read_by(EXPRESSIONS[where])
    assert found
    exported = {name: declared(name) for name in found}
    assert [name for name, labels in exported.items() if labels is None] == [], "nobody exports these"
    known = set().union(*(labels or () for labels in exported.values()))
    assert set().union(*found.values()) - known == set(), "none of the metrics has these labels"


def test_the_reader_of_expressions_sees_a_metric_and_a_label_that_are_not_there() -> None:
    assert declared("http_requests") is None
    assert declared("http_request_seconds") is None
    assert read_by('sum by (status) (rate(nothing_total{tenant="x"}[5m])) > 0') == {
        "nothing_total": {"status", "tenant"}
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_where_and_what_to_do_in_labels_that_it_has(alert: str) -> None:
    rule = ALERTS[alert]
    summary = rule["annotations"]["summary"]
    labels = set.union(*(declared(name) or set() for name in read_by(rule["expr"])))
    grouped = re.search(r"by \(([^)]*)\)", rule["expr"])
    if grouped:
        labels = {name.strip() for name in grouped[1].split(",")}
    if "absent(" in rule["expr"]:
        labels = {"service", "job"}
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= labels
    assert len(summary) > 60


@pytest.fixture
def promtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Prometheus' own checker."""
    return _tool("promtool")


@pytest.fixture
def amtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Alertmanager's own checker."""
    return _tool("amtool")


def _tool(name: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; Debian has it in prometheus and prometheus-alertmanager")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([found, *arguments], capture_output=True, text=True, check=False, timeout=60)

    return run


def test_every_alert_is_tried_before_and_after() -> None:
    tried = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    assert [group["name"] for group in tried] == list(ALERTS)
    for group in tried:
        before, after = group["promql_expr_test"]
        for looked in (before, after):
            assert looked["expr"] == f'count(ALERTS{{alertname="{group["name"]}",alertstate="firing"}})'
        assert (before["exp_samples"], after["exp_samples"]) == ([], [{"labels": "{}", "value": 1}])


def test_the_alerts_go_off_when_they_should_and_not_before(promtool: Any) -> None:
    done = promtool("test", "rules", str(FOLDER / "alerts_test.yml"), str(FOLDER / "alerts_edges_test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("expression", "looked"), [("vector(0) > 1", 1), ("vector(1)", 0)])
def test_the_trial_notices_an_alert_that_never_goes_off_or_always_does(
    promtool: Any, tmp_path: Path, expression: str, looked: int
) -> None:
    broken = [{"alert": name, "expr": expression} for name in ALERTS]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "sartor", "rules": broken}]}))
    trial = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())
    for group in trial["tests"]:
        group["promql_expr_test"] = [group["promql_expr_test"][looked]]
    (tmp_path / "trial.yml").write_text(yaml.safe_dump(trial))
    done = promtool("test", "rules", str(tmp_path / "trial.yml"))
    failed = set(re.findall(r'alertname=\\?"(\w+)', done.stdout + done.stderr))
    assert (done.returncode != 0, failed) == (True, set(ALERTS))


def test_prometheus_takes_its_configuration(promtool: Any, tmp_path: Path) -> None:
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    text = (FOLDER / "prometheus.yml").read_text().replace("/etc/prometheus/", f"{tmp_path}/")
    (tmp_path / "prometheus.yml").write_text(text)
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def checked_configuration(folder: Path) -> str:
    """Alertmanager's configuration with an address in place of its file, which checkers before 0.26 do not know."""
    text = (FOLDER / "alertmanager.yml").read_text()
    replaced = re.sub(r"url_file: \S+", "url: http://receiver.test/alerts", text)
    assert replaced != text
    (folder / "alertmanager.yml").write_text(replaced)
    return str(folder / "alertmanager.yml")


def test_alertmanager_takes_its_configuration(amtool: Any, tmp_path: Path) -> None:
    done = amtool("check-config", checked_configuration(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 receivers" in done.stdout


def test_every_alert_reaches_the_webhook(amtool: Any, tmp_path: Path) -> None:
    path = checked_configuration(tmp_path)
    for alert in ALERTS:
        done = amtool("config", "routes", "test", f"--config.file={path}", f"alertname={alert}", "service=ingest")
        assert done.stdout.strip() == "webhook", (alert, done.stdout, done.stderr)


def test_a_replica_that_is_down_silences_its_own_alerts_only() -> None:
    equal = {rule["source_matchers"][0]: rule["equal"] for rule in ALERTMANAGER["inhibit_rules"]}
    assert equal == {
        'alertname="ServiceMissing"': ["service"],
        'alertname=~"ServiceDown|EngineDown"': ["service", "instance"],
    }


def test_prometheus_learns_that_a_name_is_gone() -> None:
    """On an inner network alone Docker's resolver fails for unknown names, and the last targets stay for ever."""
    assert set(CONTAINERS["prometheus"]["networks"]) == {"inner", "outer"}


def test_alerts_leave_prometheus_for_an_address_that_is_a_secret() -> None:
    [targets] = [one["static_configs"][0]["targets"] for one in PROMETHEUS["alerting"]["alertmanagers"]]
    assert targets == ["alertmanager:9093"]
    assert CONTAINERS["alertmanager"]["profiles"] == CONTAINERS["prometheus"]["profiles"] == ["observability"]
    [receiver] = ALERTMANAGER["receivers"]
    [webhook] = receiver["webhook_configs"]
    assert webhook["url_file"] == "/run/secrets/alert_webhook_url"
    assert CONTAINERS["alertmanager"]["secrets"] == ["alert_webhook_url"]
    assert "outer" in CONTAINERS["alertmanager"]["networks"], "the receiver is elsewhere"


def test_every_replica_of_every_service_is_scraped() -> None:
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    asked = {}
    for name, job in jobs.items():
        [discovery] = job["dns_sd_configs"]  # all addresses of a name: all replicas
        assert discovery["type"] == "A"
        assert "static_configs" not in job
        assert job["relabel_configs"] == [{"source_labels": ["__meta_dns_name"], "target_label": "service"}]
        asked[name] = (set(discovery["names"]), discovery["port"])
    port = int(CONTAINERS["serving-agent"]["environment"]["SARTOR_TGI_PORT"])
    assert asked == {"sartor": (NAMES, 8000), "tgi": ({"tgi"}, port)}
    assert CONTAINERS["serving-agent"]["networks"] == {"inner": {"aliases": ["tgi"]}}
    dockerfile = (ROOT / "infra/docker/service.Dockerfile").read_text()
    assert "SARTOR_SERVICE_PORT=8000" in dockerfile


def test_a_service_without_a_replica_is_missed() -> None:
    assert set(re.findall(r'service="([^"]+)"', ALERTS["ServiceMissing"]["expr"])) == NAMES


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    grafana = CONTAINERS["grafana"]
    targets = mounts(grafana)
    assert targets["/etc/grafana/provisioning"] == "./infra/observability/grafana/provisioning"
    provisioning = FOLDER / "grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    [provider] = yaml.safe_load((provisioning / "dashboards/sartor.yml").read_text())["providers"]
    assert targets[provider["options"]["path"]] == "./infra/observability/grafana/dashboards"
    used = {panel["datasource"]["uid"] for panel in BOARD["panels"]}
    used |= {target["datasource"]["uid"] for panel in BOARD["panels"] for target in panel["targets"]}
    assert used == {source["uid"]}


def test_the_dashboard_shows_what_is_asked_first() -> None:
    drawn = {name for panel in BOARD["panels"] for target in panel["targets"] for name in read_by(target["expr"])}
    assert drawn >= {
        "up",
        "consumer_lag",
        "outbox_oldest_seconds",
        "waiting_oldest_seconds",
        "http_request_seconds_bucket",
        "tgi_request_generated_tokens_total",
    }
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(set(places)) == len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
