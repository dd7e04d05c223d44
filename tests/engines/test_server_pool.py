"""The server pool: servers start late, die and come back, and share the conversations."""

import asyncio
import shutil
import threading
import time
from pathlib import Path

import pytest

from sandcli.engine_settings import EngineSettings
from sandcli.engines.base import Model, Sampling
from sandcli.engines.server import ServerEngine
from sandcli.engines.server_pool import _SLACK
from sandcli.errors import ContextOverflow, MachineryError, PrerequisiteError, UsageError
from sandcli.messages import Message
from sandcli.models import fingerprint
from tests.servers import (
    HELLO,
    IDS,
    PROMPT,
    SIMPLE,
    Behaviour,
    Serve,
    after,
    answered,
    answers,
    closed_port,
    fails,
    opened,
    page,
    run,
    says,
    until,
)

pytestmark = pytest.mark.filterwarnings("error")


def test_another_server_takes_over_from_one_that_dies_until_it_is_back(words: Model, serve: Serve) -> None:
    dying, other = serve(), serve()

    async def task() -> None:
        async with opened(words, dying, other) as (engine, notices):
            await engine.generate(PROMPT, SIMPLE)
            dying.stop()
            assert await engine.generate(PROMPT, SIMPLE) == [HELLO]
            assert notices == [f"{dying.url} does not answer (connection refused): it is left out until it answers"]
            dying.start()
            await until(lambda: len(notices) > 1)
            assert notices[1:] == [f"{dying.url} answers again"]
            other.stop()
            assert await engine.generate(PROMPT, SIMPLE) == [HELLO]

    run(task)
    assert [len(dying.requests), len(other.requests)] == [2, 1]


def test_a_server_that_fails_repeatedly_gets_no_more_requests(words: Model, serve: Serve) -> None:
    broken, well = serve(), serve()
    broken.usual = fails(500)

    async def task() -> None:
        async with opened(words, broken, well) as (engine, notices):
            broken.listing = fails(500, "the engine is dead")
            for number in range(6):
                beginning = [Message("system", "you act"), Message("user", f"find {number}")]
                assert [each.text for each in await engine.generate(beginning, SIMPLE)] == ["hello"]
            assert len(broken.requests) == 3
            assert [notice.partition(" ")[0] for notice in notices] == [broken.url]

    run(task)


def test_failures_with_answers_between_them_exclude_no_server(words: Model, serve: Serve) -> None:
    server = serve(*[fails(500), says("hello")] * 4)

    async def task() -> None:
        async with opened(words, server) as (engine, notices):
            for _ in range(4):
                await engine.generate(PROMPT, SIMPLE)
            assert notices == []

    run(task)


def test_requests_wait_for_a_server_to_come_back(words: Model, serve: Serve) -> None:
    server = serve()

    async def task() -> None:
        async with opened(words, server) as (engine, notices):
            server.stop()
            asking = asyncio.create_task(engine.generate(PROMPT, Sampling(n=3)))
            await until(lambda: bool(notices))
            later = asyncio.create_task(engine.generate(PROMPT, SIMPLE))
            await asyncio.sleep(0.3)
            server.start()
            assert (await asking, await later) == ([HELLO] * 3, [HELLO])

    run(task)


@pytest.mark.slow
def test_without_any_server_a_request_fails_when_its_patience_runs_out(words: Model, serve: Serve) -> None:
    servers = serve(), serve()

    async def task() -> None:
        async with opened(words, *servers, patience=3.0) as (engine, notices):
            for server in servers:
                server.stop()
            began = time.monotonic()
            failures = await asyncio.gather(
                *(engine.generate(PROMPT, Sampling(n=2)) for _ in range(40)), return_exceptions=True
            )
            assert 2.9 < time.monotonic() - began < 6
            for failure in failures:
                assert isinstance(failure, MachineryError)
                assert "does not answer (connection refused)" in failure.detail
            assert len(notices) == 2

    run(task)


def test_a_server_that_comes_back_with_another_model_stays_out(words: Model, serve: Serve) -> None:
    server = serve()

    async def task() -> None:
        async with opened(words, server, patience=1.0) as (engine, notices):
            server.stop()
            server.listing = answers(200, {"data": [{"id": "stranger"}]})
            asking = asyncio.create_task(engine.generate(PROMPT, SIMPLE))
            await until(lambda: bool(notices))
            server.start()
            with pytest.raises(MachineryError, match="serves stranger, not policy"):
                await asking
            assert notices[1:] == [f"{server.url} serves stranger, not policy"]
            assert server.requests == []

    run(task)


def test_servers_that_are_still_starting_are_waited_for(words: Model, serve: Serve) -> None:
    early, starting, loading = serve(), serve(), serve()
    starting.stop()
    good, loading.listing = loading.listing, fails(503, "loading the model")

    async def task() -> None:
        def ready() -> None:
            starting.start()
            loading.listing = good

        asyncio.get_running_loop().call_later(0.5, ready)
        async with opened(words, early, starting, loading, patience=10.0) as (engine, notices):
            assert engine.capacity == 96
            assert sorted(notices) == sorted(
                [
                    f"waiting for {starting.url}: it does not answer (connection refused)",
                    f"waiting for {loading.url}: it answers with 503 loading the model",
                ]
            )

    began = time.monotonic()
    run(task)
    assert time.monotonic() - began < 8


