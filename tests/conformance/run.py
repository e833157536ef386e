"""Runs the tools and prints what they found; see run.sh."""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import common as c

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
GOOD, BAD, SKIPPED = "ok", "WRONG", "SKIPPED"
# Deadlines that a run need not wait for as long as a service would.
TIMEOUTS = {"client_head": 4, "client_body_idle": 4, "client_write_stall": 4}


def run(args, within, **more):
    """What a tool printed; what it had when its time was up."""
    try:
        told = subprocess.run(
            [str(arg) for arg in args], timeout=within, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **more,
        )
        return told.returncode, re.sub(r"\x1b\[[0-9;]*m", "", told.stdout)
    except subprocess.TimeoutExpired as late:
        text = late.stdout or b""
        return None, text.decode(errors="replace") if isinstance(text, bytes) else text


class Bed:
    """A proxy, its engines and its folder."""

    def __init__(self, binary, folder, quick, logs):
        self.binary, self.folder, self.quick, self.logs = binary, folder, quick, logs
        _, self.engine = c.start_engine(binary)
        file = folder / "dynamic.json"
        file.write_text(json.dumps({"timeouts": TIMEOUTS}))
        self.admin = c.free_port()
        flags = ["--admin-port", self.admin, "--dynamic-config-json", file]
        self.proxy, self.port = c.start_proxy(binary, [self.engine], *flags)
        self.url = f"http://127.0.0.1:{self.port}"

    def has_flag(self, flag):
        return flag in run([self.binary, "--help"], 10)[1]


