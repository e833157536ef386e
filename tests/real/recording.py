"""Records the pages of a real engine under load, as fixtures for tests."""

import pathlib
import time

from knowing import load
from servers import eventually, free_port, get, llama_server, processing, running, sample

SLOTS = 2
# Between the two pages.
SECONDS = 10


def record(model, folder):
    folder, port = pathlib.Path(folder), free_port()
    here = f"http://127.0.0.1:{port}"
    with running("llama-recorded", llama_server(model, port, SLOTS)):
        eventually("the engine is healthy", lambda: get(f"{here}/health")[0] == 200)
        with load(port, clients=SLOTS + 1, tokens=24):
            eventually("all slots work, requests wait, tokens are counted", lambda: (
                processing(port) == SLOTS and sample(port, "requests_deferred") > 0
                and sample(port, "tokens_predicted_total") > 0))
            first = time.monotonic()
            pages = [("llamacpp-1.prom", "metrics"), ("llamacpp-slots.json", "slots"),
                     ("llamacpp-2.prom", "metrics")]
            for name, page in pages:
                if name == "llamacpp-2.prom":
                    time.sleep(first + SECONDS - time.monotonic())
                (folder / name).write_text(get(f"{here}/{page}")[1])
                print(f"{folder / name}, after {time.monotonic() - first:.2f} s")
