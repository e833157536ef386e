"""Clients in a process of their own, so that whoever changes pods does not slow
them down: `load.py PORT SECONDS`. Prints how many requests there were, the median
and the 99th percentile in milliseconds, and how many failed."""

import http.client
import json
import sys
import threading
import time

CLIENTS = 2
BODY = json.dumps({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]})


def client(port, until, took, failed):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)
        except (http.client.HTTPException, OSError) as error:
            failed.append(repr(error))
            connection.close()
        took.append(time.monotonic() - began)
        time.sleep(0.003)


def main():
    port, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    took, failed = [], []
    threads = [threading.Thread(target=client, args=(port, until, took, failed)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took.sort()
    print(json.dumps({"count": len(took), "p50": took[len(took) // 2] * 1e3,
                      "p99": took[len(took) * 99 // 100] * 1e3, "failed": failed[:3]}))


main()
