"""POSTs that race with an engine which closes idle connections.

    race.py BINARY [--requests N] [--interval MS]

The engine closes a connection once it was idle for the interval; each client
sends a POST about that long after its last answer. Who picks a connection that
is being closed must notice, or ask again. Printed for us, nginx and Envoy:
requests, errors, connections to the engine, and the share of requests that
went over a connection which had carried one before.

There are two crowds: one client, whose every POST races, its pauses mostly a
little below the interval; and eight, whose pauses lie evenly around it. Of us
no error is borne, and of the eight at least nine POSTs in ten must go over a
connection that has carried one.
"""

import argparse
import asyncio
import pathlib
import random
import sys
import tempfile

import common as c
import rivals

ANSWER = b'{"choices":[]}'
HEAD = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"


class Engine(asyncio.Protocol):
    """Answers at once, and closes what is idle for too long."""

    connections = answered = reused = 0
    idle = 0.05

    def connection_made(self, transport):
        Engine.connections += 1
        self.transport, self.buffer, self.timer, self.count = transport, b"", None, 0

    def data_received(self, data):
        if self.timer:
            self.timer.cancel()
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = 0
            for line in head.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            chunked = b"transfer-encoding: chunked" in head
            rest = self.buffer[end + 4 :]
            if chunked:
                last = rest.find(b"0\r\n\r\n")
                if last < 0:
                    return
                length = last + 5
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            if head.startswith(b"post"):
                Engine.answered += 1
                Engine.reused += self.count > 0
                self.count += 1
            self.transport.write(HEAD.encode() + ANSWER)
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(Engine.idle, self.transport.close)

    def connection_lost(self, _):
        if self.timer:
            self.timer.cancel()


async def client(port, requests, pauses, begin):
    """Statuses, in the order of the requests; 0 where there was no answer."""
    statuses, peer = [], None
    # Clients are not in step.
    await asyncio.sleep(begin)
    for _ in range(requests):
        try:
            if peer is None:
                peer = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = peer
            writer.write(c.chat())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
            statuses.append(int(head.split(" ")[1]))
            if "content-length:" in head:
                await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
            else:
                await reader.readuntil(b"0\r\n\r\n")
            if "connection: close" in head:
                writer.close()
                peer = None
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            statuses.append(0)
            peer = None
        await asyncio.sleep(pauses())
    return statuses


async def race(start, options, clients, spread):
    """One proxy before one engine."""
    Engine.idle = options.interval / 1000
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    engine = server.sockets[0].getsockname()[1]
    started = await asyncio.to_thread(start, engine)
    if started is None:
        server.close()
        return None
    process, port = started
    Engine.connections = Engine.answered = Engine.reused = 0
    generator = random.Random(1)
    low, high = spread
    each = [
        client(
            port,
            options.requests // clients,
            lambda: max(0, Engine.idle + generator.uniform(low, high)),
            Engine.idle * number / clients,
        )
        for number in range(clients)
    ]
    statuses = sum(await asyncio.gather(*each), [])
    await asyncio.to_thread(process.stop)
    server.close()
    errors = {status: statuses.count(status) for status in set(statuses) - {200}}
    return len(statuses), errors, Engine.connections, Engine.reused / max(1, Engine.answered)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--interval", type=float, default=50)
    parser.add_argument("--only-us", action="store_true")
    options = parser.parse_args()
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        proxies = {"pilotfish": lambda engine: c.start_proxy(options.binary, [engine])}
        if not options.only_us:
            proxies["nginx"] = lambda engine: rivals.nginx(engine, folder / "nginx")
            proxies["envoy"] = lambda engine: rivals.envoy(engine, folder / "envoy")
        # Pauses, in seconds beside the interval.
        for crowd, clients, spread in (("1 client", 1, (-0.008, 0.0005)), ("8 clients", 8, (-0.005, 0.005))):
            for name, start in proxies.items():
                told = await race(start, options, clients, spread)
                if told is None:
                    rows.append([crowd, name, "-", "not installed", "-", "-"])
                    continue
                requests, errors, connections, reuse = told
                said = ", ".join(f"{count} × {status}" for status, count in sorted(errors.items()))
                rows.append([crowd, name, requests, said or 0, connections, f"{100 * reuse:.1f} %"])
                # Whoever is alone and comes too late finds nothing to reuse.
                rarely = clients > 1 and reuse <= 0.9
                failed |= name == "pilotfish" and (bool(errors) or rarely)
    print(c.table(["crowd", "proxy", "POSTs", "errors", "connections", "reuse"], rows))
    sys.exit(failed)


if __name__ == "__main__":
    asyncio.run(main())
