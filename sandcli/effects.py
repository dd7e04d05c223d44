"""How a change of a setting affects existing artifacts: the marks of the settings in `sandcli.settings`."""

from enum import Enum


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
