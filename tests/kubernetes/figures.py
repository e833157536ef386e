"""What discovery costs, as a table: many pods, many events, and none."""

import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

from cluster import now
from objects import ACCOUNT
from scenarios import GIVEN, IDLE
from servers import eventually, get
from sidecar import Sidecar, idle, kubernetes
from traffic import Traffic

PODS = int(os.environ.get("TEST_PODS", 5000))
RATE = int(os.environ.get("TEST_EVENTS", 100))
SECONDS = float(os.environ.get("TEST_EVENT_SECONDS", 60))
# These answer for the model that is asked; all others for a model that nobody asks for.
WORKING = 4
MIB = 1 << 20


def address(n):
    """Of the `n`th of many pods: all of loopback answers on the crowd's ports."""
    return f"127.20.{n // 250}.{n % 250 + 1}"


def container():
    """As long as those of inference engines are: with what the server notes of who
    set each field, about 10 kB of JSON a pod."""
    env = [{"name": f"ENGINE_SETTING_{n}", "value": f"value-of-setting-{n}"} for n in range(32)]
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 5, "failureThreshold": 60}
    return {"name": "engine", "image": "engine.invalid/engine:1", "env": env,
            "command": ["serve", "--model", "/models/a-model-of-70-billion", "--tensor-parallel-size", "4"],
            "ports": [{"name": "http", "containerPort": 8000}],
            "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe,
            "resources": {"limits": {"memory": "64Gi"}, "requests": {"cpu": "8", "memory": "64Gi"}},
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}


def create(namespace, name, ip, app):
    body = {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app, "pod-template-hash": "5f6c7d8e9", "team": "blue"},
                         "annotations": {"pilotfish.dev/models": '["idle"]'}},
            "spec": {"schedulerName": "nobody", "automountServiceAccountToken": False,
                     "serviceAccountName": ACCOUNT, "containers": [container()], "volumes": [{"name": "cache", "emptyDir": {}}]}}
    namespace.api.post(f"{namespace.path}/pods", body)
    return len(json.dumps(namespace.report(name, ip)[1]))


