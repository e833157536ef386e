"""A real Prometheus, and what we wrote for it, on a Pilotfish that works."""

import argparse
import concurrent.futures
import contextlib
import functools
import json
import math
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import servers
from servers import free_ports, get, running

PATIENCE = 30
# Seconds of traffic before anything is asked: expressions look back upon ten.
TRAFFIC = 12
SCRAPE = "1s"
# Families that only a process with discovery by Kubernetes has: engines are listed
# here, so what is written for those is looked at by its grammar alone.
UNDER_KUBERNETES = "pilotfish_discovery_"
# What a page of the reference router's names brings with it.
COMPLAINTS = [
    re.compile(r"^vllm:\S+ metric names should not contain ':'$"),
    re.compile(r"^vllm:\S+ non-counter metrics should not have \"_total\" suffix$"),
]


eventually = functools.partial(servers.eventually, within=PATIENCE)


def chat(port, fault=None, **body):
    """One request, and what the simulated engine is to do to it; its status."""
    body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "x" * 400}]} | body
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"} | ({"x-sim-fault": fault} if fault else {}))
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def client(port, done):
    """Streams and whole answers, one after the other; now and then one for nobody, or one that fails."""
    statuses = set()
    for turn in range(1_000_000):
        if done.is_set():
            return statuses
        if turn % 8 == 7:
            statuses.add(chat(port, model="nobody's"))
        if turn % 16 == 11:
            statuses.add(chat(port, fault="status=500"))
        more = {"stream_options": {"include_usage": True}} if turn % 2 else {}
        statuses.add(chat(port, stream=bool(turn % 2), **more))


def promtool(tools, *words, page=None):
    command = [str(tools / "promtool"), *map(str, words)]
    return subprocess.run(command, input=page, capture_output=True, text=True, timeout=PATIENCE)


def check_page(tools, page):
    said = promtool(tools, "check", "metrics", page=page)
    lines = (said.stdout + said.stderr).splitlines()
    # It exits with 3 when it has anything to say of style.
    assert said.returncode in (0, 3), said
    others = [line for line in lines if not any(one.match(line) for one in COMPLAINTS)]
    assert not others, "\n".join(others)
    print(f"promtool check metrics: {len(page) >> 10} KiB; nothing but {len(lines)} of the reference's names: ok")


def check_rules(tools, folder):
    for words in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"],
                  ["check", "config", "prometheus.yaml"]):
        said = promtool(tools, *words[:2], folder / words[2])
        assert said.returncode == 0, said.stdout + said.stderr
        print(f"promtool {' '.join(words)}: ok")


class Prometheus:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, path, **query):
        try:
            _, answer = get(f"{self.base}{path}?{urllib.parse.urlencode(query)}")
        except urllib.error.HTTPError as error:
            answer = error.read().decode()
        answer = json.loads(answer)
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]

    def results(self, expression):
        """The labels and numbers of an expression's result; what is no number counts as none."""
        data = self.ask("query", query=expression)
        series = [{"metric": {}, "value": data["value"]}] if data["resultType"] == "scalar" else data["result"]
        results = [(one["metric"], float(one["value"][1])) for one in series]
        return [(labels, value) for labels, value in results if not math.isnan(value)]

    def values(self, expression):
        return [value for _, value in self.results(expression)]

    def are_up(self):
        """Pilotfish, and Prometheus itself."""
        targets = self.ask("targets")["activeTargets"]
        return [target["health"] for target in targets] == ["up", "up"]