def test_a_late_server_is_left_out_until_it_answers(words: Model, serve: Serve) -> None:
    early, late_one = serve(), serve()
    late_one.stop()

    async def task() -> None:
        async with opened(words, early, late_one, patience=0.3, batch=5) as (engine, notices):
            assert engine.capacity == 10
            assert notices[1:] == [
                f"{late_one.url} does not answer (connection refused): it is left out until it answers"
            ]
            late_one.start()
            await until(lambda: notices[-1] == f"{late_one.url} answers again")
            early.stop()
            assert await engine.generate(PROMPT, SIMPLE) == [HELLO]

    run(task)


def test_without_any_server_the_error_says_how_to_start_one(words: Model) -> None:
    urls = closed_port(), closed_port()
    began = time.monotonic()
    with pytest.raises(PrerequisiteError) as caught:
        answered(words, *urls, patience=2.0)
    assert 2.0 < time.monotonic() - began < 4
    assert caught.value.what == "; ".join(f"{url} does not answer (connection refused)" for url in urls)
    module = "python -m vllm.entrypoints.openai.api_server"
    assert caught.value.fix == f"start one: {module} --model {words.folder} --served-model-name policy"


@pytest.mark.parametrize(
    ("listing", "what", "fix"),
    [
        (page, "answers with HTML, not with an OpenAI-compatible API", "is the port right"),
        (answers(200, {"models": 3}), "answers with something else, not with", "is the port right"),
        (answers(404, b"<html>"), "answers with 404, not with an OpenAI-compatible API", "is the port right"),
        (fails(401, "sk-secret is wrong"), "refuses the API key (401)", "set OPENAI_API_KEY"),
        (fails(403), "refuses the API key (403)", "set OPENAI_API_KEY"),
        (answers(200, {"data": [{"id": "a"}, {"id": "b"}]}), "serves a, b, not policy", "--served-model-name policy"),
        (answers(200, {"data": []}), "serves nothing, not policy", "--alias policy"),
    ],
    ids=["html", "other", "404", "401", "403", "stranger", "nothing"],
)
def test_a_server_that_waiting_cannot_fix_is_not_waited_for(
    words: Model, serve: Serve, listing: Behaviour, what: str, fix: str
) -> None:
    wrong, right = serve(), serve()
    wrong.listing = listing
    began = time.monotonic()
    with pytest.raises(PrerequisiteError) as caught:
        answered(words, wrong, patience=60.0)
    assert time.monotonic() - began < 30
    assert caught.value.what.startswith(f"{wrong.url} {what}")
    assert fix in caught.value.fix
    completions, _, notices = answered(words, wrong, right)
    assert completions == [HELLO]
    assert [notice.startswith(f"{wrong.url} {what}") for notice in notices] == [True]
    assert wrong.requests == []


def test_a_model_is_found_by_its_folder_and_requested_by_its_name_on_the_server(words: Model, serve: Serve) -> None:
    by_root, by_id = serve(model="served", root=str(words.folder)), serve(model=f"{words.folder}/.")
    for server in (by_root, by_id):
        answered(Model(words.folder / ".." / "policy", "policy"), server)
    assert by_root.requests[0].body["model"] == "served"
    assert by_id.requests[0].body["model"] == f"{words.folder}/."


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_a_url_may_end_with_or_without_v1_and_a_slash(words: Model, serve: Serve, ending: str) -> None:
    server = serve()
    assert answered(words, server.url + ending, server)[1].capacity == 32  # both are the same server


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost:8000/v1", "ftp://host", "http://:80", "http://h:x"])
def test_a_malformed_url_is_refused(words: Model, url: str) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        answered(words, url)


def test_conversations_with_the_same_beginning_go_to_one_server(words: Model, serve: Serve) -> None:
    servers = serve(), serve()

    async def task() -> None:
        async with opened(words, *servers) as (engine, _):
            for things in ("lamp", "act"):
                beginning = [Message("system", "you act"), Message("user", f"find the {things}")]
                longer = [*beginning, Message("assistant", "find"), Message("user", "lamp")]
                await asyncio.gather(*(engine.generate(messages, Sampling(n=2)) for messages in (beginning, longer)))

    run(task)
    assert sorted(len(server.requests) for server in servers) == [0, 8]


