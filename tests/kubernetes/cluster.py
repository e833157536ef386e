"""A control plane of its own (etcd, kube-apiserver) on loopback, or an existing one."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

from processes import Process
from servers import eventually, free_ports, get

MERGE = "application/merge-patch+json"


class Refused(Exception):
    """An answer of the API server that is none of 2xx."""

    def __init__(self, status, method, path, text):
        super().__init__(f"{method} {path}: {status} {text[:500]}")
        self.status = status


class Api:
    """Requests to an API server; one connection for each thread that asks."""

    def __init__(self, url, tls, token=None):
        self.url, self.tls, self.own = url, tls, threading.local()
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    def connection(self):
        if not hasattr(self.own, "connection"):
            address = urllib.parse.urlsplit(self.url)
            self.own.connection = http.client.HTTPSConnection(
                address.hostname, address.port or 443, context=self.tls, timeout=30)
        return self.own.connection

    def ask(self, method, path, body=None, kind="application/json"):
        """Its answer, read; on a connection that is gone, once more."""
        sent = None if body is None else json.dumps(body)
        headers = self.headers | ({"content-type": kind} if sent else {})
        for is_last in (False, True):
            connection = self.connection()
            try:
                connection.request(method, path, sent, headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                if is_last:
                    raise
        if not 200 <= answer.status < 300:
            raise Refused(answer.status, method, path, text)
        return json.loads(text) if text[:1] == "{" else text

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body):
        return self.ask("POST", path, body)

    def patch(self, path, body, kind=MERGE):
        return self.ask("PATCH", path, body, kind)

    def delete(self, path, grace=None):
        body = {"apiVersion": "v1", "kind": "DeleteOptions"}
        return self.ask("DELETE", path, body | ({} if grace is None else {"gracePeriodSeconds": grace}))

    def is_ready(self):
        with contextlib.suppress(Refused, OSError, http.client.HTTPException):
            return self.get("/readyz") == "ok"
        return False


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def elliptic(name, subject):
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            f"/CN={subject}", "-keyout", f"{name}.key"]


class ControlPlane:
    """etcd and one kube-apiserver, with a second door to the same etcd that
    nobody but we know of: what happens while the first one is closed."""

    can_be_killed = True

    def __init__(self, assets, folder):
        self.assets, self.folder = pathlib.Path(assets), pathlib.Path(folder)
        for name in ("etcd", "kube-apiserver"):
            if not os.access(self.assets / name, os.X_OK):
                sys.exit(f"KUBEBUILDER_ASSETS: there is no {name} in {assets} that can be run")
        self.front, self.back, client, peer = free_ports(4)
        self.etcd_url, self.token = f"http://127.0.0.1:{client}", secrets.token_hex(16)
        self.certify()
        self.data = self.folder / "etcd-data"
        peers = f"http://127.0.0.1:{peer}"
        self.etcd = Process("etcd", [
            self.assets / "etcd", "--name", "test", "--data-dir", self.data,
            "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"test={peers}"], self.folder)
        self.server = self.door("kube-apiserver", self.front)
        self.second = self.door("kube-apiserver-second", self.back)
        self.tls = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        self.authority = (self.folder / "ca.crt").read_bytes()
        self.url = f"https://127.0.0.1:{self.front}"
        self.admin = Api(self.url, self.tls, self.token)
        self.behind = Api(f"https://127.0.0.1:{self.back}", self.tls, self.token)

    def certify(self):
        """An authority, the server's certificate, the key for service accounts' tokens."""
        at = self.folder
        openssl("req", "-x509", *elliptic(at / "ca", "test-authority"), "-days", 7, "-out", at / "ca.crt",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl("req", "-new", *elliptic(at / "server", "kube-apiserver"), "-out", at / "server.csr")
        (at / "server.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n"
                                       "extendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", at / "server.csr", "-CA", at / "ca.crt", "-CAkey", at / "ca.key",
                "-CAcreateserial", "-days", 7, "-out", at / "server.crt", "-extfile", at / "server.ext")
        openssl("genrsa", "-out", at / "accounts.key", 2048)
        (at / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n")

    def door(self, name, port):
        at = self.folder
        return Process(name, [
            self.assets / "kube-apiserver", f"--etcd-servers={self.etcd_url}",
            "--bind-address=127.0.0.1", f"--secure-port={port}", "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
            f"--tls-cert-file={at}/server.crt", f"--tls-private-key-file={at}/server.key",
            f"--token-auth-file={at}/tokens.csv", "--authorization-mode=RBAC", "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at}/accounts.key",
            f"--service-account-signing-key-file={at}/accounts.key",
            f"--cert-dir={at}"], at)

    def start(self):
        """Returns when it is ready."""
        if not self.etcd.is_running():
            self.etcd.start()
            eventually("etcd is healthy", lambda: get(f"{self.etcd_url}/health")[0] == 200, 30)
        self.server.start()
        self.wait(self.server, self.admin)

    def wait(self, server, api):
        def is_ready():
            assert server.is_running(), f"{server.name} ended:\n{server.log()[-2000:]}"
            return api.is_ready()

        eventually(f"{server.name} is ready", is_ready, 120)

    def crash(self):
        self.server.kill()

    @contextlib.contextmanager
    def behind_the_back(self):
        """While the first API server is away: another to the same etcd."""
        with self.second:
            self.wait(self.second, self.behind)
            yield self.behind

    def copy(self):
        """A copy of etcd's data, as of one moment."""
        kept = self.folder / "etcd-copy"
        self.etcd.signal(signal.SIGSTOP)
        try:
            shutil.copytree(self.data, kept)
        finally:
            self.etcd.signal(signal.SIGCONT)
        return kept

    def go_back_to(self, kept):
        """All crashes, and what comes back is a copy that was made earlier."""
        self.server.kill()
        self.etcd.kill()
        shutil.rmtree(self.data)
        kept.rename(self.data)
        self.start()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in (self.second, self.server, self.etcd):
            # It may be halted, and there is nothing in it to lose.
            process.kill()


class Existing:
    """The cluster of a kubeconfig, as kubectl reads it. Nothing of it is started or stopped."""

    can_be_killed = False

    def __init__(self, kubeconfig, folder):
        said = subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "config", "view", "--raw",
                               "--minify", "--flatten", "-o", "json"],
                              check=True, capture_output=True, text=True).stdout
        config = json.loads(said)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = cluster["server"]
        self.authority = base64.b64decode(cluster["certificate-authority-data"])
        self.tls = ssl.create_default_context(cadata=self.authority.decode())
        if "client-certificate-data" in user:
            pair = pathlib.Path(folder) / "user.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(base64.b64decode(user["client-certificate-data"])
                             + base64.b64decode(user["client-key-data"]))
            self.tls.load_cert_chain(pair)
        assert user.keys() & {"token", "client-certificate-data"}, (
            "the user of TEST_KUBECONFIG has neither a token nor a certificate: give one that has")
        self.admin = Api(self.url, self.tls, user.get("token"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def control_plane(folder):
    if kubeconfig := os.environ.get("TEST_KUBECONFIG"):
        return Existing(kubeconfig, folder)
    return ControlPlane(os.environ["KUBEBUILDER_ASSETS"], folder)


def now():
    return time.monotonic()
