"""The choice of an engine, its settings, and the costs that are counted."""

import asyncio
import importlib.util
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sandcli.core import estimates
from sandcli.core.context import Context
from sandcli.core.engine_holder import EngineHolder
from sandcli.core.manifest import Spent
from sandcli.core.stage import Options
from sandcli.doctor import examine
from sandcli.engine_settings import EngineSettings
from sandcli.engines import choose
from sandcli.engines.base import Completion, Model, Sampling
from sandcli.engines.metered import Clock, Metered
from sandcli.engines.scripted import Rule, ScriptedEngine
from sandcli.errors import UsageError
from sandcli.messages import Message
from tests.helpers import artifact, built, context, make_run, perform, sand


def test_auto_chooses_servers_if_urls_are_set() -> None:
    assert choose(EngineSettings(urls=["http://127.0.0.1:1"])) == ("server", "engine.urls is set")


@pytest.mark.parametrize(("vllm", "gpu", "kind"), [(True, True, "vllm"), (True, False, ""), (False, True, "")])
def test_auto_chooses_vllm_if_it_is_installed_and_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, vllm: bool, gpu: bool, kind: str
) -> None:
    import torch

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if vllm else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose(EngineSettings()).kind == (kind or "transformers")


def test_an_explicit_kind_is_chosen() -> None:
    assert choose(EngineSettings(kind="vllm", urls=["http://127.0.0.1:1"])) == ("vllm", "as set")


def test_the_engine_table_reaches_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", engine__batch=3, engine__gpu_memory=0.5, engine__urls="http://a,http://b")
    given: list[Any] = []

    async def opened(kind: str, model: Model, settings: EngineSettings, lora_rank: int, notice: Any) -> Any:
        given.append((settings, lora_rank))
        return ScriptedEngine([])

    async def task(**settings: Any) -> None:
        loaded = context(run, **settings)
        async with loaded.engine(loaded.base()):
            pass

    monkeypatch.setattr("sandcli.core.context.open_engine", opened)
    asyncio.run(task())
    asyncio.run(task(train__method="lora", train__lora_rank=8))
    (engine, none), (_, rank) = given
    assert (engine.batch, engine.gpu_memory, engine.urls) == (3, 0.5, ["http://a", "http://b"])
    assert (none, rank) == (0, 8)