class Events:
    """So many readiness changes a second, each of another pod, while the block lasts."""

    def __init__(self, namespace, prefix, count, rate):
        self.namespace, self.prefix, self.count, self.rate = namespace, prefix, count, rate
        self.done, self.sent, self.turns = threading.Event(), 0, itertools.count()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(4)]

    def run(self):
        while not self.done.is_set():
            with self.lock:
                turn = next(self.turns)
            # Neither early, nor all at once after a delay.
            time.sleep(max(0.0, self.began + turn / self.rate - now()))
            n = turn % self.count
            is_ready = (turn // self.count) % 2 == 1
            self.namespace.report(f"{self.prefix}{n}", address(n), is_ready)
            self.sent += 1

    def __enter__(self):
        self.began = now()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()
        self.per_second = self.sent / (now() - self.began)


def under_load(sidecar, seconds):
    """What clients see for so long, and what share of a core the sidecar takes."""
    script = pathlib.Path(__file__).with_name("load.py")
    began, used = now(), sidecar.cpu()
    said = subprocess.run([sys.executable, script, str(sidecar.port), str(seconds)],
                          check=True, capture_output=True, text=True).stdout
    seen = json.loads(said)
    assert not seen["failed"], seen
    return seen | {"cpu": (sidecar.cpu() - used) / (now() - began)}


def count(sidecar):
    return get(f"{sidecar.url}/engines")[1].count('"engine_id"')


def delays(world, sidecar, last):
    """From a change to where requests go, both ways."""
    name, ip = f"working-{last}", world.hosts[last]
    lost, back = [], []
    with Traffic(sidecar, clients=2, pause=0.004) as traffic:
        for _ in range(5):
            lost.append(traffic.until_unused(ip, world.namespace.report(name, ip, is_ready=False)[0]))
            back.append(traffic.until_used(ip, world.namespace.report(name, ip)[0]))
        traffic.check()
    return lost, back


class Table:
    def __init__(self):
        self.rows = []

    def row(self, what, figure, wanted=""):
        self.rows.append((what, figure, wanted))
        print(f"  {what}: {figure}")

    def show(self):
        rows = [("what", "measured", "wanted"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        print()
        for row in rows:
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
            if row is rows[0]:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def fixed(world, name, engines):
    """A sidecar with those engines, from a file."""
    path = pathlib.Path(world.folder) / f"{name}.json"
    path.write_text(json.dumps({"engines": engines}))
    return Sidecar(world.binary, name, world.folder, world.kubeconfig, "--service-discovery", "static",
                   "--dynamic-config-json", path, "--engine-stats-interval", "3600")


def settled(sidecar, expected):
    """Seconds from its start until it has so many engines."""
    began = now()
    sidecar.start()
    eventually(f"{expected} engines", lambda: count(sidecar) == expected, 120)
    return now() - began


def figures(world, table):
    namespace, crowd = world.namespace, world.crowd_ports[0]
    flags = [*kubernetes(namespace.name, crowd), "--engine-stats-interval", "3600"]

    def watching(name):
        return Sidecar(world.binary, name, world.folder, world.kubeconfig, *flags)

    # Before there is anything to see.
    with fixed(world, "static-none", []) as sidecar:
        none, unwatched = idle(sidecar, IDLE), sidecar.rss()
    with watching("none") as sidecar:
        eventually("ready", lambda: sidecar.readyz() == 200, 20)
        table.row("idle, watch open, no pods", f"{idle(sidecar, IDLE) * 100:.2f} % of a core", "nothing measurable")
        table.row("idle, no discovery", f"{none * 100:.2f} % of a core")
        bare = sidecar.rss()
    for n in range(WORKING):
        namespace.engine(f"working-{n}", world.hosts[n], annotations=GIVEN["annotations"] | {
            "pilotfish.dev/ports": str(world.port)})
    began = now()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda n: create(namespace, f"pod-{n}", address(n), "engine"), range(PODS)))
        list(pool.map(lambda n: create(namespace, f"other-{n}", address(n), "other"), range(500)))
    print(f"  {PODS} pods of {statistics.mean(sizes):.0f} B written in {now() - began:.0f} s")
    table.row("JSON of a pod", f"{statistics.mean(sizes) / 1e3:.1f} kB", "about 10 kB")

    with_static(world, table, unwatched)
    # Nobody asks this one for pages, which are megabytes here.
    with watching("quiet") as sidecar:
        eventually("all are found", lambda: f"ready={PODS + WORKING}" in sidecar.log(), 20)
        time.sleep(10)
        table.row("memory on top of no pods", f"{(sidecar.rss() - bare) / MIB:.1f} MiB ({bare / MIB:.1f} without)",
                  "30 MiB")
    sidecar, total = watching("many"), PODS + WORKING
    with_started(world, table, sidecar, total, bare)


def with_static(world, table, unwatched):
    """The same engines from a file: what they take however they are found."""
    engines = [{"url": f"http://{address(n)}:{world.crowd_ports[0]}", "models": ["idle"]} for n in range(PODS)]
    sidecar = fixed(world, "static-many", engines)
    try:
        took = settled(sidecar, PODS)
        time.sleep(5)
        table.row(f"{PODS} engines from a file instead", f"{took:.2f} s, {(sidecar.rss() - unwatched) / MIB:.1f} MiB "
                  f"on top of none ({unwatched / MIB:.1f})")
        table.row("idle, the same", f"{idle(sidecar, IDLE) * 100:.2f} % of a core")
    finally:
        sidecar.stop()


def with_started(world, table, sidecar, total, bare):
    try:
        took = settled(sidecar, total)
        table.row(f"process start to {total} engines", f"{took:.2f} s", "2 s")
        time.sleep(5)
        table.row("memory on top, pages asked for", f"{(sidecar.rss() - bare) / MIB:.1f} MiB")
        table.row(f"idle, watch open, {PODS} pods", f"{idle(sidecar, IDLE) * 100:.2f} % of a core",
                  "nothing measurable")
        under_events(world, table, sidecar)
        assert sidecar.stop() == 0
    except BaseException:
        print(sidecar.log()[-4000:])
        raise
    finally:
        sidecar.stop()


def under_events(world, table, sidecar):
    namespace = world.namespace
    lost, back = delays(world, sidecar, WORKING - 1)
    quiet = under_load(sidecar, SECONDS / 2)
    # The API server works as hard, and the sidecar hears nothing of it.
    with Events(namespace, "other-", 500, RATE) as others:
        beside = under_load(sidecar, SECONDS)
    with Events(namespace, "pod-", PODS, RATE) as ours:
        heard = under_load(sidecar, SECONDS)
    with Events(namespace, "pod-", PODS, RATE):
        busy_lost, busy_back = delays(world, sidecar, WORKING - 1)

    def shown(seen):
        return f"p50 {seen['p50']:.1f} ms, p99 {seen['p99']:.1f} ms, CPU {seen['cpu'] * 100:.1f} %"

    def median(seen):
        return f"{statistics.median(seen) * 1000:.0f} ms, at most {max(seen) * 1000:.0f} ms"

    table.row("requests, no events", shown(quiet))
    table.row(f"requests, {others.per_second:.0f} events/s of others' pods", shown(beside))
    table.row(f"requests, {ours.per_second:.0f} events/s of our pods", shown(heard), "p99 the same")
    table.row("CPU for these events", f"{(heard['cpu'] - beside['cpu']) * 100:.1f} % of a core", "3 %")
    table.row("not ready to the last request", median(lost), "100 ms")
    table.row("ready to the first answer", median(back), "100 ms")
    table.row("the same under these events", f"{median(busy_lost)}; {median(busy_back)}")


def measure(world):
    print(f"figures: {PODS} pods, {RATE} events/s for {SECONDS:.0f} s, {os.cpu_count()} cores")
    table = Table()
    try:
        figures(world, table)
    finally:
        table.show()
