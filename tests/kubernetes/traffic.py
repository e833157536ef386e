"""Clients that never stop asking, and what became of each request."""

import collections
import contextlib
import http.client
import itertools
import json
import threading
import time

from cluster import now
from servers import eventually
from sidecar import MODEL, host

# `engine`: the address of who answered, `None` if nobody is known; `fault`: what
# went wrong, if anything.
Done = collections.namedtuple("Done", "start end engine is_stream fault")
MESSAGES = [{"role": "user", "content": "Where does the pilot fish swim?"}]


def ask(connection, is_stream, tokens=4, fault=None, told=None):
    """One chat request, read to its end. `told` hears which engine it is as soon
    as the head is there."""
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": tokens, "stream": is_stream}
    headers = {"content-type": "application/json", "x-pilotfish-explain": "1"}
    if fault:
        headers["x-sim-fault"] = fault
    start, engine = now(), None
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        engine = answer.headers.get("x-pilotfish-engine")
        engine = engine and host(engine)
        if told:
            told(engine)
        text = answer.read().decode()
        wrong = wrong_with(answer.status, text, is_stream, tokens)
    except (http.client.HTTPException, OSError) as error:
        connection.close()
        wrong = repr(error)
    return Done(start, now(), engine, is_stream, wrong)


def wrong_with(status, text, is_stream, tokens):
    if status != 200:
        return f"{status} {text[:300]}"
    if not is_stream:
        counted = json.loads(text)["usage"]["completion_tokens"]
        return None if counted == tokens else f"{counted} tokens of {tokens}"
    pieces = text.count('"content"')
    if pieces != tokens or not text.endswith("data: [DONE]\n\n"):
        return f"a stream of {pieces} tokens of {tokens} that ends with {text[-100:]!r}"
    return None


class Traffic:
    """So many clients, streams and whole answers in turn, for as long as the block lasts."""

    def __init__(self, sidecar, clients=4, pause=0.008):
        self.sidecar, self.pause = sidecar, pause
        self.done, self.records, self.checked = threading.Event(), [], 0
        self.threads = [threading.Thread(target=self.client, args=(n,), daemon=True) for n in range(clients)]

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.sidecar.port, timeout=30)

    def client(self, number):
        connection = self.connection()
        for turn in itertools.count(number):
            if self.done.is_set():
                return connection.close()
            # A list's append is atomic.
            self.records.append(ask(connection, bool(turn % 2)))
            time.sleep(self.pause)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()

    def since(self, start, end=float("inf")):
        """The requests that began then. The newest come last, nearly in order."""
        found = []
        for one in reversed(self.records):
            if one.start < start - 35:
                break
            if start <= one.start < end:
                found.append(one)
        return found

    def used(self, start, end=float("inf")):
        return {one.engine for one in self.since(start, end) if one.engine}

    def over(self, seconds):
        """The engines that got requests from now on, for so long."""
        start = now()
        time.sleep(seconds)
        return self.used(start)

    def until_used(self, engine, since, within=10):
        """Seconds from `since` until that engine had answered a request."""
        def ends():
            return [one.end for one in self.since(since - 1) if one.engine == engine and one.end > since]

        eventually(f"{engine} answers", ends, within)
        return min(ends()) - since

    def until_unused(self, engine, since, quiet=0.5, within=10):
        """Seconds from `since` until the last request that went to that engine,
        which it is when none has followed for a while."""
        last = since
        while now() < last + quiet:
            assert last < since + within, f"{engine} still gets requests"
            time.sleep(0.05)
            last = max([one.start for one in self.since(since) if one.engine == engine], default=since)
        return last - since

    def settles(self, expected, within):
        """Seconds until exactly those engines get requests."""
        began, seen = now(), None
        while now() < began + within + 0.5:
            start = now()
            seen = self.over(0.4)
            if seen == expected:
                return start - began
        raise AssertionError(f"after {within} s requests go to {sorted(seen)}, not to {sorted(expected)}; "
                             f"the sidecar tells of {told(self.sidecar)}")

    def check(self, but=lambda one: False):
        """No request failed since the last look, but for those."""
        new, self.checked = self.records[self.checked:], len(self.records)
        failed = [one for one in new if one.fault and not but(one)]
        assert not failed, f"{len(failed)} of {len(new)} requests failed, such as {failed[:3]}"
        return len(new)

    @contextlib.contextmanager
    def long_streams(self, engine, tokens=25, every=100):
        """Streams of 2.5 s at that engine, under way; at the end they have ended well."""
        heads, results = [], []

        def stream():
            results.append(ask(self.connection(), True, tokens, f"slow={every}", heads.append))

        threads = []
        # Turns are shared with all the traffic: some try until two have it.
        while heads.count(engine) < 2:
            assert len(threads) < 60, f"{engine} gets no streams: {heads}"
            threads.append(threading.Thread(target=stream, daemon=True))
            threads[-1].start()
            eventually("a stream's head", lambda: len(heads) == len(threads) or results, 10)
            assert not any(one.fault for one in results), results
        yield
        for thread in threads:
            thread.join()
        mine = [one for one in results if one.engine == engine]
        assert len(mine) >= 2 and not any(one.fault for one in results), results
        self.ended = max(one.end for one in mine)


def told(sidecar):
    keys = ("engine_id", "state", "closed", "serving_models")
    return [{key: entry.get(key) for key in keys} for entry in sidecar.engines().values()]
