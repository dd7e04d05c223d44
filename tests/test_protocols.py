"""Agent protocols by name: what they set, and what overrides them."""

from pathlib import Path

import pytest

from sandcli.config import resolve
from sandcli.errors import Exit, UsageError
from sandcli.new_run import assigned, start_run
from sandcli.protocols import PROTOCOLS, protocol_values
from tests.helpers import sand
from tests.test_new_run import finished, it1

__all__ = ["finished", "it1"]  # fixtures


@pytest.mark.parametrize("world", ["scienceworld", "alfworld", "tests.toyworld:ToyWorld"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocol_is_valid_in_every_world_and_explicit_in_sand_toml(tmp_path: Path, world: str, protocol: str) -> None:
    start_run(tmp_path, None, assigned([f"env.name={world}"]), None, protocol)
    listed = {setting.name: setting for setting in resolve(tmp_path, {}, {}).listing()}
    for name, value in protocol_values(protocol, world).items():
        assert (listed[name].value, listed[name].origin.startswith(str(tmp_path))) == (value, True)


@pytest.mark.parametrize(
    ("protocol", "world", "limit", "invalid", "translate", "inline"),
    [
        ("eto", "alfworld", 40, 0, False, True),
        ("mpo", "alfworld", 30, 0, True, True),
        ("sand", "alfworld", 30, 0, False, False),
        ("eto", "scienceworld", 0, 0, False, True),
        ("mpo", "scienceworld", 0, 10, False, True),
        ("sand", "scienceworld", 0, 10, False, False),
    ],
)
def test_protocol_follows_the_literature(
    tmp_path: Path, protocol: str, world: str, limit: int, invalid: int, translate: bool, inline: bool
) -> None:
    start_run(tmp_path, None, assigned([f"env.name={world}"]), None, protocol)
    settings = resolve(tmp_path, {}, {}).settings
    assert (settings.env.step_limit, settings.agent.max_invalid, settings.env.translate) == (limit, invalid, translate)
    assert (settings.agent.inline, settings.agent.preface, settings.agent.thought) == (inline, inline, "optional")
    assert settings.agent.invalid == "action" or not invalid
    assert (settings.agent.preamble, settings.agent.max_tokens) == ("data", 512)


def test_protocol_takes_the_world_of_the_preset_and_settings_override_both(tmp_path: Path) -> None:
    start_run(tmp_path, None, assigned(["agent.max_invalid=3"]), "alfworld-llama3.1-8b", "mpo")
    settings = resolve(tmp_path, {}, {}).settings
    assert (settings.env.name, settings.env.step_limit, settings.agent.max_invalid) == ("alfworld", 30, 3)


def test_next_iteration_keeps_its_protocol_unless_another_is_named(it1: Path, tmp_path: Path) -> None:
    text = (it1 / "sand.toml").read_text()
    (it1 / "sand.toml").write_text(text.replace("# max_invalid = 5", "max_invalid = 7"))
    start_run(tmp_path / "it2", it1, {})
    assert resolve(tmp_path / "it2", {}, {}).settings.agent.max_invalid == 7
    start_run(tmp_path / "it3", it1, {}, None, "eto")
    assert resolve(tmp_path / "it3", {}, {}).settings.agent.max_invalid == 0


def test_unknown_protocol_is_refused_with_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no protocol 'etto'") as caught:
        start_run(tmp_path / "run", None, {}, None, "etto")
    assert caught.value.fix == "did you mean eto? Protocols: eto, mpo, sand"
    assert not (tmp_path / "run").exists()


def test_init_takes_a_protocol(tmp_path: Path) -> None:
    made = sand("init", "--run", tmp_path / "run", "--preset", "scienceworld-qwen2.5-7b", "--protocol", "mpo")
    assert made.returncode == Exit.DONE
    assert resolve(tmp_path / "run", {}, {}).settings.agent.invalid == "action"


def test_thought_cannot_be_required_of_turns_that_begin_with_the_action(tmp_path: Path) -> None:
    settings = assigned(["agent.thought=required", "eval.deliberation=free,never"])
    with pytest.raises(UsageError, match="never gives turns without a thought"):
        start_run(tmp_path, None, settings)
