"""What the checks compute on: a few conversations, trajectories of different lengths, and measures of difference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandcli.engines.loading import load_model
from sandcli.engines.tokens import load_tokenizer
from sandcli.messages import Message
from sandcli.records import Step, Task, Trajectory

_SUBJECTS = ("a plant", "an animal", "a thermometer", "a battery", "water", "a lamp", "a key", "paint")


class NotTried(Exception):
    """This machine lacks what a check needs."""


class Failed(Exception):
    """A check found something wrong."""


def conversations() -> list[list[Message]]:
    """One question each."""
    return [
        [Message("system", "You play a text game."), Message("user", f"Where would you look for {subject}, and why?")]
        for subject in _SUBJECTS
    ]


def trajectories(count: int) -> list[Trajectory]:
    """Trajectories of 2, 3, ... steps."""
    return [_trajectory(subject, steps) for steps, subject in enumerate(_SUBJECTS[:count], 2)]


def _trajectory(subject: str, steps: int) -> Trajectory:
    rooms = ["kitchen", "workshop", "greenhouse", "hallway"]
    turns = [
        Step(
            thought=f"I have not looked for {subject} in the {rooms[number % 4]} yet.",
            action=f"go to {rooms[number % 4]}",
            observation=f"You move to the {rooms[number % 4]}. You see a table and a door.",
            score=(number + 1) / steps,
        )
        for number in range(steps)
    ]
    task = Task(name="find", variation=steps)
    text = f"Your task is to find {subject}."
    return Trajectory(
        id=str(task), env="check", task=task, instruction=text, steps=turns, reward=1.0, success=True, source="check"
    )


def device() -> str:
    """Where models are computed here."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def half() -> bool:
    """Whether models are computed in bfloat16 here, as they are on GPUs unless a setting says otherwise."""
    return bool(torch.cuda.is_available())


def logits(model: Path, dtype: str, attention: str | None = None) -> Tensor:
    """The logits of a model that is loaded with this type of numbers and this kind of attention; see `forward`."""
    return forward(load_model(model, dtype, attention=attention).eval(), model)


def forward(loaded: Any, model: Path) -> Tensor:
    """The logits of every position of a text, on the CPU in float32. `model` is the folder of its tokenizer."""
    text = " ".join(message.content for messages in conversations() for message in messages)
    ids = load_tokenizer(model)(text, return_tensors="pt").input_ids.to(loaded.device)
    with torch.no_grad():  # FSDP does not take tensors of inference mode
        found: Tensor = loaded(input_ids=ids, use_cache=False).logits[0].float().cpu()
    return found


def difference(found: Tensor, wanted: Tensor) -> float:
    """The difference of logits as a share of their spread."""
    return float((found - wanted).norm() / (wanted - wanted.mean()).norm())


def refuse_other_losses(found: Sequence[float], wanted: Sequence[float]) -> None:
    """Raise `Failed` if losses differ by more than computing in another order explains."""
    allowed = 2e-2 if half() else 1e-3
    for step, (one, other) in enumerate(zip(found, wanted, strict=True), 1):
        if not abs(one - other) <= allowed * abs(other):
            raise Failed(f"the loss of step {step} is {one:.4f} instead of {other:.4f}")
