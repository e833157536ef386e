"""Pilotfish on a real API server: the scenarios, or the figures."""

import argparse
import contextlib
import secrets
import signal
import subprocess
import sys
import tempfile

import figures
import outages
import scenarios
import sources
from cluster import Refused, control_plane, now
from crowd import Crowd
from objects import POOL_DEFINITION, POOLS, Namespace, is_ready
from servers import eventually, free_ports
from sidecar import Probe, Sidecar, engine, kubernetes
from traffic import Traffic

# In this order: each leaves e1, e2 and e3 ready, and nothing else.
ALL = [
    scenarios.appear, scenarios.readiness, scenarios.terminating, scenarios.labels, scenarios.flapping,
    scenarios.reused, scenarios.crowd, scenarios.dying, outages.forbidden, sources.pool, sources.services,
    sources.slices, outages.outage, outages.restored, scenarios.ending,
]
HOSTS = [f"127.0.7.{n}" for n in range(1, 6)]


class World:
    """All that a scenario may use."""

    def __init__(self, binary, folder, plane, stack):
        self.binary, self.folder, self.plane, self.stack = binary, folder, plane, stack
        self.hosts = HOSTS
        self.port, *self.crowd_ports = free_ports(3)
        self.namespace = stack.enter_context(Namespace(plane, f"pilotfish-{secrets.token_hex(3)}"))
        self.kubeconfig = self.namespace.kubeconfig(folder)
        self.engines = {host: engine(binary, folder, host, self.port) for host in HOSTS}
        for one in self.engines.values():
            stack.enter_context(one)
        stack.enter_context(Crowd(self.crowd_ports, (HOSTS[0], self.port)))
        self.sidecar = self.traffic = self.probe = None
        self.asked = 0

    def start_sidecar(self):
        self.sidecar = self.stack.enter_context(Sidecar(
            self.binary, "sidecar", self.folder, self.kubeconfig,
            *kubernetes(self.namespace.name, self.port, "--k8s-source", "pods")))

    def begin(self):
        """Clients, and somebody who looks at its readiness, until `end_traffic`."""
        self.traffic = Traffic(self.sidecar)
        self.traffic.__enter__()
        self.probe = Probe(self.sidecar)
        self.probe.start()

    def check(self):
        if self.traffic:
            self.asked += self.traffic.check()
            assert not self.probe.bad, f"/readyz: {self.probe.bad[:3]} of {self.probe.count}"

    def end_traffic(self):
        if self.traffic:
            self.traffic.__exit__()
            self.probe.end()
            try:
                self.check()
            finally:
                self.traffic = None

    def restart_sidecar(self):
        """One that knows nothing; the pods are as they are."""
        self.end_traffic()
        self.sidecar.stop()
        self.sidecar.start()
        eventually("engines again", lambda: self.sidecar.open_hosts() == self.namespace.ready(), 10)
        self.begin()

    def put_back(self):
        """The pods that each scenario finds, and no others; never fewer than one of them ready."""
        wanted = {f"e{n}": (host, {} if n == 3 else scenarios.GIVEN) for n, host in enumerate(HOSTS[:3], 1)}
        there = {one["metadata"]["name"]: one for one in self.namespace.api.get(f"{self.namespace.path}/pods")["items"]}
        for name, (host, more) in wanted.items():
            if name not in there:
                self.namespace.engine(name, host, **more)
            elif not is_ready(there[name]):
                self.namespace.report(name, host)
        if self.traffic:
            self.traffic.until_used(HOSTS[0], now(), 15)
        for name in there.keys() - wanted.keys():
            self.namespace.delete(name, grace=0)
        if self.traffic:
            self.traffic.settles(set(HOSTS[:3]), 15)

    def define_pools(self):
        """The kind InferencePool, until the end, unless the cluster has it."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        try:
            self.plane.admin.post(path, POOL_DEFINITION)
        except Refused as error:
            # It is there, and stays.
            assert error.status == 409, error
        else:
            # Ours is gone with its etcd.
            if not self.plane.can_be_killed:
                self.stack.callback(self.plane.admin.delete, f"{path}/{POOLS}")

        def is_served():
            with contextlib.suppress(Refused):
                return bool(self.plane.admin.get(
                    f"/apis/inference.networking.k8s.io/v1/namespaces/{self.namespace.name}/inferencepools"))

        eventually(f"{POOLS} is served", is_served, 20)


def run(world, chosen):
    began = now()
    world.start_sidecar()
    for scenario in ALL:
        # All need the pods of the first.
        if chosen and scenario.__name__ not in (*chosen, "appear"):
            continue
        at = now()
        print(f"{scenario.__name__}: {scenario.__doc__}")
        try:
            scenario(world)
            world.check()
        except BaseException:
            print(f"--- it was {scenario.__name__}")
            raise
        print(f"  ok ({now() - at:.1f} s)")
    world.end_traffic()
    print(f"kubernetes: ok, {world.asked} requests and no failure ({now() - began:.0f} s)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pilotfish", required=True)
    parser.add_argument("--figures", action="store_true", help="measure, and check nothing")
    parser.add_argument("--list", action="store_true", help="the scenarios, and do no more")
    parser.add_argument("scenario", nargs="*", help="only these, and `appear` before them")
    args = parser.parse_args()
    names = [scenario.__name__ for scenario in ALL]
    if args.list:
        return print("\n".join(f"{one.__name__:12} {one.__doc__}" for one in ALL))
    if unknown := set(args.scenario) - set(names):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pilotfish-kubernetes-"))
        at = now()
        plane = stack.enter_context(control_plane(folder))
        version = plane.admin.get("/version")["gitVersion"]
        print(f"API server {version}, after {now() - at:.1f} s")
        world = World(args.pilotfish, folder, plane, stack)
        return figures.measure(world) if args.figures else run(world, args.scenario)


try:
    main()
except subprocess.CalledProcessError as error:
    sys.exit(f"{error}\n{error.stderr}")
