"""Ad-hoc inference, as the AIOS document writes it, before real engines: what
the selection looks at, they have told after real traffic."""

import json
import pathlib
import tempfile
import urllib.error
import urllib.request

import openai

from servers import PATIENCE, chat, eventually, free_port, get, running, told

# The document's own, byte for byte what its Python makes of it.
PAYLOAD = pathlib.Path(__file__).parents[1] / "fixtures/aios-adhoc.json"
SOON = 30


def component(mmlu, arc):
    return {"tags": ["text"], "componentMetadata": {
        "usecase": "chat-completion, text-generation", "framework": "llama-cpp-python",
        "capabilities": {"supportsStreaming": True},
        "evaluation": {"benchmarks": {"MMLU": {"metric": "accuracy", "value": mmlu},
                                      "ARC-Challenge": {"metric": "accuracy", "value": arc}}}}}


def post(port, path, document):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(document).encode(),
        {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def check(binary, engines):
    port = free_port()
    blocks = [("blk-weak", component(58.1, 60)), ("blk-strong", component(82.3, 71))]
    config = {"service_discovery": "static", "routing_logic": "roundrobin", "engines": [
        {"url": f"http://127.0.0.1:{engine}", "models": ["gemma"], "block": block,
         "metadata": metadata} for engine, (block, metadata) in zip(engines, blocks)]}
    payload = json.loads(PAYLOAD.read_text())
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "dynamic.json")
        file.write_text(json.dumps(config))
        command = [binary, "--host", "127.0.0.1", "--port", port, "--dynamic-config-json", file,
                   "--engine-stats-interval", "1s"]
        with running("pilotfish-adhoc", command):
            eventually("Pilotfish serves", lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200)
            # Nobody has told how quick it is, and nobody runs for ten hours.
            status, text = post(port, "/v1/infer", payload)
            assert status == 503 and "no_match_now" in text, (status, text)
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused")

            def are_quick():
                chat(client, max_tokens=24)
                speeds = told(port, "llm_tokens_per_second").values()
                return all((speed or 0) > 10 for speed in speeds)

            eventually("the engines' speed is known", are_quick, SOON)
            status, text = post(port, "/v1/infer", payload)
            assert status == 200, (status, text)
            answer = json.loads(text)
            assert answer["model"] == "blk-strong", answer
            assert answer["session_id"] == "session-1257" and answer["seq_no"] == 11, answer
            assert answer["data"]["reply"].strip(), answer
            print(f"the document's payload: {answer['model']} said "
                  f"{answer['data']['reply'].strip()[:60]!r}: ok")
            status, text = post(port, "/v1/infer", {**payload, "seq_no": 12, "stream": True})
            events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
            assert status == 200 and events[-1] == {"delta": "[END_OF_STREAM]"}, text[-300:]
            assert "".join(event["delta"] for event in events[:-1]).strip(), text
            print(f"as a stream: {len(events)} events: ok")
            query = payload["selection_query"]
            status, text = post(port, "/api/search", query)
            found = json.loads(text)["result"]
            assert status == 200 and found[0] is True and found[1]["id"] == "blk-strong", text
            speed = found[1]["metrics"]["instances"][0]["llm_tokens_per_second"]
            assert speed > 10, speed
            print(f"/api/search: {found[1]['id']}, {speed:.0f} tokens a second: ok")
