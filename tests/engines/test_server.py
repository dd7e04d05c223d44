"""The server engine: right answers from servers that misbehave, and no secrets in messages."""

import asyncio
import base64
import threading
import time

import pytest

from sandcli.engines.base import Completion, Model, Sampling, Usage
from sandcli.errors import ContextOverflow, MachineryError, PrerequisiteError, UsageError
from sandcli.messages import Message
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
    echoes_the_seed,
    fails,
    half,
    late,
    opened,
    page,
    reset,
    run,
    says,
    trickle,
    until,
)

pytestmark = pytest.mark.filterwarnings("error")


def test_a_request_has_tokens_of_our_template_and_sets_every_sampling_parameter(words: Model, serve: Serve) -> None:
    server = serve()
    sampling = Sampling(temperature=0.7, max_tokens=9, seed=4, stop=("Observation:",))
    completions, _, _ = answered(words, server, sampling=sampling)
    assert completions == [HELLO]
    assert [request.body for request in server.requests] == [
        {
            "model": "policy",
            "prompt": IDS,
            "max_tokens": 9,
            "temperature": 0.7,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": 4,
            "stop": ["Observation:"],
            "stop_token_ids": [],
        }
    ]


def test_an_assistant_message_at_the_end_is_continued(words: Model, serve: Serve) -> None:
    server = serve()

    async def task() -> None:
        async with opened(words, server) as (engine, _):
            await engine.generate([*PROMPT, Message("assistant", "Thought: find")], Sampling(max_tokens=4))

    run(task)
    assert server.requests[0].body["prompt"] == [*IDS, 9, 6]


def test_every_completion_has_its_own_seed_and_a_larger_n_extends_a_smaller_one(words: Model, serve: Serve) -> None:
    server = serve()
    server.usual = echoes_the_seed
    completions, _, _ = answered(words, server, sampling=Sampling(n=3, temperature=1.0, seed=5))
    assert [completion.text for completion in completions] == [f"drawn with {seed}" for seed in (5, 6, 7)]
    assert not any("n" in request.body for request in server.requests)


def test_text_is_cut_at_a_stop_string_and_then_counts_as_complete(words: Model, serve: Serve) -> None:
    server = serve(says("go on\nObservation: a\nEnd", finish="length", tokens=9))
    completions, _, _ = answered(words, server, sampling=Sampling(stop=("End", "\nObservation:")))
    assert completions == [Completion("go on", 9, "stop", 17)]


def test_a_thought_before_the_answer_is_removed(words: Model, serve: Serve) -> None:
    server = serve(says("<think>\nI look first.\n</think>\n\nAction: look", tokens=9))
    assert answered(words, server)[0] == [Completion("Action: look", 9, "stop", 17)]


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [("", "stop", Completion("", 1, "stop", 9)), ("on", "length", Completion("on", 1, "length", 9))],
)
def test_a_completion_says_how_it_ended(
    words: Model, serve: Serve, text: str, finish: str, expected: Completion
) -> None:
    assert answered(words, serve(says(text, finish, tokens=1)), sampling=Sampling(max_tokens=1))[0] == [expected]


def test_a_completion_that_the_server_shortened_fails_the_unit(words: Model, serve: Serve) -> None:
    """The prompt fits into the model's context, so the server has less; the episode is not over."""
    with pytest.raises(MachineryError, match="allows conversations of 17 tokens, but the model allows 512") as caught:
        answered(words, serve(says("on and", "length", tokens=9)), sampling=Sampling(max_tokens=10))
    assert caught.value.reason == "engine" and "engine.max_length = 17" in caught.value.detail


@pytest.mark.parametrize(
    "behaviour",
    [
        fails(500),
        fails(503),
        fails(429),
        late(1.0, says("too late")),
        trickle,
        half,
        reset,
        page,
        answers(200, b'{"choices": ['),
        answers(200, {"choices": [], "usage": {"completion_tokens": 0}}),
        answers(200, {"object": "text_completion"}),
        answers(200, ["hello"]),
        says("hel", finish="abort"),
    ],
    ids=[
        "500",
        "503",
        "429",
        "hangs",
        "trickle",
        "half",
        "reset",
        "html",
        "cut-json",
        "no-choices",
        "no-fields",
        "list",
        "abort",
    ],
)
def test_a_failed_request_is_retried(words: Model, serve: Serve, behaviour: Behaviour) -> None:
    server = serve(behaviour)
    completions, engine, _ = answered(words, server, timeout=0.4)
    assert completions == [HELLO]
    assert len(server.requests) == 2
    assert engine.usage()[:3] == Usage(len(IDS), 0, 3)[:3]


