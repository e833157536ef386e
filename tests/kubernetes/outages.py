"""When the API server is away, has lost its memory, or says no."""

import contextlib
import os
import time

from cluster import now
from scenarios import GIVEN
from servers import eventually
from sidecar import Probe, Sidecar, kubernetes
from traffic import Traffic

OUTAGE = float(os.environ.get("TEST_OUTAGE_SECONDS", 30))
# Seconds after whatever kept the API server away.
RECOVERY = 10
CONTACT = "pilotfish_discovery_last_contact_seconds"
REFUSALS = r'pilotfish_discovery_errors_total\{reason="forbidden"\}'


def outage(world):
    """The API server is killed, pods change while it is away, and it comes back."""
    if not world.plane.can_be_killed:
        return print("  not tested: this API server is not ours to kill")
    plane, namespace, traffic, sidecar = world.plane, world.namespace, world.traffic, world.sidecar
    hosts, before = world.hosts, world.namespace.ready()
    # The admin's requests are the API server's too: the sidecar has its own.
    eventually("contact", lambda: sidecar.metric(CONTACT) < 70, 5)
    plane.crash()
    killed = now()
    with plane.behind_the_back() as api:
        blind = namespace.through(api)
        blind.delete("e2", grace=0)
        blind.report("e3", hosts[2], is_ready=False)
        blind.engine("e5", hosts[4], **GIVEN)
        time.sleep(max(0.0, OUTAGE - (now() - killed)))
        assert traffic.used(now() - 1) == before, "what was known last is not served any more"
        # Its last word was at most one watch before the crash.
        gone = sidecar.metric(CONTACT)
        assert gone >= (now() - killed) - 2, f"last contact {gone} s ago, killed {now() - killed:.1f} s ago"
        assert sidecar.readyz() == 200
        # What is said last, before anybody can hear it.
        blind.report("e1", hosts[0])
    traffic.check()
    plane.start()
    back = now()
    namespace.engine("e4", hosts[3], **GIVEN)
    namespace.delete("e5", grace=0)
    namespace.engine("e5-new", hosts[4], **GIVEN)
    expected = namespace.ready()
    assert expected == {hosts[0], hosts[3], hosts[4]}, expected
    traffic.settles(expected, RECOVERY)
    took = now() - back
    assert took <= RECOVERY + 0.5, f"set right only after {took:.1f} s"
    eventually("contact again", lambda: sidecar.metric(CONTACT) < 12, 15)
    print(f"  away for {back - killed:.0f} s, last contact {gone:.0f} s ago; set right {took:.1f} s after it was ready")
    world.put_back()


def restored(world):
    """etcd loses its last minutes: what it says now has older versions than what was heard."""
    if not world.plane.can_be_killed:
        return print("  not tested: this etcd is not ours to put back in time")
    plane, namespace, traffic = world.plane, world.namespace, world.traffic
    # A watch from a version that is yet to come is answered by 200 and silence.
    kept = plane.copy()
    # More versions than will come after.
    for turn in range(50):
        namespace.annotate("e1", annotations={"test/turn": str(turn)})
    namespace.delete("e2", grace=0)
    namespace.engine("e4", world.hosts[3], **GIVEN)
    traffic.settles(namespace.ready(), 5)
    plane.go_back_to(kept)
    back = now()
    # Once with what has been restored, and once with what is new but of an old version.
    expected = namespace.ready()
    assert world.hosts[1] in expected and world.hosts[3] not in expected, expected
    namespace.report("e3", world.hosts[2], is_ready=False)
    expected = namespace.ready()
    traffic.settles(expected, RECOVERY)
    print(f"  set right {now() - back:.1f} s after it was ready")
    world.put_back()


def forbidden(world):
    """Permission is taken away and given back; and is missing at the start."""
    namespace = world.namespace
    flags = kubernetes(namespace.name, world.port, "--k8s-watcher-timeout-seconds", "5")
    with contextlib.ExitStack() as stack:
        namespace.forbid("pods")
        stack.callback(lambda: namespace.may("pods") or namespace.permit("pods"))
        sidecar = stack.enter_context(Sidecar(world.binary, "forbidden", world.folder, world.kubeconfig, *flags))
        eventually("the log names the Role", lambda: names_the_role(sidecar.log(), namespace.name), 10)
        eventually("ready to say that there is no engine", lambda: sidecar.readyz() == 200, 15)
        assert sidecar.is_running() and sidecar.engines() == {}
        assert sidecar.metric(REFUSALS) >= 1 and sidecar.metric("pilotfish_discovery_synced") == 0
        namespace.permit("pods")
        at = now()
        eventually("engines come with the permission", lambda: sidecar.open_hosts() == namespace.ready(), RECOVERY)
        print(f"  missing at the start: engines {now() - at:.1f} s after it was given")
        assert sidecar.metric("pilotfish_discovery_synced") == 1
        eventually("contact", lambda: sidecar.metric(CONTACT) < 5, 5)
        traffic = stack.enter_context(Traffic(sidecar, clients=2))
        probe = Probe(sidecar)
        probe.start()
        served, said = namespace.ready(), len(sidecar.log())
        refused = sidecar.metric(REFUSALS)
        namespace.forbid("pods")
        # The watch that is open goes on; the next is refused.
        eventually("the log tells of it", lambda: names_the_role(sidecar.log()[said:], namespace.name), 20)
        at, silent = now(), sidecar.metric(CONTACT)
        namespace.report("e2", world.hosts[1], is_ready=False)
        time.sleep(6)
        assert sidecar.metric(REFUSALS) > refused, "refusals are not counted"
        # A refusal is an answer, and tells nothing of engines.
        gone = sidecar.metric(CONTACT)
        assert gone >= silent + (now() - at) - 1, f"last contact {silent:.1f} s ago, {gone:.1f} s six seconds later"
        assert sidecar.metric("pilotfish_discovery_synced") == 1, "what was listed once is known"
        assert traffic.over(0.5) == served, "what was known last is not served any more"
        namespace.permit("pods")
        at = now()
        traffic.settles(namespace.ready(), RECOVERY)
        eventually("contact again", lambda: sidecar.metric(CONTACT) < 5, 5)
        print(f"  taken away and given back: set right {now() - at:.1f} s after")
        namespace.report("e2", world.hosts[1])
        traffic.settles(namespace.ready(), 5)
        traffic.check()
        assert probe.end() == [], probe.bad
        # Ten seconds and more of refusals, in a few lines.
        told = sum("ERROR" in line or "WARN" in line for line in sidecar.log().splitlines())
        assert told <= 20, f"{told} lines of warnings and errors"


def names_the_role(log, namespace):
    """One line says what is missing, and where."""
    return any("Role" in line and "pods" in line and namespace in line for line in log.splitlines())
