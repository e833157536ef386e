"""What else than pods tells of engines."""

import contextlib

from cluster import Refused, now
from objects import POOL
from scenarios import GIVEN
from servers import eventually
from sidecar import Sidecar, kubernetes


def pool(world):
    """An InferencePool: its selector and ports, and both when they change."""
    namespace = world.namespace
    world.define_pools()
    pools = f"/apis/inference.networking.k8s.io/v1/namespaces/{namespace.name}/inferencepools"
    namespace.annotate("e2", labels={"tier": "gold"})
    one, two, _ = world.hosts[:3]

    def spec(labels, *ports):
        return {"spec": {"selector": {"matchLabels": labels}, "targetPorts": [{"number": port} for port in ports]}}

    flags = kubernetes(namespace.name, world.port, "--k8s-source", "inferencepool",
                       "--k8s-inference-pool", POOL, selector=None)
    with Sidecar(world.binary, "pool", world.folder, world.kubeconfig, *flags) as sidecar:
        def becomes(what, engines):
            expected, at = {f"http://{host}:{port}" for host, port in engines}, now()
            try:
                eventually(what, lambda: sidecar.open() == expected, 10)
            except AssertionError as error:
                raise AssertionError(f"{error}: {sorted(sidecar.open())}, not {sorted(expected)}") from None
            print(f"  {what}: {now() - at:.2f} s")

        eventually("ready without a pool", lambda: sidecar.readyz() == 200, 15)
        namespace.api.post(pools, {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
                                   "metadata": {"name": POOL}} | spec({"app": "engine"}, world.port))
        becomes("a pool", [(host, world.port) for host in namespace.ready()])
        namespace.api.patch(f"{pools}/{POOL}", spec({"app": "engine", "tier": "gold"}, world.port))
        becomes("another selector", [(two, world.port)])
        namespace.annotate("e1", labels={"tier": "gold"})
        becomes("a pod that comes under it", [(one, world.port), (two, world.port)])
        first, second = world.crowd_ports
        ports = [{"number": port} for port in world.crowd_ports]
        namespace.api.patch(f"{pools}/{POOL}", {"spec": {"targetPorts": ports}})
        becomes("other ports", [(one, first), (one, second), (two, first), (two, second)])
        key = "inference.networking.k8s.io/active-ports"
        namespace.annotate("e2", annotations={key: str(second)})
        becomes("a pod that uses one of them", [(one, first), (one, second), (two, second)])
        namespace.annotate("e2", annotations={key: None})
        namespace.api.delete(f"{pools}/{POOL}")
        becomes("no pool, no engines", [])
        assert sidecar.readyz() == 200
    for name in ("e1", "e2"):
        namespace.annotate(name, labels={"tier": None})


def services(world):
    """Services by name. Their names do not resolve here: seen in `/engines` only."""
    namespace = world.namespace
    # Addresses of loopback are refused in Endpoints; nobody has this one.
    addresses = [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": world.port}]}]
    flags = kubernetes(namespace.name, world.port, "--k8s-service-discovery-type", "service-name")
    meta = {"name": "chat", "labels": {"app": "engine"}, "annotations": GIVEN["annotations"]}
    namespace.api.post(f"{namespace.path}/services", {"metadata": meta, "spec": {"ports": [{"port": world.port}]}})
    url = f"http://chat.{namespace.name}.svc:{world.port}"
    with Sidecar(world.binary, "services", world.folder, world.kubeconfig, *flags) as sidecar:
        eventually("ready", lambda: sidecar.readyz() == 200, 15)
        assert url not in sidecar.engines(), "a service without an address is an engine"
        namespace.api.post(f"{namespace.path}/endpoints", {"metadata": {"name": "chat", "labels": {"app": "engine"}},
                                                           "subsets": addresses})
        eventually(f"{url} in /engines: {sidecar.engines()}", lambda: url in sidecar.engines(), 5)
        namespace.api.patch(f"{namespace.path}/endpoints/chat", {"subsets": None})
        eventually("without an address it is closed", lambda: url not in sidecar.open(), 5)
        namespace.api.delete(f"{namespace.path}/services/chat")
        eventually("a service that is deleted", lambda: url not in sidecar.engines(), 5)
    with contextlib.suppress(Refused):
        namespace.api.delete(f"{namespace.path}/endpoints/chat")


def slices(world):
    """EndpointSlices, where the API server has version v1 of them."""
    namespace = world.namespace
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace.name}/endpointslices"
    try:
        namespace.api.get(path)
    except Refused as error:
        assert error.status == 404, error
        return print("  not tested: this API server has no EndpointSlice v1 (before 1.21)")
    one, two = world.hosts[:2]
    # Addresses of loopback are refused here too.
    wanted = {ip: f"http://{ip}:{world.port}" for ip in ("192.0.2.1", "192.0.2.2")}

    def endpoints(**ready):
        return [{"addresses": [ip], "conditions": {"ready": ready.get(key, True)}}
                for key, ip in zip(("one", "two"), wanted, strict=True)]

    namespace.api.post(path, {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "chat-1", "labels": {"app": "engine", "kubernetes.io/service-name": "chat"}},
        "endpoints": endpoints(), "ports": [{"name": "http", "port": world.port, "protocol": "TCP"}]})
    flags = kubernetes(namespace.name, world.port, "--k8s-source", "endpointslices")
    # Nobody answers at these addresses: who is an engine is told by the metric.
    with Sidecar(world.binary, "slices", world.folder, world.kubeconfig, *flags) as sidecar:
        found = "pilotfish_discovery_engines"
        eventually("both", lambda: (sidecar.metric(found) or 0) == 2, 10)
        namespace.api.patch(f"{path}/chat-1", {"endpoints": endpoints(two=False)})
        eventually("one is closed", lambda: "192.0.2.2" not in str(sidecar.open()), 5)
        namespace.api.delete(f"{path}/chat-1")
        eventually("none", lambda: (sidecar.metric(found) or 0) == 0, 5)
