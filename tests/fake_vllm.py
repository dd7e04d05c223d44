"""Stands in for vLLM's server in tests of the launcher: it starts at once, and fails as it is told to.

`install` writes a package `vllm` that runs this file. $FAKE_VLLM says what it does: `fail ERROR` prints that error and
ends, `hang` never answers, `slow SECONDS` waits before each answer, `stubborn` ignores SIGTERM. Its process id and that
of a child that it starts are appended to the file $FAKE_VLLM_PIDS.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def install(folder: Path) -> Path:
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for each in (package, package.parent, package.parent.parent):
        (each / "__init__.py").touch()
    (package / "api_server.py").write_text(f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')\n")
    return folder


def options() -> tuple[dict[str, str], dict[str, str]]:
    """The options of the command line, and the adapters by their names."""
    given = [argument.partition("=") for argument in sys.argv[1:]]
    values = {name: value for name, _, value in given if name.startswith("--")}
    return values, {name: value for name, _, value in given if not name.startswith("--")}


BEHAVIOUR = os.environ.get("FAKE_VLLM", "")

SERVED: dict[str, dict[str, str]] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer({"data": list(SERVED.values())})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            serve(body["lora_name"], body["lora_path"])
            self.answer({})
            return
        if body["prompt"][-1] == 0:  # an unknown word at the end
            os._exit(0)
        if BEHAVIOUR.startswith("slow"):
            time.sleep(float(BEHAVIOUR.removeprefix("slow ")))
        choice = {"index": 0, "text": body["model"], "finish_reason": "stop"}
        self.answer({"choices": [choice], "usage": {"completion_tokens": 1}})

    def answer(self, content: object) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}"
        raw = json.dumps(content).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *arguments: object) -> None:
        print(*arguments)


def serve(name: str, path: str) -> None:
    """Offer a model whose weights are what its folder holds at this moment."""
    SERVED[name] = {"id": name, "root": path}


def main() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with Path(os.environ["FAKE_VLLM_PIDS"]).open("a") as file:
        file.write(f"{os.getpid()} {child.pid}\n")
    if BEHAVIOUR.startswith("fail"):
        print(BEHAVIOUR.removeprefix("fail "), file=sys.stderr)
        sys.exit(1)
    if BEHAVIOUR == "hang":
        time.sleep(600)
    if BEHAVIOUR == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    values, adapters = options()
    serve(values["--served-model-name"], values["--model"])
    for name, path in adapters.items():
        serve(name, path)
    ThreadingHTTPServer((values["--host"], int(values["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
