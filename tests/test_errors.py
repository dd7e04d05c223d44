"""Errors arrive whole from another process."""

import pickle

import pytest

from sandcli.errors import ContextOverflow, Interrupted, MachineryError, PrerequisiteError


@pytest.mark.parametrize(
    "error",
    [
        MachineryError("engine", "down"),
        ContextOverflow(10, 5),
        PrerequisiteError("no model", "get one"),
        Interrupted("sample"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_arrive_whole(error: Exception) -> None:
    error.add_note("where it was")
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent), vars(sent)) == (type(error), str(error), vars(error))
