"""Every address of loopback, on a few ports: many pods, one engine behind them."""

import asyncio
import contextlib
import socket
import threading


def listener(port):
    """On all addresses, but of loopback alone."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    made.bind(("0.0.0.0", port))
    made.listen(1024)
    made.setblocking(False)
    return made


async def copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Crowd(threading.Thread):
    """Passes connections on to an engine."""

    def __init__(self, ports, engine):
        super().__init__(daemon=True)
        self.sockets, self.engine = [listener(port) for port in ports], engine
        self.loop = asyncio.new_event_loop()

    async def passes(self, reader, writer):
        try:
            there, back = await asyncio.open_connection(*self.engine)
        except OSError:
            return writer.close()
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async def serve(self):
        for one in self.sockets:
            await asyncio.start_server(self.passes, sock=one)

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.serve())
        self.loop.run_forever()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join()
        for one in self.sockets:
            one.close()
