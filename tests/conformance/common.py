"""What the conformance scripts share: processes, memory, frames, tables."""

import atexit
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import time
import urllib.request

MODEL = "m"
CHAT = "/v1/chat/completions"
BODY = json.dumps(
    {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
).encode()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Process:
    """A child that is stopped with us, by its own id."""

    def __init__(self, args, log=None, env=None):
        out = open(log, "wb") if log else subprocess.DEVNULL
        self.child = subprocess.Popen(
            [str(arg) for arg in args],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self.pid = self.child.pid
        atexit.register(self.stop)

    def is_running(self):
        return self.child.poll() is None

    def stop(self, sign=signal.SIGTERM, within=5):
        if self.is_running():
            self.child.send_signal(sign)
            try:
                self.child.wait(within)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.child.returncode

    def status(self, name):
        """A figure of /proc/PID/status; KiB where it is of memory."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise KeyError(name)

    def cpu(self):
        """Seconds of CPU that it has used."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, path="/health", within=20, scheme="http"):
    """Until that page answers, whatever it says."""
    until = time.monotonic() + within
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as peer:
                if path is None:
                    return
                peer.settimeout(2)
                peer.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                if peer.recv(12).startswith(b"HTTP/1.1 "):
                    return
        except OSError:
            pass
        if time.monotonic() > until:
            raise TimeoutError(f"nothing answers on port {port}")
        time.sleep(0.05)


def start_engine(binary, *flags):
    """A simulated engine that takes no time."""
    port = free_port()
    flags = flags or ("--ttft", "0ms", "--itl", "0ms", "--prefill", "1e9", "--max-running", "4096")
    engine = Process([binary, "engine", "--port", port, "--model", MODEL, *flags])
    wait_for(port)
    return engine, port


def start_proxy(binary, engines, *flags, log=None, env=None):
    """The proxy before these engines' ports."""
    port = free_port()
    proxy = Process(
        [binary, "--host", "127.0.0.1", "--port", port]
        + ["--service-discovery", "static", "--routing-logic", "roundrobin"]
        + ["--static-backends", ",".join(f"http://127.0.0.1:{engine}" for engine in engines)]
        + ["--static-models", ",".join(MODEL for _ in engines), "--log-level", "error", *flags],
        log=log,
        env=env,
    )
    wait_for(port)
    return proxy, port


def chat(body=BODY, extra="", host="x", path=CHAT):
    """A request of HTTP/1.1, as bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{extra}\r\n"
    ).encode() + body


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def series(port, family):
    """The sum of a family's series on /metrics."""
    total = 0.0
    for line in page(port, "/metrics").splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name == family:
            total += float(line.rsplit(" ", 1)[1])
    return total


# HTTP/2, by hand.

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values):
    codes = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "list": 6}
    packed = b"".join(struct.pack(">HI", codes[name], value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, packed)


def integer(value, bits, first=0):
    """HPACK's integers."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def literal(name, value, first=0x00):
    """A field, not indexed (0x00) or put into the table (0x40)."""
    name, value = (text.encode("latin-1") if isinstance(text, str) else text for text in (name, value))
    return bytes([first]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def fields(method="POST", path=CHAT, authority="x", scheme="http", extra=()):
    """A request's header block."""
    pseudo = ((":method", method), (":scheme", scheme), (":path", path), (":authority", authority))
    return b"".join(literal(name, value) for name, value in (*pseudo, *extra) if value is not None)


def frames_of(data):
    """The whole frames at the front of what was received."""
    at = 0
    while len(data) - at >= 9:
        length = int.from_bytes(data[at : at + 3], "big")
        if len(data) - at < 9 + length:
            return
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        yield data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length]
        at += 9 + length


def table(head, rows):
    """Aligned columns, for people."""
    rows = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