def test_new_conversations_go_to_the_least_busy_server(words: Model, serve: Serve) -> None:
    servers = serve(), serve(), serve()
    ready = threading.Event()

    async def task() -> None:
        async with opened(words, *servers) as (engine, _):
            for server in servers:
                server.usual = after(ready, says("hello"))
            beginnings = [[Message("system", "you act"), Message("user", f"find {number}")] for number in range(9)]
            asking = [asyncio.create_task(engine.generate(beginning, SIMPLE)) for beginning in beginnings]
            await until(lambda: sum(len(server.requests) for server in servers) == 9)
            ready.set()
            await asyncio.gather(*asking)

    run(task)
    assert [len(server.requests) for server in servers] == [3, 3, 3]


def test_no_server_idles_while_another_is_overloaded(words: Model, serve: Serve) -> None:
    servers = serve(), serve()
    ready = threading.Event()

    async def task() -> None:
        async with opened(words, *servers) as (engine, _):
            for server in servers:
                server.usual = after(ready, says("hello"))
            asking = asyncio.create_task(engine.generate(PROMPT, Sampling(n=30)))
            await until(lambda: sum(len(server.requests) for server in servers) == 30)
            ready.set()
            assert await asking == [HELLO] * 30

    run(task)
    fewest, most = sorted(len(server.requests) for server in servers)
    assert most - fewest <= _SLACK + 1


def test_closing_ends_the_health_checks(words: Model, serve: Serve) -> None:
    server = serve()

    async def task() -> None:
        async with opened(words, server, patience=0.1) as (engine, _):
            server.stop()
            with pytest.raises(MachineryError):
                await engine.generate(PROMPT, SIMPLE)
            await engine.close()
            await engine.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(task)


def test_an_engine_that_does_not_open_leaves_nothing_behind(words: Model, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    mute = Model(Path(shutil.copytree(words.folder, tmp_path / "mute")), words.name)
    (mute.folder / "chat_template.jinja").unlink()

    async def task() -> None:
        with pytest.raises(UsageError, match="no chat template"):
            settings = EngineSettings(urls=[server.url, closed_port()], patience=0.1)
            await ServerEngine.open(mute, settings, lambda notice: None)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(task)


def test_an_engine_serves_further_models_that_its_servers_offer(words: Model, serve: Serve, tmp_path: Path) -> None:
    adapter, untrained = (Path(shutil.copytree(words.folder, tmp_path / name)) for name in ("adapter", "untrained"))
    one, two = serve(max_model_len=512), serve(model="base")
    cards = [{"id": "policy", "max_model_len": 512}, {"id": "lora", "root": str(adapter), "parent": "policy"}]
    one.listing = answers(200, {"data": cards})

    async def task() -> None:
        async with opened(words, one, two) as (engine, notices):
            assert notices == [f"{two.url} serves base, not policy: it is left out"]
            assert await engine.for_model(Model(words.folder, "again")) is engine
            assert await engine.for_model(Model(tmp_path, "stranger")) is None
            lora = await engine.for_model(Model(adapter, "trained"))
            base = await engine.for_model(Model(untrained, "base"))
            assert lora is not None and base is not None
            with pytest.raises(ContextOverflow, match="the model's 512"):
                await lora.generate(PROMPT, Sampling(max_tokens=505))
            for each in (engine, lora, base):
                await each.generate(PROMPT, Sampling(max_tokens=9))
            assert [request.body["model"] for request in one.requests] == ["policy", "lora"]
            assert [request.body["model"] for request in two.requests] == ["base"]
            assert lora.usage()[:3] == base.usage()[:3] == (3 * len(IDS), 0, 9)

    run(task)


def test_a_server_that_offers_the_fingerprint_is_asked_for_it(words: Model, serve: Serve) -> None:
    server = serve()
    cards = [{"id": "policy"}, {"id": fingerprint(words.folder), "root": "/elsewhere"}]
    server.listing = answers(200, {"data": cards})
    answered(words, server)
    assert server.requests[0].body["model"] == fingerprint(words.folder)


def test_a_fingerprint_is_not_overruled_by_the_folder(words: Model, serve: Serve) -> None:
    """A server that was started for the same folder before it got new weights has the old ones."""
    server = serve(model="0123456789abcdef", root=str(words.folder))
    with pytest.raises(PrerequisiteError, match="serves 0123456789abcdef, not policy"):
        answered(words, server)


def test_a_model_with_new_content_is_another_model(words: Model, serve: Serve, tmp_path: Path) -> None:
    trained = Model(Path(shutil.copytree(words.folder, tmp_path / "model")), "model")
    old, server = fingerprint(trained.folder), serve()
    server.listing = answers(200, {"data": [{"id": old, "root": str(trained.folder)}]})

    async def task() -> None:
        async with opened(trained, server) as (engine, _):
            assert await engine.for_model(trained) is engine
            (trained.folder / "weights").write_text("new")
            assert await engine.for_model(trained) is None
            new = fingerprint(trained.folder)
            server.listing = answers(200, {"data": [{"id": old}, {"id": new}]})
            later = await engine.for_model(trained)
            assert later is not None
            await engine.generate(PROMPT, SIMPLE)
            await later.generate(PROMPT, SIMPLE)
            assert [request.body["model"] for request in server.requests] == [old, new]

    run(task)