def test_a_slow_answer_is_waited_for(words: Model, serve: Serve) -> None:
    server = serve(late(0.5, says("hello")))
    assert answered(words, server)[0] == [HELLO]
    assert len(server.requests) == 1


def test_a_failed_request_goes_to_another_server_and_one_failure_excludes_none(words: Model, serve: Serve) -> None:
    servers = serve(fails(500)), serve()

    async def task() -> None:
        async with opened(words, *servers) as (engine, notices):
            assert await engine.generate(PROMPT, SIMPLE) == [HELLO]
            assert [len(server.requests) for server in servers] == [1, 1]
            assert notices == []

    run(task)


def test_the_last_failure_is_reported_when_patience_runs_out(words: Model, serve: Serve) -> None:
    server = serve(fails(500), fails(503, "the engine is dead"))
    server.usual = fails(503, "the engine is dead")
    began = time.monotonic()
    with pytest.raises(MachineryError) as caught:
        answered(words, server, patience=0.8)
    assert 0.8 < time.monotonic() - began < 10
    assert (caught.value.reason, caught.value.detail) == (
        "engine",
        f"{server.url} answers with 503 the engine is dead",
    )


def test_a_refused_request_is_not_retried(words: Model, serve: Serve) -> None:
    server = serve(fails(422, "no seeds " * 100))
    with pytest.raises(MachineryError, match=r"refuses a request: 422 no seeds no seeds .*\.\.\.$") as caught:
        answered(words, server)
    assert len(server.requests) == 1
    assert len(caught.value.detail) < 400


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("This model's maximum context length is 40 tokens. However, you requested 41 tokens.", 40),
        ("The input (41 tokens) is longer than the model's context length (40 tokens).", 40),
        ("the request exceeds the available context size, try increasing it", None),
        ("the request needs 41 tokens, and the available context size (40 tokens) is exceeded", 40),
    ],
)
def test_a_refusal_because_of_length_fails_the_unit(words: Model, serve: Serve, said: str, limit: int | None) -> None:
    takes = f"{limit} tokens" if limit else "fewer tokens"
    with pytest.raises(MachineryError, match=f"allows conversations of {takes}, but the model allows 512") as caught:
        answered(words, serve(fails(400, said)), sampling=Sampling(max_tokens=33))
    assert caught.value.reason == "engine"


@pytest.mark.parametrize(
    ("card", "setup", "limit"),
    [
        ({}, {}, 512),
        ({"max_model_len": 900}, {}, 512),
        ({"max_model_len": 900}, {"max_length": 50}, 50),
    ],
)
def test_a_prompt_that_would_overflow_is_not_sent(
    words: Model, serve: Serve, card: dict[str, int], setup: dict[str, int], limit: int
) -> None:
    server = serve(**card)
    assert answered(words, server, sampling=Sampling(max_tokens=limit - len(IDS)), **setup)[0] == [HELLO]
    with pytest.raises(ContextOverflow, match=f"{limit + 1} tokens do not fit into the model's {limit}"):
        answered(words, server, sampling=Sampling(max_tokens=limit - len(IDS) + 1), **setup)
    assert len(server.requests) == 1


def test_a_server_with_less_context_than_the_model_is_refused(words: Model, serve: Serve) -> None:
    with pytest.raises(PrerequisiteError, match="conversations of 400 tokens, and the model 512") as caught:
        answered(words, serve(max_model_len=400))
    assert "engine.max_length = 400" in caught.value.fix


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_now_serves_something_else_is_left_for_another(words: Model, serve: Serve, status: int) -> None:
    changed, well = serve(), serve()
    changed.usual = fails(status)
    for _ in range(3):
        assert answered(words, changed, well)[0] == [HELLO]


def test_requests_beyond_the_capacity_wait(words: Model, serve: Serve) -> None:
    server, ready = serve(), threading.Event()
    server.usual = after(ready, says("hello"))

    async def task() -> None:
        async with opened(words, server, batch=4) as (engine, _):
            assert engine.capacity == 4
            asking = asyncio.create_task(engine.generate(PROMPT, Sampling(n=10)))
            await until(lambda: len(server.requests) == 4)
            await asyncio.sleep(0.2)
            assert len(server.requests) == 4
            ready.set()
            assert await asking == [HELLO] * 10

    run(task)


