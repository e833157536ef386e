"""A real Prometheus, and what we wrote for it, on a Pilotfish that works."""

import argparse
import concurrent.futures
import contextlib
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
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE = 30
# Seconds of traffic that expressions look back upon.
TRAFFIC = 14
SCRAPE = "1s"
# What a page of the reference router's names brings with it.
COMPLAINTS = [
    re.compile(r"^vllm:\S+ metric names should not contain ':'$"),
    re.compile(r"^vllm:\S+ non-counter metrics should not have \"_total\" suffix$"),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.read().decode()


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def running(name, command):
    """A process that is stopped, by its pid, when the block ends."""
    with tempfile.NamedTemporaryFile("w+", prefix=name) as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        try:
            yield process
        except BaseException:
            print(f"--- {name}\n{open(log.name).read()[-3000:]}")
            raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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


def client(port, until):
    """Streams and whole answers, one after the other; now and then one for nobody, or one that fails."""
    statuses = set()
    for turn in range(1_000_000):
        if time.monotonic() >= until:
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
            answer = get(f"{self.base}{path}?{urllib.parse.urlencode(query)}")
        except urllib.error.HTTPError as error:
            answer = error.read().decode()
        answer = json.loads(answer)
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]

    def values(self, expression):
        """The numbers of an expression's result; what is no number counts as none."""
        data = self.ask("query", query=expression)
        series = [[0, data["value"]]] if data["resultType"] == "scalar" else data["result"]
        values = [float(one["value"][1]) for one in series]
        return [value for value in values if not math.isnan(value)]

    def is_up(self):
        targets = self.ask("targets")["activeTargets"]
        return [target["health"] for target in targets] == ["up"]


def expressions(dashboard):
    """Every expression of the dashboard, with its variables replaced."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], replaced(target["expr"])
    for note in dashboard["annotations"]["list"]:
        yield note["name"], replaced(note["expr"])


def replaced(expression):
    expression = expression.replace("$__rate_interval", "10s")
    expression = re.sub(r'=~"\$\w+"', '=~".*"', expression)
    assert "$" not in expression, expression
    return expression


def check_dashboard(prometheus, folder):
    dashboard = json.loads((folder / "dashboard.json").read_text())
    count = 0
    for title, expression in expressions(dashboard):
        count += 1
        values = prometheus.values(expression)
        assert values or title == "Configuration changes", f"{title}: nothing for {expression}"
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            found = prometheus.ask("series", **{"match[]": replaced(selector)})
            assert any(label in series for series in found), variable["name"]
    print(f"dashboard: {count} expressions have values: ok")


def check_alerts(prometheus):
    """The alerts' values, whether they are beyond their limits or not; and that the
    engine that is dead is told of."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        assert rule["health"] in ("ok", "unknown"), rule
        value, limit = re.fullmatch(r"(.*) (?:==|>|<) ([\d.]+)", rule["query"], re.S).groups()
        # The rules look further back than we have lived.
        value = re.sub(r"\[\d+m\]", "[10s]", value)
        prometheus.values(rule["query"])
        assert prometheus.values(value), f"{rule['name']}: nothing for {value}"
    eventually("the dead engine is told of", lambda: any(
        alert["labels"]["alertname"] == "PilotfishEngineDown" for alert in prometheus.ask("alerts")["alerts"]))
    print(f"alerts: {len(rules)} expressions have values, the dead engine's is pending: ok")


def settings(folder, engines, manifests, port):
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
    theirs.write_text(text.replace("15s", SCRAPE).replace("127.0.0.1:8001", f"127.0.0.1:{port}"))
    return ours, theirs


def check_all(pilotfish, tools, manifests):
    check_rules(tools, manifests)
    port, prometheus_port, *engines = (free_port() for _ in range(5))
    dead = engines.pop()
    with contextlib.ExitStack() as stack:
        for engine in engines:
            stack.enter_context(running("engine", [
                pilotfish, "engine", "--port", engine, "--model", "m", "--itl", "5ms", "--max-running", "3"]))
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = [f"http://127.0.0.1:{one}" for one in [*engines, dead]]
        ours, theirs = settings(folder, urls, manifests, port)
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
        until = time.monotonic() + TRAFFIC
        with concurrent.futures.ThreadPoolExecutor(10) as clients:
            work = [clients.submit(client, port, until) for _ in range(10)]
            eventually("the target is up", prometheus.is_up)
            print("Prometheus scrapes: ok")
            # So that what is asked looks back upon nothing but traffic.
            while time.monotonic() < until - 1:
                time.sleep(0.1)
            check_page(tools, get(page))
            check_dashboard(prometheus, manifests)
            check_alerts(prometheus)
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