def expressions(dashboard):
    """Every expression of the dashboard."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for note in dashboard["annotations"]["list"]:
        yield note["name"], note["expr"]


def replaced(expression, variables):
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, expression
    return expression


def chosen(prometheus, dashboard):
    """What Grafana puts in for each variable when All is chosen."""
    variables = {"__rate_interval": "10s"}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        found = prometheus.ask("series", **{"match[]": replaced(selector, variables)})
        values = {series[label] for series in found if label in series}
        assert values, variable["name"]
        # Once for the expression, once for the string that it is in.
        escaped = (re.escape(value).replace("\\", "\\\\") for value in sorted(values))
        variables[variable["name"]] = variable.get("allValue", "|".join(escaped))
    return variables


def check_dashboard(prometheus, folder, instance):
    """Each expression has values, and they are of ours alone: another target is scraped too."""
    dashboard = json.loads((folder / "dashboard.json").read_text())
    variables = chosen(prometheus, dashboard)
    count = 0
    for title, expression in expressions(dashboard):
        count += UNDER_KUBERNETES not in expression
        results = prometheus.results(replaced(expression, variables))
        may_be_empty = title == "Configuration changes" or UNDER_KUBERNETES in expression
        assert results or may_be_empty, f"{title}: nothing for {expression}"
        for labels, _ in results:
            assert labels.get("instance", instance) == instance, f"{title}: {labels} is not ours"
    nobody = replaced(dict(expressions(dashboard))["Errors"], variables | {"model": "without traffic"})
    assert prometheus.values(nobody) == [0], nobody
    print(f"dashboard: {count} expressions have values of ours alone: ok")


def check_alerts(prometheus):
    """The alerts' values, whether they are beyond their limits or not; and that the
    engine that is dead is told of."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    count = 0
    for rule in rules:
        assert rule["health"] in ("ok", "unknown"), rule
        # What comes after the first limit is for when it is beyond it.
        value = re.match(r"(.*?) (?:==|>|<) [\d.]+(?:\s|$)", rule["query"], re.S)[1]
        # The rules look further back than we have lived.
        value = re.sub(r"\[\d+m\]", "[10s]", value)
        prometheus.values(rule["query"])
        found = prometheus.values(value)
        assert found or UNDER_KUBERNETES in value, f"{rule['name']}: nothing for {value}"
        count += bool(found)
    eventually("the dead engine is told of", lambda: any(
        alert["labels"]["alertname"] == "PilotfishEngineDown" for alert in prometheus.ask("alerts")["alerts"]))
    print(f"alerts: {count} of {len(rules)} expressions have values, the dead engine's is pending: ok")


def settings(folder, engines, manifests, port, prometheus_port):
    """Pilotfish's settings and Prometheus's."""
    ours = folder / "pilotfish.json"
    ours.write_text(json.dumps({
        "service_discovery": "static", "routing_logic": "leastload",
        "engines": [{"url": url, "models": ["m"]} for url in engines],
        "limits": {"max_in_flight": 6, "queue_size": 100, "queue_timeout": 10},
    }))
    shutil.copy(manifests / "alerts.yaml", folder)
    theirs = folder / "prometheus.yaml"
    text = (manifests / "prometheus.yaml").read_text()
    text = text.replace("15s", SCRAPE).replace("127.0.0.1:8001", f"127.0.0.1:{port}")
    itself = f"  - job_name: prometheus\n    static_configs:\n      - targets: ['127.0.0.1:{prometheus_port}']\n"
    theirs.write_text(text + itself)
    return ours, theirs


def check_all(pilotfish, tools, manifests):
    check_rules(tools, manifests)
    port, prometheus_port, *engines = free_ports(4)
    with contextlib.ExitStack() as stack:
        # Its port is taken, so that nobody else is there, but nobody listens.
        dead = stack.enter_context(socket.socket())
        dead.bind(("127.0.0.1", 0))
        for engine in engines:
            stack.enter_context(running("engine", [
                pilotfish, "engine", "--port", engine, "--model", "m", "--itl", "5ms", "--max-running", "3"]))
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = [f"http://127.0.0.1:{one}" for one in [*engines, dead.getsockname()[1]]]
        ours, theirs = settings(folder, urls, manifests, port, prometheus_port)
        stack.enter_context(running("pilotfish", [
            pilotfish, "--host", "127.0.0.1", "--port", port, "--engine-stats-interval", "1",
            "--drain-settle", "0", "--dynamic-config-json", ours]))
        page = f"http://127.0.0.1:{port}/metrics"
        eventually("pilotfish serves", lambda: get(page))
        stack.enter_context(running("prometheus", [
            tools / "prometheus", f"--config.file={theirs}", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{prometheus_port}", "--log.level=warn"]))
        prometheus = Prometheus(prometheus_port)
        # A 503 until then.
        eventually("Prometheus is ready", lambda: get(f"http://127.0.0.1:{prometheus_port}/-/ready"))
        eventually("the targets are up", prometheus.are_up)
        print("Prometheus scrapes: ok")
        with traffic(port):
            check_page(tools, get(page)[1])
            check_dashboard(prometheus, manifests, f"127.0.0.1:{port}")
            check_alerts(prometheus)


@contextlib.contextmanager
def traffic(port):
    """Clients that work until the block ends, and have for a while when it begins."""
    done = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(10) as clients:
        work = [clients.submit(client, port, done) for _ in range(10)]
        try:
            time.sleep(TRAFFIC)
            yield
        finally:
            done.set()
        statuses = set().union(*(one.result() for one in work))
    assert statuses == {200, 404, 500}, statuses


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pilotfish", "prometheus", "manifests"):
        parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
    args = parser.parse_args()
    # Whoever stops us stops what we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    began = time.monotonic()
    check_all(args.pilotfish, args.prometheus, args.manifests)
    print(f"monitoring: ok, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
