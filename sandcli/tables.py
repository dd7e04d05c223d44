"""What a table of settings is made of: its base class, and the marks that say what a change of a setting affects."""

from enum import Enum

import msgspec

LONGEST = 1_000_000
"""The longest time to wait for anything, in seconds (11 days): calls of the system fail above some larger number."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of sand.toml."""


class Effect(Enum):
    """How a change of a setting affects existing artifacts.

    A setting without a mark has the effect `CONTENT`: every stage that names its table becomes stale. The other marks
    are for settings that provably do not change what a stage records.
    """

    CONTENT = "changes what is recorded"
    SCOPE = "asks for more or fewer units; recorded ones stay valid"
    REFERENCE = "names something that is identified by its content"
    COMPUTE = "changes how things are computed, not what"


SCOPE, REFERENCE, COMPUTE = Effect.SCOPE, Effect.REFERENCE, Effect.COMPUTE
