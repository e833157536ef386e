"""What hostile clients cost: the proxy's memory, and what good clients notice.

    hostile_load.py BINARY [--rounds N] [--only WORD] [--json]

Each attack meets a proxy of its own. Good clients are four connections that
send 100 requests a second each to an engine that takes no time, so that what
they wait for is the proxy. Medians over the rounds. Needs `h2load`.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import attacks
import common as c

GROWTH = 32 << 10  # KiB
SLOWER = 2.0
CLIENTS, RATE = 4, 100


def latency(port, seconds, folder):
    """(p50, p99, errors) of good clients, in milliseconds."""
    log, body = folder / "log", folder / "body"
    log.unlink(missing_ok=True)
    body.write_bytes(c.BODY)
    url = f"http://127.0.0.1:{port}{c.CHAT}"
    told = subprocess.run(
        ["h2load", "--h1", "-t1", f"-c{CLIENTS}", f"--rps={RATE}", f"-D{seconds}", f"--log-file={log}"]
        + ["-d", str(body), "-H", "content-type: application/json", url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if not rows:
        raise RuntimeError(told.stdout + told.stderr)
    times = sorted(int(row[2]) / 1000 for row in rows)
    errors = sum(row[1] != "200" for row in rows)
    return times[len(times) // 2], times[len(times) * 99 // 100], errors


class Memory(threading.Thread):
    """Looks at a process's memory until it is told to stop."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.ended = process, threading.Event()
        self.before = self.most = process.status("VmRSS")
        self.start()

    def run(self):
        while not self.ended.wait(0.05):
            try:
                self.most = max(self.most, self.process.status("VmRSS"))
            except (OSError, KeyError):
                return

    def stop(self):
        self.ended.set()
        self.join()
        return self.before, self.most


def attack(binary, engine, name, seconds, folder):
    """One attack on one proxy: what good clients saw, memory, what was done."""
    proxy, port = c.start_proxy(binary, [engine], "--access-log", "/dev/null")
    subprocess.run(
        ["h2load", "--h1", "-t1", "-c50", "-n4000", f"http://127.0.0.1:{port}/version"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    latency(port, 1, folder)
    before = latency(port, seconds, folder)
    memory, spent, began = Memory(proxy), proxy.cpu(), time.monotonic()
    attacker = subprocess.Popen(
        [sys.executable, attacks.__file__, name, str(port), str(seconds + 2)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = attacker.stdout.readline()
        if ready.strip() != "ready":
            raise RuntimeError(f"{name}: {ready}")
        # Until those that are open have been seen.
        time.sleep(1)
        during = latency(port, seconds, folder)
        told = json.loads(attacker.communicate(timeout=60)[0])
        load = (proxy.cpu() - spent) / (time.monotonic() - began)
    finally:
        attacker.kill()
        attacker.wait()
    first, most = memory.stop()
    if not proxy.is_running():
        raise RuntimeError(f"{name}: the proxy ended")
    proxy.stop()
    return {"before": before, "during": during, "rss": first, "growth": most - first, "cpu": load, "told": told}


def summary(name, runs):
    """A row of the table, and whether it keeps to its bounds."""
    def median(of):
        return statistics.median(of(run) for run in runs)

    before, during = median(lambda run: run["before"][1]), median(lambda run: run["during"][1])
    growth = median(lambda run: run["growth"])
    errors = sum(run["during"][2] for run in runs)
    told = runs[-1]["told"]
    is_good = growth <= GROWTH and during <= SLOWER * before and not errors
    row = [
        name,
        f"{growth / 1024:.1f}",
        f"{before:.2f}",
        f"{during:.2f}",
        f"{during / before:.2f}",
        f"{median(lambda run: run['before'][0]):.2f}",
        f"{median(lambda run: run['during'][0]):.2f}",
        errors,
        f"{100 * median(lambda run: run['cpu']):.0f}",
        told["connections"],
        told["ended"],
        f"{told['sent'] / 1e6:.1f}",
        "ok" if is_good else "BEYOND",
    ]
    return row, is_good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = [name for name in attacks.ALL if options.only in name]
    runs = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        _, engine = c.start_engine(options.binary)
        for turn in range(options.rounds):
            for name in names:
                run = attack(options.binary, engine, name, options.seconds, pathlib.Path(folder))
                runs[name].append(run)
                print(f"{turn + 1}: {name}: {run}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(runs))
    rows = [summary(name, runs[name]) for name in names]
    head = ["attack", "RSS +MiB", "p99 before", "during", "ratio", "p50 before", "during"]
    head += ["errors", "CPU %", "conns", "ended", "sent MB", ""]
    print(c.table(head, [row for row, _ in rows]))
    sys.exit(0 if all(is_good for _, is_good in rows) else 1)


if __name__ == "__main__":
    main()
