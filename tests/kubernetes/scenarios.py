"""What happens to pods, and what must follow."""

import os
import statistics
import threading
import time

from cluster import now
from servers import eventually
from sidecar import MODEL, idle
from traffic import Traffic, ask

IDLE = float(os.environ.get("TEST_IDLE_SECONDS", 20))
# From a change in the API server to where requests go: half of the changes within
# this; each within twenty times as much, for a machine that has other work.
SOON = float(os.environ.get("TEST_SOON_SECONDS", 0.1))
LATE = 20 * SOON
GIVEN = {"annotations": {"pilotfish.dev/models": f'["{MODEL}"]'}}


def check_delays(what, delays):
    shown = ", ".join(f"{delay * 1000:.0f}" for delay in delays)
    print(f"  {what}: {shown} ms")
    assert statistics.median(delays) <= SOON and max(delays) <= LATE, f"{what}: {shown} ms"


def appear(world):
    """Pods appear, and are asked as soon as they are ready."""
    namespace, sidecar, one, two, three = world.namespace, world.sidecar, *world.hosts[:3]
    eventually("the sidecar is ready without a pod", lambda: sidecar.readyz() == 200, 10)
    assert sidecar.engines() == {}, sidecar.engines()
    client = Traffic(sidecar).connection()
    fault = ask(client, False).fault
    assert fault and fault[:3] in ("404", "503"), fault
    namespace.create("e1", **GIVEN)
    time.sleep(0.3)
    assert sidecar.open() == set(), "a pod that was never ready gets requests"
    namespace.report("e1", one)
    eventually("the first engine", lambda: ask(client, False).fault is None, 5)
    world.begin()
    traffic = world.traffic
    assert traffic.over(0.3) == {one}
    given = traffic.until_used(two, namespace.engine("e2", two, **GIVEN))
    asked = traffic.until_used(three, namespace.engine("e3", three))
    print(f"  a new pod: {given * 1000:.0f} ms; one that must be asked for its models: {asked * 1000:.0f} ms")
    assert max(given, asked) <= LATE
    traffic.settles({one, two, three}, 5)


def readiness(world):
    """A pod that is not ready gets nothing new, and comes back."""
    namespace, traffic = world.namespace, world.traffic
    lost, back = [], []
    for name, host in [("e2", world.hosts[1]), ("e3", world.hosts[2])] * 3:
        at, _ = namespace.report(name, host, is_ready=False)
        lost.append(traffic.until_unused(host, at))
        # It stays as it is.
        assert host not in traffic.over(0.3)
        at, _ = namespace.report(name, host)
        back.append(traffic.until_used(host, at))
    check_delays("not ready until the last request", lost)
    check_delays("ready until the first answer", back)


def terminating(world):
    """A pod that is being deleted while it streams: the stream ends well, no request comes."""
    namespace, traffic, host = world.namespace, world.traffic, world.hosts[3]
    delays = []
    for turn in range(3):
        name = f"leaving-{turn}"
        at = namespace.engine(name, host, node="nowhere", **GIVEN)
        traffic.until_used(host, at)
        with traffic.long_streams(host):
            at = namespace.delete(name)
            said = namespace.api.get(f"{namespace.path}/pods/{name}")
            assert "deletionTimestamp" in said["metadata"], "the pod is gone, not Terminating"
            delays.append(traffic.until_unused(host, at))
        assert traffic.ended - at > 1, f"the streams ended {traffic.ended - at:.2f} s after the deletion"
        assert host not in traffic.used(at + LATE)
        namespace.delete(name, grace=0)
        eventually("the engine is forgotten", lambda: not any(host in url for url in world.sidecar.engines()), 10)
        assert host not in traffic.over(0.3)
        traffic.check()
    check_delays("being deleted until the last request, with streams that ended well", delays)


def labels(world):
    """A label that leaves the selector, and what annotations say."""
    namespace, traffic, host = world.namespace, world.traffic, world.hosts[2]
    left, back = [], []
    for _ in range(3):
        left.append(traffic.until_unused(host, namespace.annotate("e3", labels={"app": "other"})))
        back.append(traffic.until_used(host, namespace.annotate("e3", labels={"app": "engine"})))
    check_delays("left the selector until the last request", left)
    check_delays("back in the selector until the first answer", back)

    def entry():
        return next(e for url, e in world.sidecar.engines().items() if host in url)

    namespace.annotate("e3", annotations={
        "pilotfish.dev/weight": "2.5", "pilotfish.dev/models": f'["{MODEL}", "other"]',
        "pilotfish.dev/metadata": '{"team": "blue"}', "pilotfish.dev/region": "north"})
    eventually(f"the annotations are seen: {entry()}", lambda: (
        entry()["weight"] == 2.5 and entry().get("metadata") == {"team": "blue"}
        and entry().get("region") == "north" and set(entry()["serving_models"]) == {MODEL, "other"}), 5)
    # A word that makes no sense is left out; the pod is not.
    namespace.annotate("e3", annotations={"pilotfish.dev/weight": "much", "pilotfish.dev/metadata": "{"})
    eventually("nonsense is as nothing", lambda: (
        entry()["weight"] == 1.0 and not entry().get("metadata")), 5)
    eventually("the log tells of it", lambda: "pilotfish.dev/weight" in world.sidecar.log(), 5)
    assert host in traffic.over(0.4)
    namespace.annotate("e3", annotations=dict.fromkeys(
        f"pilotfish.dev/{key}" for key in ("weight", "models", "metadata", "region")))
    eventually("no annotations", lambda: entry()["serving_models"] == [MODEL], 5)


