"""The sidecar under test, and simulated engines in the place of pods' containers."""

import contextlib
import json
import re
import threading
import time
import urllib.error
import urllib.parse

from cluster import now
from processes import Process
from servers import eventually, free_port, get

MODEL = "m"


def host(url):
    return urllib.parse.urlsplit(url).hostname


class Sidecar(Process):
    """Pilotfish before what a cluster tells it of."""

    def __init__(self, binary, name, folder, kubeconfig, *flags):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, [binary, "--host", "127.0.0.1", "--port", self.port,
                                "--routing-logic", "roundrobin", "--drain-settle", "200ms", *flags],
                         folder, KUBECONFIG=str(kubeconfig))

    def engines(self):
        """All that it knows of, by URL."""
        return {entry["engine_id"]: entry for entry in json.loads(get(f"{self.url}/engines")[1])}

    def open(self):
        """The URLs that get requests."""
        return {url for url, entry in self.engines().items()
                if entry["state"] == "healthy" and not entry.get("closed")}

    def open_hosts(self):
        return {host(url) for url in self.open()}

    def readyz(self):
        try:
            return get(f"{self.url}/readyz")[0]
        except urllib.error.HTTPError as error:
            return error.code

    def metric(self, name):
        """The sum of a family's values; `None` if it has none."""
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", get(f"{self.url}/metrics")[1], re.M)
        return sum(map(float, found)) if found else None

    def is_up(self):
        with contextlib.suppress(OSError):
            return bool(get(f"{self.url}/livez")[0])
        return False

    def start(self):
        super().start()

        def is_up():
            assert self.is_running(), f"the sidecar ended with {self.child.returncode}"
            return self.is_up()

        eventually("the sidecar listens", is_up, 20)
        return self


def kubernetes(namespace, port, *more, selector="app=engine"):
    """The flags of discovery."""
    return ["--service-discovery", "k8s", "--k8s-namespace", namespace, "--k8s-port", port,
            *(["--k8s-label-selector", selector] if selector else []), *more]


def engine(binary, folder, ip, port):
    """A simulated engine that is quick, unless a request asks for `slow=`."""
    return Process(f"engine-{ip}", [binary, "engine", "--host", ip, "--port", port, "--model", MODEL,
                                    "--ttft", "1ms", "--itl", "1ms", "--max-running", 256,
                                    "--log-level", "warning"], folder)


class Probe(threading.Thread):
    """Asks `/readyz` for as long as it runs, and keeps what was not 200."""

    def __init__(self, sidecar):
        super().__init__(daemon=True)
        self.sidecar, self.done, self.bad, self.count = sidecar, threading.Event(), [], 0

    def run(self):
        while not self.done.wait(0.1):
            began = now()
            try:
                said = self.sidecar.readyz()
            except OSError as error:
                said = repr(error)
            self.count += 1
            if said != 200:
                self.bad.append((said, began))

    def end(self):
        self.done.set()
        self.join()
        return self.bad


def idle(process, seconds):
    """The share of a core that it takes while nothing is asked of it."""
    began, used = now(), process.cpu()
    time.sleep(seconds)
    return (process.cpu() - used) / (now() - began)