@pytest.mark.parametrize(("sequences", "expected"), [(1, 128), (5, 25), (1000, 4)])
def test_twice_the_engines_capacity_is_in_flight(tmp_path: Path, sequences: int, expected: int) -> None:
    loaded = context(make_run(tmp_path / "run", run__workers=2))

    async def opened() -> int:
        async with loaded.engine(loaded.base()):
            return loaded.in_flight(sequences)

    assert asyncio.run(opened()) == expected
    assert context(tmp_path / "run", run__in_flight=7).in_flight(sequences) == 7


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    for name in ("base", "other", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": name}))
    written = {"base_model_name_or_path": str(tmp_path / "other")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(written))
    run = make_run(tmp_path / "run", engine__kind="transformers", model__base=str(tmp_path / "base"))
    loaded = context(run)

    async def opened() -> None:
        async with loaded.engine(loaded.model(str(tmp_path / "adapter"))):
            raise AssertionError("not to be reached")

    with pytest.raises(UsageError, match=r"adapter was not trained from .*base: it has model_type other, not base"):
        asyncio.run(opened())


class One(ScriptedEngine):
    """Serves one model, and `twin` as well."""

    async def for_model(self, model: Model) -> "One | None":  # type: ignore[override]
        return self if model.name == "twin" else None


def opening(patch: pytest.MonkeyPatch) -> list[str]:
    """Let engines be opened without models; the list tells which were loaded and freed."""
    loaded: list[str] = []

    @asynccontextmanager
    async def opened(_: Any, model: Model) -> Any:
        loaded.append(model.name)
        yield One([])
        loaded.append(f"{model.name} freed")

    patch.setattr(Context, "engine", opened)
    return loaded


def test_an_evaluation_changes_models_when_the_last_user_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = opening(monkeypatch)
    first, second, twin = (Model(Path(name), name) for name in ("first", "second", "twin"))

    async def task() -> None:
        async with EngineHolder(context(make_run(tmp_path / "run")), first) as holder:

            async def use(model: Model) -> None:
                async with holder.for_model(model):
                    await asyncio.sleep(0.01)

            await asyncio.gather(use(first), use(second), use(twin), use(first))
            await use(first)

    asyncio.run(task())
    assert loaded[:3] == ["first", "first freed", "second"]
    assert loaded.count("first") == 2
    assert loaded[-1] == "first freed"


def test_a_model_beside_another_stays_open_unless_the_other_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = opening(monkeypatch)
    first, second, twin, beside = (Model(Path(name), name) for name in ("first", "second", "twin", "beside"))

    async def task() -> None:
        async with EngineHolder(context(make_run(tmp_path / "run")), first) as holder:

            async def use(model: Model, other: Model) -> None:
                async with holder.for_model(model), holder.beside(other):
                    await asyncio.sleep(0.01)

            await asyncio.gather(use(first, beside), use(first, beside), use(first, twin))
            await use(second, beside)

    asyncio.run(task())
    assert loaded == ["first", "beside", "first freed", "second", "beside freed", "second freed"]


class Silent:
    """An engine with blank completions."""

    capacity = 1
    cache_tokens: int | None = None

    async def generate(self, messages: Any, sampling: Sampling) -> list[Completion]:
        await asyncio.sleep(0.01)
        return [Completion(" \n", 2, "stop")] * sampling.n

    async def for_model(self, model: Model) -> "Silent | None":
        return self if model.name == "twin" else None

    def usage(self) -> Any:
        raise NotImplementedError

    async def close(self) -> None: ...


def test_blank_completions_and_waiting_are_counted_for_all_models_of_an_engine() -> None:
    clock = Clock()
    metered = Metered(Silent(), clock, lambda tokens: None)
    twin = asyncio.run(metered.for_model(Model(Path(), "twin")))
    assert twin is not None
    assert asyncio.run(metered.for_model(Model(Path(), "stranger"))) is None
    asyncio.run(twin.generate([Message("user", "Hm?")], Sampling(n=3)))
    asyncio.run(metered.generate([Message("user", "Hm?")], Sampling()))
    assert clock.empty == 4
    assert clock.waited >= 0.02


def test_costs_add_up_and_batch_sizes_are_weighted_by_tokens() -> None:
    both = Spent(engine="a", units=1, generated=10, batch=2.0) + Spent(units=2, generated=30, batch=6.0, cached=5)
    assert both == Spent(engine="a", units=3, generated=40, batch=5.0, cached=5)
    assert Spent() + Spent() == Spent()


def test_figures_show_rates_and_shares() -> None:
    spent = Spent(seconds=2, prompt=200, cached=150, generated=50, batch=3.25, engine_wait=3, environment_wait=1)
    assert spent.rates() == {
        "generated tokens per second": 25.0,
        "prompt tokens": 200,
        "prefix cache hit rate": 0.75,
        "mean batch": 3.2,
        "share of time waiting for environments": 0.25,
    }
    assert Spent(empty=3).rates() == {"empty completions": 3}


def test_hit_rate_is_the_share_of_the_tokens_that_servers_tell_about() -> None:
    silent = Spent(seconds=2, prompt=200, untold=200, generated=50)
    telling = Spent(seconds=2, prompt=100, cached=25, generated=50)
    assert silent.rates()["prefix cache hit rate"] == "unknown: the server does not tell"
    assert (silent + telling).rates()["prefix cache hit rate"] == 0.25
    assert Spent(seconds=2, prompt=100, generated=50).rates()["prefix cache hit rate"] == 0.0


def test_a_manifest_records_costs_even_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    rules = ScriptedEngine.load(tmp_path / "rules.json")
    monkeypatch.setattr(ScriptedEngine, "load", lambda path: ScriptedEngine([Rule(when="(House 1.)", replies=["Hm"])]))
    perform("sample", root)
    part = artifact(root, "sample").manifest(part=True)
    assert part is not None
    monkeypatch.setattr(ScriptedEngine, "load", lambda path: rules)
    summary = perform("sample", root)
    assert summary.manifest is not None
    assert part.spent.units == 4
    assert summary.manifest.spent.units == 8
    assert summary.manifest.spent.generated > part.spent.generated > 0


def test_a_dry_run_estimates_from_earlier_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = make_run(tmp_path / "run")
    perform("collect", root, limit=2)
    unknown = perform("sample", root, options=Options(dry_run=True)).message
    assert unknown.endswith(
        '8 to do; first ["fetch_0",0]; no estimate: this machine has not run a stage like it before'
    )
    estimates.remember(built("sample", root), Spent(units=4, seconds=600, generated=1000), 0)
    estimates.remember(built("rollout", root), Spent(units=4, seconds=1, generated=1), 0)
    wider = perform("sample", root, options=Options(dry_run=True), sample__n=10).message
    assert "about 4,000 generated tokens and 40 min 0 s" in wider
    told = perform("sample", root, options=Options(dry_run=True)).message
    assert told.endswith("; about 2,000 generated tokens and 20 min 0 s, estimated from earlier runs on this machine")
    (tmp_path / "sand" / "history.jsonl").write_text("of another version\n")
    assert perform("sample", root, options=Options(dry_run=True)).message == unknown


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 min 0 s"), (61, "1 min 1 s"), (7320, "2 h 2 min")])
def test_durations_are_readable(seconds: float, said: str) -> None:
    assert estimates.duration(seconds) == said


def test_the_doctor_says_how_to_install_each_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.delenv("SAND_ENGINE_URLS", raising=False)
    fixes = {check.what: check.fix for check in examine()}
    assert fixes["engine vllm"] in ("make setup-vllm", "pip install vllm")
    assert "engine.urls" in fixes["engine server"]


@pytest.mark.slow
def test_a_password_in_a_url_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAND_ENGINE_URLS", "http://me:sesame@127.0.0.1:1")
    told = str([check.found for check in examine()])
    assert "http://***@127.0.0.1:1" in told
    assert "sesame" not in told
    make_run(tmp_path / "run", engine__urls="http://me:sesame@127.0.0.1:1")
    shown = sand("config", "--run", tmp_path / "run", "--json").stdout
    assert "http://***@127.0.0.1:1" in shown
    assert "sesame" not in shown
