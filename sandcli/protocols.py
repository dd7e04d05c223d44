"""Agent protocols by name: how an agent is told its task, how its turns are read, and when an episode ends.

A protocol is a bundle of settings, as a preset is. docs/protocols.md says which values come from the publications and
which are our choice.
"""

from sandcli.config import Scalar
from sandcli.errors import unknown_name

_LITERATURE: dict[str, Scalar] = {"agent.preamble": "data", "agent.max_tokens": 512, "agent.thought": "optional"}
_ANY_FORM: dict[str, Scalar] = {"agent.inline": True, "agent.preface": True}
_OWN_FORM: dict[str, Scalar] = {"agent.inline": False, "agent.preface": False}
_NEVER: dict[str, Scalar] = {"agent.max_invalid": 0, "agent.invalid": "any"}
_TEN_UNKNOWN: dict[str, Scalar] = {"agent.max_invalid": 10, "agent.invalid": "action"}

_PROTOCOLS: dict[str, tuple[dict[str, Scalar], dict[str, dict[str, Scalar]]]] = {
    "eto": (
        _LITERATURE | _ANY_FORM | _NEVER,
        {"alfworld": {"env.step_limit": 40, "env.translate": False}},
    ),
    "mpo": (
        _LITERATURE | _ANY_FORM | _TEN_UNKNOWN,
        {"alfworld": {"env.step_limit": 30, "env.translate": True, **_NEVER}},
    ),
    "sand": (
        _LITERATURE | _OWN_FORM | _TEN_UNKNOWN,
        {"alfworld": {"env.step_limit": 30, "env.translate": False, **_NEVER}},
    ),
}
"""The settings of each protocol in every world, and those that differ in some worlds."""

PROTOCOLS = tuple(_PROTOCOLS)


def protocol_values(name: str, world: str) -> dict[str, Scalar]:
    """The settings of a protocol in a world. For an unknown name, raises a `UsageError` that lists all protocols."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    everywhere, worlds = _PROTOCOLS[name]
    return everywhere | worlds.get(world, {})