def known_failures():
    """Case → cause: the table of docs/conformance.md."""
    text = (DOCS / "conformance.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.M)
    return {name: cause.strip() for name, cause in rows}


def httpwg(bed, tool):
    if not tool.exists():
        return SKIPPED, "could not be installed"
    # It waits 0.1 s for a frame unless told otherwise: less than a busy machine takes.
    waits = ["--frame-timeout", "3000", "--connect-timeout", "20000"]
    _, told = run([tool, "--address", f"127.0.0.1:{bed.port}", *waits], 120)
    passed = re.search(r"Passed (\d+)/(\d+) tests", told)
    if not passed:
        why = "this kernel has no io_uring" if "io_uring" in told.lower() or "uring" in told else told[-200:]
        return SKIPPED, " ".join(why.split())
    failed = {name.split(" :: ", 1)[1] for name in re.findall(r"Test failed: (.+)", told)}
    known = known_failures()
    new, mended = failed - known.keys(), known.keys() - failed
    note = f"{passed[1]} of {passed[2]} cases; the others are h2's: docs/conformance.md"
    if mended:
        note += f"; better than told there: {', '.join(sorted(mended))}"
    if new:
        return BAD, f"{passed[1]} of {passed[2]}; not in docs/conformance.md: {', '.join(sorted(new))}"
    return GOOD, note


class Others(threading.Thread):
    """Another client, who must be served meanwhile."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ended, self.served, self.failed, self.slowest = port, threading.Event(), 0, 0, 0.0
        self.start()

    def run(self):
        while not self.ended.wait(0.1):
            began = time.monotonic()
            try:
                c.page(self.port, "/version")
                self.served += 1
            except OSError:
                self.failed += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self):
        self.ended.set()
        self.join()
        return f"others: {self.served} served, {self.failed} not, the slowest took {self.slowest * 1000:.0f} ms"


def slow(bed, how):
    """slowhttptest: all closed before its own time is up, others served."""
    count = 200
    flags = {
        "-H": ["-H", "-i", "1", "-u", bed.url + "/"],
        "-B": ["-B", "-i", "1", "-s", "8192", "-t", "POST", "-f", "application/json", "-u", bed.url + c.CHAT],
        # A page of this size is wanted 10 times on each connection.
        "-X": ["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "10", "-u", bed.url + "/metrics"],
    }[how]
    others = Others(bed.port)
    _, told = run(["slowhttptest", "-c", count, "-r", "100", "-x", "24", "-l", "30", "-p", "3", *flags], 60)
    served = others.stop()
    ended = re.search(r"Exit status:\s+(.+)", told)
    seconds = re.search(r"ended on (\d+)", told)
    available = not re.search(r"service available:\s+NO", told)
    note = f"{count} connections, {ended and ended[1].strip()} after {seconds and seconds[1]} s; {served}"
    is_good = ended and "No open connections left" in ended[1] and available and not others.failed
    return GOOD if is_good else BAD, note


def h2load(bed, flags, url=None, what=c.CHAT):
    count = 4000 if bed.quick else 20_000
    body = bed.folder / "body"
    body.write_bytes(c.BODY)
    args = ["h2load", *flags, "-t1", f"-n{count}", "-d", body, "-H", "content-type: application/json"]
    _, told = run([*args, (url or bed.url) + what], 120)
    requests = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", told)
    speed = re.search(r"([\d.]+) req/s", told)
    if not requests or not speed:
        return BAD, " ".join(told[-200:].split())
    done, *wrong = (int(number) for number in requests.groups())
    note = f"{done} of {count} requests, {speed[1]} a second"
    return GOOD if done == count and not any(wrong) else BAD, note


def schemathesis(bed, tag):
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    port = {"public": bed.port, "admin": bed.admin}[tag]
    phases, examples = ("examples,fuzzing", 10) if bed.quick else ("examples,coverage,fuzzing", 60)
    code, told = run(
        [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", DOCS / "openapi.yaml"]
        + ["--url", f"http://127.0.0.1:{port}", "--include-tag", tag, "--checks", checks]
        # Whatever it is sent, it answers 501, which the first check takes for a fault.
        + ["--exclude-operation-id", "upload"]
        + ["--phases", phases, "--max-examples", examples, "--seed", 1],
        300, cwd=bed.folder,
    )
    cases = re.search(r"(\d+) generated, .*", told)
    if code == 0 and cases:
        return GOOD, cases[0]
    log = bed.logs / f"schemathesis-{tag}.log"
    log.write_text(told)
    found = re.findall(r"^(?:_+ )?((?:GET|POST|PUT|DELETE) /\S*)", told, re.M)
    return BAD, f"{cases and cases[0]}; see {log}: {', '.join(sorted(set(found)))}"


class Tls:
    """The TLS listener with a certificate that nobody trusts."""

    def __init__(self, bed):
        cert, key = bed.folder / "cert.pem", bed.folder / "key.pem"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        made += ["-keyout", key, "-out", cert, "-days", "90", "-subj", "/CN=localhost"]
        made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        made += ["-addext", "extendedKeyUsage=serverAuth", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run([str(arg) for arg in made], check=True, capture_output=True)
        self.port = c.free_port()
        self.process = c.Process(
            [bed.binary, "--host", "127.0.0.1", "--port", self.port, "--tls-cert", cert, "--tls-key", key]
            + ["--service-discovery", "static", "--routing-logic", "roundrobin", "--log-level", "error"]
            + ["--static-backends", f"http://127.0.0.1:{bed.engine}", "--static-models", c.MODEL]
        )
        c.wait_for(self.port, None)


# What a certificate that nobody trusts must be told of: its issuer, that it
# cannot be revoked, that no log has it, and how long it lives.
OF_THE_CERTIFICATE = (
    "cert_trust", "cert_chain_of_trust", "cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL",
    "cert_caIssuers", "cert_certificatePolicyEV", "OCSP_stapling", "DNS_CAArecord", "certificate_transparency",
    "cert_trust_wildcard", "cert_expirationStatus", "cert_extlifeSpan", "grade_cap_reason", "overall_grade",
)


def testssl(bed, tls):
    report = bed.folder / "testssl.json"
    flags = ["--quiet", "--color", "0", "--warnings", "off", "-p", "-s", "-f", "-P", "-U", "--jsonfile", report]
    run(["testssl", *flags, f"127.0.0.1:{tls.port}"], 400)
    found = json.loads(report.read_text())
    grave = {one["id"]: one["finding"] for one in found if one["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN")}
    wrong = {name: text for name, text in grave.items() if not name.startswith(OF_THE_CERTIFICATE)}
    note = f"{len(found)} findings"
    return (BAD, f"{note}: {wrong}") if wrong else (GOOD, note + ", none grave")


def sslyze(bed, tls):
    _, told = run([sys.executable, "-m", "sslyze", "--mozilla_config", "intermediate", f"127.0.0.1:{tls.port}"], 200)
    if "COMPLIANCE AGAINST" not in told.upper():
        return BAD, " ".join(told[-200:].split())
    part = told[told.upper().rindex("COMPLIANCE AGAINST") :]
    faults = re.findall(r"^\s+\* (\w+): (.+)", part, re.M)
    wrong = [f"{name}: {text}" for name, text in faults if not name.startswith("certificate_")]
    vulnerable = re.findall(r"^.*VULNERABLE - .*$", told, re.M)
    wrong += [line.strip() for line in vulnerable if "NOT VULNERABLE" not in line.upper()]
    if wrong:
        return BAD, "; ".join(wrong)
    return GOOD, "nothing but the certificate" if faults else "nothing"


def steps(bed, tool):
    """(tool, what, how), in their order."""
    yield "httpwg", "HTTP/2, RFC 9113", lambda: httpwg(bed, tool)
    yield "h2load", "HTTP/1.1", lambda: h2load(bed, ["--h1", "-c50"])
    yield "h2load", "HTTP/2, 10 × 20 streams", lambda: h2load(bed, ["-c10", "-m20"])
    yield "slowhttptest -H", "slow heads", lambda: slow(bed, "-H")
    if not bed.quick:
        yield "slowhttptest -B", "slow bodies", lambda: slow(bed, "-B")
        yield "slowhttptest -X", "slow readers", lambda: slow(bed, "-X")
    yield "schemathesis", "public listener", lambda: schemathesis(bed, "public")
    yield "schemathesis", "admin listener", lambda: schemathesis(bed, "admin")
    if not bed.has_flag("--tls-cert"):
        yield "sslyze, testssl", "TLS", lambda: (SKIPPED, "this build has no --tls-cert")
        return
    tls = Tls(bed)
    https = f"https://127.0.0.1:{tls.port}"
    yield "h2load", "HTTP/2 over TLS", lambda: h2load(bed, ["-c10", "-m20"], https)
    yield "sslyze", "TLS listener", lambda: sslyze(bed, tls)
    if not bed.quick:
        yield "testssl", "TLS listener", lambda: testssl(bed, tls)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--httpwg", type=pathlib.Path, required=True)
    parser.add_argument("--logs", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bed = Bed(options.binary, pathlib.Path(folder), options.quick, options.logs)
        for tool, what, how in steps(bed, options.httpwg):
            if options.only not in tool:
                continue
            began = time.monotonic()
            try:
                result, note = how()
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                result, note = BAD, f"{type(error).__name__}: {error}"
            if not bed.proxy.is_running():
                result, note = BAD, f"the proxy ended; {note}"
            rows.append([tool, what, result, f"{time.monotonic() - began:.0f} s", note])
            print(f"{tool} ({what}): {result}", file=sys.stderr, flush=True)
    print(c.table(["tool", "what", "result", "took", "note"], rows))
    sys.exit(any(row[2] == BAD for row in rows))


if __name__ == "__main__":
    main()
