"""Units begin as the engine's prefix cache has room for their conversations."""

import asyncio
from pathlib import Path

import pytest

from sandcli.core.gate import Gate
from sandcli.engines.scripted import ScriptedEngine
from sandcli.errors import MachineryError
from sandcli.interrupts import never
from tests.helpers import artifacts, make_run, perform


async def play(gate: Gate, lengths: list[int], units: int) -> tuple[int, list[int]]:
    """Play units whose conversations get these lengths, turn by turn.

    Returns how many were in progress at most, and the number of tokens in progress after every turn.
    """
    now: dict[int, int] = {}
    most, tokens = 0, []

    async def one(unit: int) -> None:
        nonlocal most
        async with gate.entered(never):
            now[unit] = 0
            most = max(most, len(now))
            for length in lengths:
                await asyncio.sleep(0)
                gate.saw(length)
                now[unit] = length
                tokens.append(sum(now.values()))
            del now[unit]

    await asyncio.gather(*map(one, range(units)))
    return most, tokens


def opened(cache_tokens: int | None) -> Gate:
    gate = Gate()
    gate.serve(cache_tokens)
    return gate


def test_without_a_known_cache_all_begin() -> None:
    assert asyncio.run(play(opened(None), [1000], 300))[0] == 300


def test_conversations_in_progress_fit_into_the_cache() -> None:
    most, tokens = asyncio.run(play(opened(20_000), [500, 1000, 1500, 2000], 100))
    assert most == 9
    assert max(tokens) <= 20_000


def test_more_begin_if_conversations_turn_out_to_be_short() -> None:
    gate = opened(20_000)
    asyncio.run(play(gate, [100, 200], 50))
    assert gate.room is not None and gate.room > 80


def test_fewer_begin_if_conversations_turn_out_to_be_long() -> None:
    gate = opened(20_000)
    asyncio.run(play(gate, [4000, 8000], 60))
    assert gate.room == 2


def test_one_unit_may_always_begin() -> None:
    assert asyncio.run(play(opened(10), [500], 3))[0] == 1


def test_failed_units_leave_their_room() -> None:
    async def fail(gate: Gate) -> None:
        with pytest.raises(ValueError, match="no"):
            async with gate.entered(never):
                raise ValueError("no")
        async with gate.entered(never):
            pass

    asyncio.run(fail(opened(2_000)))


def test_stopped_before_it_began_a_unit_does_not_begin() -> None:
    async def stopped(gate: Gate) -> None:
        async with gate.entered(never):
            waiting = asyncio.create_task(enter(gate))
            with pytest.raises(MachineryError, match="stopped before"):
                await waiting

    async def enter(gate: Gate) -> None:
        async with gate.entered(lambda: True):
            pass

    asyncio.run(stopped(opened(2_000)))


def test_a_stage_with_a_small_cache_makes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [make_run(tmp_path / name) for name in ("large", "small")]
    for root, tokens in zip(roots, (None, 1), strict=True):
        monkeypatch.setattr(ScriptedEngine, "cache_tokens", tokens)
        for stage in ("collect", "sample", "rollout"):
            perform(stage, root)
    assert artifacts(roots[0]) == artifacts(roots[1])
