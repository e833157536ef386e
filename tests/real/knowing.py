"""What a sidecar knows of real engines, and what it does with it."""

import concurrent.futures
import contextlib
import subprocess
import threading

import openai

from servers import chat, eventually, fleet, free_port, get, pilotfish, processing, running, told

# Sequences that each engine runs at once.
SLOTS = 4
# What is read each second is known by then, however slow the machine.
SOON = 30


def client_of(port):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0)


@contextlib.contextmanager
def load(port, clients, tokens):
    """So many clients that ask for so many tokens, again and again. At the end
    each leaves where it is."""
    stop = threading.Event()

    def one(client):
        # Any error but the one we make ourselves fails the check.
        while not stop.is_set():
            stream = chat(client, max_tokens=tokens, stream=True, extra_body={"ignore_eos": True})
            with stream:
                for _ in stream:
                    if stop.is_set():
                        break

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        workers = [pool.submit(one, client_of(port)) for _ in range(clients)]
        try:
            yield
        finally:
            stop.set()
        for worker in workers:
            worker.result()


def check_attributes(port, engines):
    """More requests than slots, through the sidecar: they run, they wait, and
    the engines' speed is known; then nothing does."""
    most = dict.fromkeys(["requests_running", "requests_waiting", "tokens_per_second"], 0.0)

    def all_have_moved():
        for engine, entry in fleet(port).items():
            seen = entry["attributes"]
            assert seen.get("requests_running", 0) <= SLOTS, (engine, seen)
            for name in most:
                most[name] = max(most[name], seen.get(name) or 0)
        return (most["requests_running"] == SLOTS and most["requests_waiting"] >= 1
                and most["tokens_per_second"] > 0)

    # Few tokens: the engine counts them when a request ends.
    with load(port, clients=3 * SLOTS, tokens=12):
        eventually("running, waiting, tokens a second", all_have_moved, SOON)
    idle = {engine: 0 for engine in engines}
    for name in ["requests_running", "requests_waiting"]:
        eventually(f"{name} goes back", lambda name=name: told(port, name) == idle, SOON)
    print(f"attributes under load: {most}; back to none: ok")


def check_leastload(port, engines):
    """One engine is loaded by others, who do not come through us: of requests
    that come one by one, with none of ours in flight, the other gets all but a
    few. Only the engines' own metrics can tell."""
    client = client_of(port)

    def finished():
        return {engine: entry["window"]["finished"] for engine, entry in fleet(port).items()}

    for loaded, free in [engines, reversed(engines)]:
        with load(loaded, clients=SLOTS + 2, tokens=1000):
            eventually("the load is known", lambda loaded=loaded, free=free: (
                (told(port, "requests_running")[loaded] or 0) == SLOTS
                and (told(port, "requests_waiting")[loaded] or 0) >= 1
                and told(port, "requests_running")[free] == 0), SOON)
            before = finished()
            for _ in range(8):
                chat(client, max_tokens=2)
            got = {engine: count - before[engine] for engine, count in finished().items()}
        assert got[free] >= 7, (got, loaded)
        eventually("the load is gone", lambda: sum(map(processing, engines)) == 0, SOON)
        print(f"leastload, with engine {engines.index(loaded)} loaded by others: "
              f"the other one got {got[free]} of 8: ok")


def check(binary, engines):
    port = free_port()
    command = pilotfish(binary, port, engines, "--routing-logic", "leastload",
                        "--engine-stats-interval", "1s")
    with running("pilotfish-leastload", command):
        eventually("Pilotfish serves", lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200)
        eventually("the engines are known", lambda: all(
            value == 0 for value in told(port, "requests_running").values()), SOON)
        check_attributes(port, engines)
        check_leastload(port, engines)
        shown = subprocess.run([binary, "engines", f"127.0.0.1:{port}"], check=True,
                               capture_output=True, text=True, timeout=SOON).stdout
        assert shown.startswith("engines: 2, healthy: 2;"), shown
        print(shown)