def flapping(world):
    """Readiness that comes and goes, quicker than anyone can follow; the last word counts."""
    namespace, traffic, host = world.namespace, world.traffic, world.hosts[1]
    for is_last_ready in (False, True):
        for turn in range(20):
            namespace.report("e2", host, is_ready=(turn % 2 == 0) != is_last_ready)
        took = traffic.settles(namespace.ready(), 5)
        last = "ready" if is_last_ready else "not ready"
        print(f"  20 changes, {last} in the end: right within {(took + 0.4) * 1000:.0f} ms")


def reused(world):
    """An address that another pod gets: none of the first one's state is inherited."""
    namespace, traffic, sidecar, host = world.namespace, world.traffic, world.sidecar, world.hosts[3]

    def uses():
        found = [e["connects"] + e["reuses"] for url, e in sidecar.engines().items() if host in url]
        assert len(found) <= 1, "an address is there twice"
        return found and found[0]

    traffic.until_used(host, namespace.engine("first", host, node="nowhere", **GIVEN))
    eventually("it is used", lambda: (uses() or 0) > 100, 20)
    # The first is still being deleted when the second has its address.
    namespace.delete("first")
    traffic.until_unused(host, now())
    before = uses()
    traffic.until_used(host, namespace.engine("second", host, **GIVEN))
    after = uses()
    assert after and after < before, f"requests of the address: {before} with the first pod, {after} with the second"
    namespace.delete("first", grace=0)
    assert host in traffic.over(0.5), "who had the address before took it along"
    namespace.delete("second", grace=0)
    traffic.settles(namespace.ready(), 5)


def crowd(world):
    """200 pods at once, some with two ports, and away again."""
    namespace, sidecar, traffic = world.namespace, world.sidecar, world.traffic
    hosts = [f"127.9.0.{n}" for n in range(1, 201)]
    began = now()
    for n, host in enumerate(hosts):
        ports = ",".join(map(str, world.crowd_ports[:1 + n % 2]))
        namespace.engine(f"crowd-{n}", host, annotations=GIVEN["annotations"] | {"pilotfish.dev/ports": ports})
    written = now()
    expected = {f"http://{host}:{port}" for n, host in enumerate(hosts) for port in world.crowd_ports[:1 + n % 2]}

    def crowd_open():
        return {url for url in sidecar.open() if "127.9." in url}

    eventually(f"{len(expected)} engines", lambda: crowd_open() == expected, 10)
    print(f"  200 pods written in {written - began:.1f} s, {len(expected)} engines open {now() - written:.2f} s later")
    eventually("each is asked", lambda: set(hosts) <= traffic.used(written), 20)
    for n in range(len(hosts)):
        namespace.delete(f"crowd-{n}", grace=0)
    eventually("all are gone", lambda: not crowd_open(), 10)
    traffic.settles(namespace.ready(), 10)


def dying(world):
    """An engine that dies in the midst of its streams: these break, and nothing else does."""
    namespace, traffic, host = world.namespace, world.traffic, world.hosts[4]
    at = namespace.engine("dying", host, **GIVEN)
    traffic.until_used(host, at)
    results, engine = [], world.engines[host]

    def stream(head):
        results.append(ask(traffic.connection(), True, 25, "slow=100", lambda engine: head.append(engine)))

    heads = [[] for _ in range(8)]
    threads = [threading.Thread(target=stream, args=(head,), daemon=True) for head in heads]
    for thread in threads:
        thread.start()
    eventually("streams are under way", lambda: sum(bool(head) for head in heads) == 8, 10)
    died = now()
    engine.kill()
    namespace.report("dying", host, is_ready=False)
    for thread in threads:
        thread.join()
    broken = [one for one in results if one.fault]
    assert all(one.engine == host for one in broken), broken
    assert len(broken) == sum(one.engine == host for one in results), results
    traffic.settles(namespace.ready(), 5)

    def was_on_it(one):
        return one.engine == host and one.is_stream and one.start <= died + 0.05 and one.end >= died - 0.05

    traffic.check(but=was_on_it)
    print(f"  {len(broken)} streams of 8 were on it and broke")
    namespace.delete("dying", grace=0)
    engine.start()


def ending(world):
    """Idle, it takes no CPU; told to stop, it stops."""
    world.end_traffic()
    share = idle(world.sidecar, IDLE)
    print(f"  idle with the watch open: {share * 100:.2f} % of a core over {IDLE:.0f} s")
    assert share <= 0.005, "an idle watch takes CPU"
    began = now()
    code = world.sidecar.stop(20)
    assert code == 0, f"exit code {code}"
    print(f"  SIGTERM: ended after {now() - began:.1f} s")
