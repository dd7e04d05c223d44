"""Made-up artifacts of a run: two trajectories of five steps, of which four are inconsistent."""

from pathlib import Path
from typing import Any

import msgspec

from sandcli.core.artifact import StageName
from sandcli.core.run import D_DELIB, Run
from sandcli.records import Candidate, Critique, Draw, Record, Rollout, Sample, Thought, Trajectory
from tests.method.made_up import DETOUR, rollout, trajectory

FLAGGED = [("a", 1), ("a", 2), ("b", 1), ("b", 4)]
"""At each of them, the policy samples `dance` as well."""


def write(path: Path, *records: Record) -> None:
    """The records as a file that was put there by hand."""
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def expert(name: str) -> Trajectory:
    """A trajectory with reward 1, success and five steps."""
    return msgspec.structs.replace(trajectory(1.0), id=name, success=True)


def sample(name: str, t: int, **other: Any) -> Sample:
    """What was sampled at a step."""
    flagged = (name, t) in FLAGGED
    actions = [DETOUR[t], *(["dance"] if flagged else [])]
    draws = [Draw(thought="", action=action, tokens=1) for action in actions]
    made = Sample(
        id=name,
        step=t,
        expert_action=DETOUR[t],
        samples=draws,
        drawn=2,
        unparsable=0,
        candidates=[Candidate(action=action, count=1) for action in actions],
        deliberate=flagged,
    )
    return msgspec.structs.replace(made, **other)


def branch(name: str, t: int, candidate: int, reward: float = 1.0) -> Rollout:
    """The rollout of a candidate."""
    actions = DETOUR[t:] if candidate == 0 else ["dance"]
    return msgspec.structs.replace(rollout(reward, t, *actions, candidate=candidate), id=name)


def critique(of: Rollout, text: str) -> Critique:
    """What the critic says about a rollout."""
    unit: dict[str, Any] = {name: getattr(of, name) for name in ("id", "step", "candidate", "action", "reward")}
    return Critique(**unit, critique=text, tokens=1)


def thought(name: str, t: int, text: str, *rejected: str) -> Thought:
    """The deliberation of a step; an empty text was rejected for these reasons."""
    return Thought(id=name, step=t, thought=text, attempts=len(rejected) + bool(text), rejected=[*rejected], tokens=1)


def trained(name: str, **thoughts: str) -> Trajectory:
    """A trajectory of D_delib; `t1="text"` is the deliberation at step 1."""
    steps = list(expert(name).steps)
    for at, text in thoughts.items():
        t = int(at.removeprefix("t"))
        steps[t] = msgspec.structs.replace(steps[t], thought=text, deliberated=True)
    return msgspec.structs.replace(expert(name), steps=steps)


def make_complete(root: Path) -> Run:
    """A run in which every flagged step but the last is deliberated."""
    run = Run(root)
    steps = [(name, t) for name in ("a", "b") for t in range(5)]
    rollouts = [branch(*step, candidate, 1.0 - candidate / 2) for step in FLAGGED for candidate in (0, 1)]
    accepted = {step: f"Thought {step}." for step in FLAGGED[:-1]}
    replace(run, "collect", expert("a"), expert("b"))
    replace(run, "sample", *(sample(*step) for step in steps))
    replace(run, "rollout", *rollouts)
    replace(run, "critique", *(critique(one, "I hindered the task, because I danced.") for one in rollouts))
    rejected = thought(*FLAGGED[-1], "", "comes to no conclusion", "repeats itself")
    replace(run, "synthesize", *(thought(*step, text) for step, text in accepted.items()), rejected)
    d_delib = [trained(name, **{f"t{t}": text for (own, t), text in accepted.items() if own == name}) for name in "ab"]
    write(root / D_DELIB, *d_delib)
    return run


def replace(run: Run, stage: StageName, *records: Record) -> None:
    """Exchange an artifact of the run."""
    write(run.artifact(stage).path, *records)