def metrics(blocks: str) -> str:
    config = f'vllm:cache_config_info{{block_size="16",cache_dtype="auto",num_gpu_blocks="{blocks}",engine="0"}} 1.0'
    return f"# TYPE vllm:cache_config_info gauge\n{config}\nvllm:num_requests_running 0.0\n"


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ([metrics("100")], 1600),
        ([metrics("100"), metrics("50")], 2400),
        ([metrics("100"), ""], None),  # another kind of server
        ([metrics("None")], None),  # not known yet
        ([metrics("0")], None),
        (["<html>"], None),
    ],
)
def test_the_caches_of_all_servers_count_together_if_all_say(
    words: Model, serve: Serve, told: list[str], tokens: int | None
) -> None:
    servers = [serve() for _ in told]
    for server, text in zip(servers, told, strict=True):
        server.metrics = text

    async def task() -> None:
        async with opened(words, *servers) as (engine, _):
            assert engine.cache_tokens == tokens
            assert (await engine.generate(PROMPT, SIMPLE))[0].context == len(IDS) + HELLO.tokens

    run(task)


def test_usage_counts_tokens_and_the_mean_batch_of_busy_time(words: Model, serve: Serve) -> None:
    server = serve(*[late(0.3, says("hello", tokens=5, cached=4))] * 3)

    async def task() -> None:
        async with opened(words, server) as (engine, _):
            assert engine.usage() == Usage()
            await engine.generate(PROMPT, Sampling(n=3))
            await asyncio.sleep(0.3)  # time without work does not count
            await engine.generate(PROMPT, SIMPLE)
            usage = engine.usage()
            assert usage[:3] == (4 * len(IDS), 12, 18)
            assert 2.5 < usage.batch <= 3

    run(task)


def test_prompt_tokens_are_untold_until_a_server_says_how_many_were_cached(words: Model, serve: Serve) -> None:
    server = serve(says("hello"), says("hello", cached=4), says("hello"))

    async def task() -> None:
        async with opened(words, server) as (engine, _):
            untold = []
            for _ in range(3):
                await engine.generate(PROMPT, SIMPLE)
                untold.append(engine.usage().untold)
            assert untold == [len(IDS), 0, 0]

    run(task)


def test_a_cancelled_request_leaves_nothing_behind(words: Model, serve: Serve) -> None:
    server, ready = serve(), threading.Event()
    server.behaviours.extend([after(ready, says("late"))] * 3)

    async def task() -> None:
        async with opened(words, server, batch=3) as (engine, _):
            asking = asyncio.create_task(engine.generate(PROMPT, Sampling(n=5)))
            await until(lambda: len(server.requests) == 3)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await engine.generate(PROMPT, Sampling(n=3)) == [HELLO] * 3
            assert len(server.requests) == 6
            assert engine.usage()[:3] == (3 * len(IDS), 0, 9)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(task)
    ready.set()


def test_if_one_completion_fails_the_others_are_cancelled(words: Model, serve: Serve) -> None:
    ready = threading.Event()
    server = serve(after(ready, says("hello")), fails(422))

    async def task() -> None:
        async with opened(words, server) as (engine, _):
            began = time.monotonic()
            with pytest.raises(MachineryError):
                await engine.generate(PROMPT, Sampling(n=2))
            assert time.monotonic() - began < 10
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(task)
    ready.set()


def test_secrets_are_sent_but_never_shown(
    words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    keyed, named = serve(), serve()
    leak = fails(500, "sk-secret and hush are no good")
    keyed.behaviours.append(leak)
    named.behaviours.append(leak)
    url = named.url.replace("http://", "http://me:hush@")
    told: list[str] = []
    for server, address in ((keyed, keyed.url), (named, url)):
        assert answered(words, address)[0] == [HELLO]
        server.usual = leak
        with pytest.raises(MachineryError) as failed:
            answered(words, address, patience=0.2)
        server.listing = leak
        with pytest.raises(PrerequisiteError) as absent:
            answered(words, address, patience=0.2)
        told += [failed.value.detail, absent.value.what]
    assert {request.authorization for request in keyed.requests} == {"Bearer sk-secret"}
    assert {request.authorization for request in named.requests} == {f"Basic {base64.b64encode(b'me:hush').decode()}"}
    assert [line.split()[0] for line in told] == [keyed.url] * 2 + [named.url] * 2
    assert not any("sk-secret" in line or "me:hush" in line for line in [*told, caplog.text])
    assert not any("hush" in line for line in told[2:])
    with pytest.raises(UsageError) as malformed:
        answered(words, "http//me:hush@host")
    assert "hush" not in malformed.value.what


def test_without_a_key_servers_get_a_placeholder(words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = serve()
    answered(words, server)
    assert server.requests[0].authorization == "Bearer none"
