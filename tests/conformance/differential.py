"""Hostile clients and faulty engines before us and before Envoy: what each
answers, what becomes of the client's connection, and what the engine saw.

    differential.py BINARY [--all]

Prints the cases in which the two differ (all of them with --all); why they do
is told in the last section of docs/http.md. Exit 1 when a difference is not
told of there.
"""

import argparse
import pathlib
import re
import socket
import struct
import sys
import tempfile
import threading
import time

import common as c
import rivals

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[]}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
RESET = object()
HANG = object()


class Engine:
    """Answers each request with the same bytes, and remembers what it was sent."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answer, self.seen, self.whole = [OK], 0, 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            peer, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        buffer = b""
        peer.settimeout(15)
        try:
            while True:
                while (end := buffer.find(b"\r\n\r\n")) < 0:
                    if not (data := peer.recv(65536)):
                        return
                    buffer += data
                head, buffer = buffer[: end + 4], buffer[end + 4 :]
                is_probe = not head.startswith(b"POST") or b"x-case" not in head.lower()
                self.seen += not is_probe
                buffer = self.body(peer, head.lower(), buffer)
                self.whole += not is_probe
                for part in [OK] if is_probe else self.answer:
                    if part is RESET:
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if part is HANG:
                        time.sleep(4)
                        return
                    peer.sendall(part)
                    if len(self.answer) > 1:
                        time.sleep(0.05)
                if not is_probe and self.answer != [OK]:
                    return
        except OSError:
            pass
        finally:
            peer.close()

    @staticmethod
    def body(peer, head, buffer):
        """Reads a body; what is left after it."""
        length = re.search(rb"content-length: *(\d+)", head)
        if b"chunked" in head:
            while b"0\r\n\r\n" not in buffer:
                if not (data := peer.recv(65536)):
                    raise ConnectionError
                buffer += data
            return buffer.split(b"0\r\n\r\n", 1)[1]
        size = int(length[1]) if length else 0
        while len(buffer) < size:
            if not (data := peer.recv(65536)):
                raise ConnectionError
            buffer += data
        return buffer[size:]


def post(*extra, host=("host: x",), body=c.BODY, length=None, path=c.CHAT, version="1.1"):
    length = len(body) if length is None else length
    lines = [f"POST {path} HTTP/{version}", *host, "x-case: 1", "content-type: application/json"]
    if length is not False:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, *extra, "", ""]).encode("latin-1") + body


def chunked(body, *extra):
    return post("transfer-encoding: chunked", *extra, body=body, length=False)


WHOLE = b"%x\r\n%s\r\n0\r\n\r\n" % (len(c.BODY), c.BODY)
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"

# Row of the table of hostile cases, name → what a client sends.
CLIENTS = {
    "1 no Host": post(host=()),
    "1 two Hosts": post(host=("host: a", "host: b")),
    "1 Host with a path": post(host=("host: a/b",)),
    "1 Host with userinfo": post(host=("host: u@h",)),
    "1 Host with a space": post(host=("host: a b",)),
    "2 garbage": b"\x16\x03\x01garbage\r\n\r\n",
    "2 bad method": post().replace(b"POST", b"PO(ST", 1),
    "2 NUL in a value": post("x-a: b\0c"),
    "2 CTL in a value": post("x-a: b\x01c"),
    "2 folded field": post("x-a: b", " c"),
    "2 space before the colon": post("x-a : b"),
    "2 bare LF": post("x-a: b").replace(b"\r\n", b"\n", 4),
    "3 a field of 70 KB": post("x-a: " + "b" * 70_000),
    "3 150 fields": post(*(f"x-{n}: a" for n in range(150))),
    "3 a target of 70 KB": post(path="/" + "a" * 70_000),
    "4 CONNECT": b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
    "4 TRACE": b"TRACE / HTTP/1.1\r\nhost: x\r\n\r\n",
    "5 absolute-form": post(path="http://x" + c.CHAT),
    "5 absolute-form, another host": post(path="http://y" + c.CHAT),
    "5 GET *": b"GET * HTTP/1.1\r\nhost: x\r\n\r\n",
    "5 GET host:80": b"GET x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    "7 Connection: host": post("connection: host"),
    "7 Connection: content-length": post("connection: content-length"),
    "9 CL, then TE": post("transfer-encoding: chunked", body=WHOLE, length=6),
    "9 TE, then CL": chunked(WHOLE, "content-length: 6"),
    "9 CL.TE smuggling": post("transfer-encoding: chunked", body=WHOLE + SMUGGLED, length=len(WHOLE + SMUGGLED)),
    "10 CL twice, the same": post(f"content-length: {len(c.BODY)}"),
    "10 CL twice, different": post("content-length: 3"),
    "10 CL as a list": post(length=f"{len(c.BODY)}, {len(c.BODY)}"),
    "10 CL +5": post(length=f"+{len(c.BODY)}"),
    "10 CL -1": post(length="-1"),
    "10 CL 0x5": post(length="0x5"),
    "10 CL of 2^64": post(length=str(1 << 64)),
    "11 TE: gzip, chunked": post("transfer-encoding: gzip, chunked", body=WHOLE, length=False),
    "11 TE: chunked, chunked": post("transfer-encoding: chunked, chunked", body=WHOLE, length=False),
    "11 TE: chunked, twice": chunked(WHOLE, "transfer-encoding: chunked"),
    "11 TE: identity, then chunked": post("transfer-encoding: identity", "transfer-encoding: chunked", body=WHOLE, length=False),
    "11 TE: xchunked": post("transfer-encoding: xchunked", body=WHOLE, length=False),
    "11 TE in HTTP/1.0": post("transfer-encoding: chunked", body=WHOLE, length=False, version="1.0"),
    "12 chunk ends with LF": chunked(WHOLE.replace(b"\r\n", b"\n", 1)),
    "12 chunk size overflows": chunked(b"1" + b"0" * 16 + b"\r\n" + WHOLE),
    "12 chunk longer than told": chunked(b"3\r\n" + c.BODY + b"\r\n0\r\n\r\n"),
    "12 chunk size 0x5": chunked(b"0x5\r\n" + WHOLE),
    "12 extension with LF": chunked(WHOLE.replace(b"\r\n", b";a\nb\r\n", 1)),
    "12 2 MB of extensions": chunked(WHOLE.replace(b"\r\n", b";" + b"a" * 2_000_000 + b"\r\n", 1)),
    "12 bad trailer": chunked(WHOLE[:-2] + b"bad trailer\r\n\r\n"),
    "13 Upgrade: h2c": post("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABk"),
    "15 two requests": post() + post(),
    "22 FIN amid an upload": post(length=len(c.BODY) + 10),
}

# The same for engines: what they answer.
ENGINES = {
    "32 closes at once": [],
    "32 resets at once": [RESET],
    "33 half a head": [b"HTTP/1.1 200 OK\r\ncontent-"],
    "33 garbage": [b"\x16\x03\x01\x02garbage\r\n\r\n"],
    "33 HTTP/0.9": [b"{}"],
    "33 status 000": [b"HTTP/1.1 000 X\r\ncontent-length: 2\r\n\r\n{}"],
    "34 a field of 100 KB": [OK.replace(b"\r\n\r\n", b"\r\nx: " + b"a" * 100_000 + b"\r\n\r\n")],
    "34 300 fields": [OK.replace(b"\r\n\r\n", b"".join(b"\r\nx-%d: a" % n for n in range(300)) + b"\r\n\r\n")],
    "34 NUL in a value": [OK.replace(b"\r\n\r\n", b"\r\nx: a\0b\r\n\r\n")],
    "34 CL twice, different": [OK.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n")],
    "34 CL as a list": [OK.replace(b"length: 2", b"length: 2, 2")],
    "34 TE: gzip, chunked": [CHUNKED.replace(b"chunked", b"gzip, chunked") + CHUNK + b"0\r\n\r\n"],
    "36 429": [OK.replace(b"200 OK", b"429 Too Many\r\nretry-after: 1")],
    "37 422": [OK.replace(b"200 OK", b"422 No")],
    "38 500": [OK.replace(b"200 OK", b"500 Oops")],
    "39 101 unasked": [b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello"],
    "39 500 × 100 Continue": [b"HTTP/1.1 100 Continue\r\n\r\n" * 500 + OK],
    "40 CL short, FIN": [OK.replace(b"length: 2", b"length: 9")],
    "40 CL short, RST": [OK.replace(b"length: 2", b"length: 9"), RESET],
    "40 chunked, FIN": [CHUNKED, CHUNK],
    "40 chunked, RST": [CHUNKED, CHUNK, RESET],
    "40 half a chunk, FIN": [CHUNKED, CHUNK, CHUNK[:9]],
    "40 bad chunk": [CHUNKED, CHUNK, b"zz\r\n"],
    "40 until close, FIN": [b"HTTP/1.1 200 OK\r\n\r\n", b"{}"],
    "40 until close, RST": [b"HTTP/1.1 200 OK\r\n\r\n", b"{}", RESET],
    "41 no [DONE]": [CHUNKED, CHUNK, b"0\r\n\r\n"],
    "43 bytes after the end": [OK + b"surplus"],
    "43 body of a 204": [b"HTTP/1.1 204 No\r\n\r\nsurplus"],
    "43 TE and CL": [CHUNKED.replace(b"transfer", b"content-length: 5\r\ntransfer") + CHUNK + b"0\r\n\r\n"],
}


def told(data):
    """The statuses in what came back, and whether the last body is whole."""
    statuses, end = [], ""
    while match := re.match(rb"HTTP/1\.[01] (\d{3}) ", data):
        head, _, data = data.partition(b"\r\n\r\n")
        status, head = int(match[1]), head.lower()
        length = re.search(rb"content-length: (\d+)", head)
        if 100 <= status < 101:
            continue
        statuses.append(status)
        if status in (101, 204):
            end = ""
        elif b"transfer-encoding: chunked" in head:
            body, last, data = data.partition(b"0\r\n\r\n")
            end = "whole" if last else "cut"
        elif length:
            size = int(length[1])
            end = "whole" if len(data) >= size else "cut"
            data = data[size:]
        else:
            data, end = b"", "until close"
    return " ".join(map(str, statuses)) or "nothing", end


def ask(port, sent, finishes):
    """What a client sees: statuses, how the body ends, what becomes of the connection."""
    data, state = b"", "kept"
    with socket.create_connection(("127.0.0.1", port), 5) as peer:
        peer.settimeout(1.5)
        try:
            peer.sendall(sent)
            if finishes:
                peer.shutdown(socket.SHUT_WR)
            while True:
                if not (piece := peer.recv(65536)):
                    state = "closed"
                    break
                data += piece
        except TimeoutError:
            pass
        except OSError:
            state = "reset"
    return (*told(data), state)


def case(engine, port, name):
    engine.answer = ENGINES.get(name, [OK])
    engine.seen = engine.whole = 0
    statuses, end, state = ask(port, CLIENTS.get(name) or post(), name.startswith("22 "))
    # What is refused comes to no engine; what is tried again comes twice.
    return f"{statuses} {end}".strip(), state, f"{engine.whole} of {engine.seen}" if engine.seen else "none"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    # Case → why: the table of differences.
    text = (DOCS / "http.md").read_text()
    section = text.split("\n## Differences from Envoy\n", 1)[1]
    explained = set(re.findall(r"^\| `([^`]+)` \|", section, re.M))
    rows, unexplained, same = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        engines = [Engine(), Engine()]
        # One fault does not close the only engine, for which there is no other.
        file = pathlib.Path(folder) / "dynamic.json"
        file.write_text('{"breaker": {"failures": 1000, "min_requests": 100000}}')
        ours = c.start_proxy(options.binary, [engines[0].port], "--dynamic-config-json", file)[1]
        theirs = rivals.envoy(engines[1].port, pathlib.Path(folder) / "envoy")[1]
        for name in (*CLIENTS, *ENGINES):
            us, envoy = case(engines[0], ours, name), case(engines[1], theirs, name)
            differs = us != envoy
            same += not differs
            if differs and name not in explained:
                unexplained.append(name)
            if differs or options.all:
                rows.append([name, *us, *envoy, "" if not differs else "told" if name in explained else "UNTOLD"])
    print(c.table(["case", "ours", "connection", "engine saw", "Envoy's", "connection", "engine saw", ""], rows))
    print(f"\n{same} of {len(CLIENTS) + len(ENGINES)} cases are the same in all three")
    if unexplained:
        print(f"not explained: {', '.join(unexplained)}")
    sys.exit(bool(unexplained))


if __name__ == "__main__":
    main()
