"""One vLLM server that this process started: its address, its log, and its end."""

import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from sandcli.cache import cache_folder, needed, remove_old
from sandcli.engines import supervisor
from sandcli.engines.addresses import Address
from sandcli.engines.server_client import Identity, NoConnection, Refusal, Server, Unusable

_PROBE_PAUSE = 0.2
"""Seconds between two looks at whether a starting server is ready."""

_OLD_LOG = 30 * 24 * 3600
"""Seconds after which a log is deleted: of a server that failed, or whose `sand` was killed."""

_ERROR = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:.*\] )?\s*(?:[a-z_]\w*\.)*(\w*(?:Error|Exception)): (.+)")
"""The last line of a traceback, with or without the prefixes of a process and a logger."""

_UNINFORMATIVE = re.compile(r"[Ss]ee (?:root cause|stack trace)|initialization failed|EngineCore encountered")

_KILLED = "it was killed, which the system does when memory runs out"


class _LoadAdapter(msgspec.Struct, frozen=True):
    lora_name: str
    lora_path: str


class VllmServer:
    """A server on this machine.

    It runs in a session of its own, so Ctrl-C does not reach it, and under a supervisor that ends it when this process
    goes away. What it prints goes to a log in the user's cache folder, which is deleted unless the server failed.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], port: int, key: str, timeout: float
    ) -> None:
        """Start it. It is reached with `key`; `timeout` is in seconds, for one request."""
        with needed():
            folder = cache_folder() / "vllm"
            folder.mkdir(parents=True, exist_ok=True)
        remove_old(folder, "server-*.log", _OLD_LOG)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="server-", suffix=".log", delete=False) as log:
            self.log = Path(log.name)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "VLLM_API_KEY": key},
                start_new_session=True,
            )
        self.client = Server(Address(f"http://127.0.0.1:{port}"), timeout, key, self.ended)
        self._keep_log = False

    def ended(self) -> str:
        """Why it ended, and where its log is; empty while it runs."""
        if self._process.poll() is None:
            return ""
        return f"ended: {self.cause()}; the log is {self.keep_log()}"

    def cause(self) -> str:
        """The first informative error in the log, since later ones follow from it; without any, how it ended."""
        errors = [found for line in self.log.read_text(errors="replace").splitlines() if (found := _ERROR.match(line))]
        for error in errors:
            if not _UNINFORMATIVE.search(error[0]):
                return f"{error[1]}: {error[2]}"
        status = self._process.poll()
        return f"exit status {status}" if status in range(128) and not errors else _KILLED

    def keep_log(self) -> Path:
        """Keep the log for the user to read."""
        self._keep_log = True
        return self.log

    async def wait_until_ready(self, model: Identity) -> None:
        """Wait until it serves the model. Raises `Unusable` if it ends instead."""
        while True:
            try:
                return await self.client.probe([model])
            except Unusable:
                if self.ended():
                    raise
                await asyncio.sleep(_PROBE_PAUSE)

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter, to be served as `name`; it may be loaded already, or refused."""
        with contextlib.suppress(Refusal, NoConnection, TimeoutError):
            await self.client.post("/load_lora_adapter", _LoadAdapter(name, str(folder.resolve())))

    async def close(self) -> None:
        """End its processes."""
        await self.client.close()
        self.ended()
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.to_thread(self._process.wait)
        if not self._keep_log:
            self.log.unlink()
