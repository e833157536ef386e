"""What is written into the API server: a namespace, an account that may little, pods."""

import base64
import contextlib
import json
import pathlib

from cluster import Refused, now
from servers import eventually

LABELS = {"app": "engine"}
ACCOUNT = "sidecar"
POOL = "pool"
RULES = {
    "pods": {"apiGroups": [""], "resources": ["pods"]},
    "services": {"apiGroups": [""], "resources": ["services", "endpoints"]},
    # By its name alone: a list and a watch that name it are allowed, no others.
    "pools": {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"],
              "resourceNames": [POOL]},
    "slices": {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
}
POOLS = "inferencepools.inference.networking.k8s.io"
NUMBER = {"type": "object", "required": ["number"],
          "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 65535}}}
POOL_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    # The group is Kubernetes' own: the server wants a word on who approved.
    "metadata": {"name": POOLS, "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"}},
    "spec": {
        "group": "inference.networking.k8s.io", "scope": "Namespaced",
        "names": {"kind": "InferencePool", "plural": "inferencepools", "singular": "inferencepool"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {
                "type": "object", "required": ["selector", "targetPorts"],
                "properties": {
                    "selector": {"type": "object", "properties": {"matchLabels": {
                        "type": "object", "additionalProperties": {"type": "string"}}}},
                    "targetPorts": {"type": "array", "items": NUMBER, "maxItems": 8},
                    "appProtocol": {"type": "string"},
                }}}}}}]}}


def status(ip, is_ready=True, phase="Running"):
    word = "True" if is_ready else "False"
    # The kubelet writes these too; only Ready is looked at.
    kinds = {"Initialized": "True", "Ready": word, "ContainersReady": word, "PodScheduled": "True"}
    return {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": kind, "status": kinds[kind]} for kind in kinds]}


def pod(name, labels=None, annotations=None, node=None):
    """A pod that no scheduler and no kubelet looks at."""
    spec = {"containers": [{"name": "engine", "image": "engine.invalid/engine:1"}],
            "schedulerName": "nobody", "automountServiceAccountToken": False,
            # The account `default` is made by a controller, some time after the namespace.
            "serviceAccountName": ACCOUNT}
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": labels or LABELS, "annotations": annotations or {}},
            "spec": spec | ({"nodeName": node} if node else {})}


class Namespace:
    """A namespace of the tests, and what they do in it."""

    def __init__(self, plane, name):
        self.plane, self.api, self.name = plane, plane.admin, name
        self.path = f"/api/v1/namespaces/{name}"
        self.roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}"

    def __enter__(self):
        self.api.post("/api/v1/namespaces", {"metadata": {"name": self.name}})
        self.api.post(f"{self.path}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        for kind, rule in RULES.items():
            self.api.post(f"{self.roles}/roles", {
                "metadata": {"name": f"sidecar-{kind}"},
                "rules": [rule | {"verbs": ["list", "watch"]}]})
            self.permit(kind)
        return self

    def __exit__(self, *_):
        if not self.plane.can_be_killed:
            self.api.delete(f"/api/v1/namespaces/{self.name}")

    def permit(self, kind):
        """Binds the account to a Role; returns when that is in force."""
        self.api.post(f"{self.roles}/rolebindings", {
            "metadata": {"name": f"sidecar-{kind}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"sidecar-{kind}"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.name}]})
        eventually(f"{kind} may be seen", lambda: self.may(kind), 10)

    def forbid(self, kind):
        self.api.delete(f"{self.roles}/rolebindings/sidecar-{kind}")
        eventually(f"{kind} may not be seen", lambda: not self.may(kind), 10)

    def may(self, kind):
        rule = RULES[kind]
        asked = {"namespace": self.name, "verb": "watch", "group": rule["apiGroups"][0],
                 "resource": rule["resources"][0], "name": rule.get("resourceNames", [""])[0]}
        answer = self.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {
            "user": f"system:serviceaccount:{self.name}:{ACCOUNT}", "resourceAttributes": asked}})
        return answer["status"]["allowed"]

    def kubeconfig(self, folder):
        """A file for the sidecar: the account's token, and nobody's else."""
        token = self.api.post(f"{self.path}/serviceaccounts/{ACCOUNT}/token", {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200}})["status"]["token"]
        authority = base64.b64encode(self.plane.authority).decode()
        path = pathlib.Path(folder) / "sidecar.kubeconfig"
        path.touch(mode=0o600)
        # JSON is YAML.
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.plane.url, "certificate-authority-data": authority}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {
                "cluster": "test", "user": "test", "namespace": self.name}}]}))
        return path

    def through(self, api):
        """The same by another API server."""
        other = Namespace(self.plane, self.name)
        other.api = api
        return other

    def create(self, name, **more):
        return self.api.post(f"{self.path}/pods", pod(name, **more))

    def report(self, name, ip, is_ready=True, **more):
        """What a kubelet says of a pod; when it was accepted, and the pod."""
        said = self.api.patch(f"{self.path}/pods/{name}/status",
                              {"status": status(ip, is_ready, **more)})
        return now(), said

    def engine(self, name, ip, **more):
        """A pod that is ready; since when."""
        self.create(name, **more)
        return self.report(name, ip)[0]

    def annotate(self, name, **more):
        self.api.patch(f"{self.path}/pods/{name}", {"metadata": more})
        return now()

    def delete(self, name, grace=None):
        self.api.delete(f"{self.path}/pods/{name}", grace)
        return now()

    def clear(self):
        """Takes all pods away, at once."""
        for one in self.api.get(f"{self.path}/pods")["items"]:
            with contextlib.suppress(Refused):
                self.delete(one["metadata"]["name"], grace=0)

    def ready(self, selector="app=engine"):
        """The addresses that are to get requests, as the API server has them now."""
        pods = self.api.get(f"{self.path}/pods?labelSelector={selector}")["items"]
        return {one["status"]["podIP"] for one in pods if is_ready(one)}


def is_ready(one):
    conditions = {said["type"]: said["status"] for said in one["status"].get("conditions", [])}
    return (conditions.get("Ready") == "True" and bool(one["status"].get("podIP"))
            and "deletionTimestamp" not in one["metadata"])
