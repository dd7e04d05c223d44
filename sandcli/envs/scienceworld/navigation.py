"""Shorten walks through rooms, for worlds that allow teleporting."""

from collections.abc import Sequence


def fold_walks(path: Sequence[str]) -> list[str]:
    """Replace each run of `open door to X` and `go to X` with one `teleport to` the last room."""
    short: list[str] = []
    moving = False
    for action in path:
        room = action.removeprefix("go to ")
        if action.startswith("open door to "):
            continue
        if room == action:
            moving = False
            short.append(action)
        else:
            short[len(short) - moving :] = [f"teleport to {room}"]
            moving = True
    return short
