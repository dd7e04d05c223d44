"""Runs on the toy world with the scripted engine, in this process and as the `sand` command."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sandcli.config import Scalar, resolve
from sandcli.core.artifact import Artifact, StageName
from sandcli.core.context import Context
from sandcli.core.planner import inspect
from sandcli.core.run import ARTIFACTS, Run
from sandcli.core.runner import run_stage
from sandcli.core.stage import Options, Stage, State, Summary, Unit, unit_name
from sandcli.errors import Exit
from sandcli.new_run import assigned, start_run
from sandcli.pipeline import TABLE
from sandcli.prompts import load

REPO = Path(__file__).resolve().parent.parent
SAND = (sys.executable, "-c", "from sandcli.cli import main; main()")
WATCHED_SAND = (sys.executable, "-c", "from tests.helpers import watched_main; watched_main()")

POLICY = "You live in a house"
"""A phrase of the toy world's instruction."""

Rules = list[dict[str, Any]]


def turn(thought: str, action: str) -> str:
    """A turn as the scripted engine's rules give it."""
    return f"Thought: {thought}\nAction: {action}"


def asked(name: str) -> str:
    """The system turn of prompts/compact/NAME.md, which occurs in no other conversation."""
    return load(f"compact/{name}").partition("# user")[0].removeprefix("# system").strip()


def rules() -> Rules:
    """An inconsistent policy, a critic, and a writer of deliberations that often fail the checks."""
    actions = ("go to kitchen", "go to garden", "take lamp", "go to hall", "drop lamp")
    return [
        *({"when": f"So I will {action}.", "replies": _deliberations(action)} for action in actions),
        {
            "when": asked("critique"),
            "replies": [
                " hindered the task, because it was a detour. Rooms are best searched one by one.",
                " advanced the task. Lamps are often in kitchens. I should hurry. I am done.",
                " did no harm",
            ],
        },
        {
            "when": asked("think"),
            "replies": ["I want the lamp. It is dark.", "Thought: I go on.", "I see.\nAction: look"],
        },
        {
            "when": asked("lesson"),
            "replies": ["1. Go to the kitchen.", "", "1. Fly away."],
        },
        {"when": asked("state"), "replies": ["I seek a lamp.", "I have\nthe lamp.", ""]},
        {"when": "Last action:", "replies": ["I seek a lamp."]},
        {"when": asked("know"), "replies": ["1. Go to the kitchen."]},
        {
            "when": "lamp in hand.",
            "replies": [
                turn("Done.", "drop lamp"),
                "Action: Drop  lamp.",
                turn("So.", "drop lamp"),
                "Action: eat lamp",
            ],
        },
        {
            "when": "Observation: You take the lamp.",
            "replies": [turn("Back.", "go to hall"), "I am lost.", turn("Out.", "go to garden"), turn("Hm.", "look")],
        },
        {
            "when": "Observation: You are in the",
            "replies": [
                turn("My options: (1) look; (2) take lamp. The second.", "take lamp"),
                turn("I look.", "`look`"),
                turn("I grab it.", "take lamp"),
                turn("It is tasty.", "eat lamp"),
            ],
        },
        {"when": asked("plan"), "replies": ["1. Go to the kitchen.", "1. Fly away.", ""]},
        {"when": "1. Go to the kitchen.", "replies": [turn("As planned.", "go to kitchen")]},
        {"when": "1. Fly away.", "replies": [turn("As planned.", "fly")]},
        {
            "when": POLICY,
            "replies": [
                turn("It may be in the kitchen.", "go to kitchen"),
                turn("It may be in the garden.", "go to garden"),
                "Where am I?",
                turn("I can fly.", "fly"),
                turn("I look.", "look"),
            ],
        },
    ]


def _deliberations(action: str) -> list[str]:
    """Half of them pass the checks, and none of those for `go to hall`."""
    weighed = ", ".join(f"({number}) costs so much time" for number in range(1, 7))
    good = f" would take longer, and another way is short: {weighed}. So I will {action}."
    bad = [
        f" asked the expert. So I will {action}.",
        " do not know.",
        f" can say it. Action: {action}. So I will {action}.",
    ]
    return bad if action == "go to hall" else [bad[0], good, bad[1], good + " It is done.", bad[2], good]


def write_rules(path: Path, content: Rules | None = None) -> Path:
    """The rules as the file that engine.script names."""
    path.write_text(json.dumps(rules() if content is None else content))
    return path


def make_run(folder: Path, **settings: Scalar) -> Path:
    """A run directory on the toy world; `env__tasks="fetch,carry"` sets env.tasks."""
    script = folder.parent / "rules.json"
    if not script.exists():
        write_rules(script)
    values: dict[str, Scalar] = {
        "env.name": "tests.toyworld:ToyWorld",
        "env.tasks": "fetch",
        "env.simplifications": "none",
        "engine.kind": "scripted",
        "engine.script": str(script),
        "collect.thoughts": "none",
        "prompts.set": "compact",
        "run.workers": 1,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    start_run(folder, None, assigned([f"{name}={value}" for name, value in values.items()]))
    return folder


def context(root: Path, limit: int | None = None, **settings: Scalar) -> Context:
    """The context of a stage; settings count as command-line flags."""
    flags = {name.replace("__", "."): value for name, value in settings.items()}
    return Context(Run(root), resolve(root, {}, flags).settings, limit)


def built(stage: StageName, root: Path, limit: int | None = None, **settings: Scalar) -> Stage[Any, Any]:
    """A stage of a run."""
    kinds = {row.name: row.stage for row in TABLE}
    return kinds[stage](context(root, limit, **settings))


def artifact(root: Path, stage: StageName) -> Artifact[Any]:
    """A stage's artifact."""
    return Run(root).artifact(stage)


def perform(
    stage: StageName, root: Path, limit: int | None = None, options: Options | None = None, **settings: Scalar
) -> Summary:
    """Run a stage in this process."""
    return asyncio.run(run_stage(built(stage, root, limit, **settings), options or Options()))


def state(stage: StageName, root: Path, limit: int | None = None, **settings: Scalar) -> State:
    """The state of a stage."""
    return inspect(built(stage, root, limit, **settings))


def accept_edit(stage: StageName, root: Path, limit: int | None = None) -> None:
    """Accept a finished artifact as it was edited by hand."""
    assert perform(stage, root, limit, Options(accept_stale=True)).exit is Exit.DONE


def environment(**extra: str) -> dict[str, str]:
    """The variables of a `sand` process: no `SAND_*` of the caller's, and the path of the toy world."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SAND_")}
    return {**kept, "PYTHONPATH": str(REPO), "COLUMNS": "200", **extra}


def sand(
    *arguments: str | Path, cwd: Path = REPO, timeout: float = 120, extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; `timeout` in seconds."""
    return subprocess.run(
        [*SAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def wait_until(holds: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until a condition holds; fail if it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file as plain JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder except locks, which may change even if nothing else does."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def artifacts(root: Path) -> dict[str, bytes]:
    """The finished JSONL files of a run."""
    return {path.name: path.read_bytes() for path in sorted(root.glob("*.jsonl"))}


def units(stage: StageName, content: bytes) -> list[str]:
    """The units of recorded lines, as `watched` names them."""
    kind: Any = ARTIFACTS[stage].record
    records = (msgspec.json.decode(line, type=kind) for line in content.splitlines())
    return [f"{stage} {unit_name(record.key)}" for record in records]


def watched(see: Callable[[str], None], patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Call `see` with `STAGE UNIT` whenever a unit of any stage begins."""
    for row in TABLE:
        patch(row.stage, "step", _watching(row.name, row.stage.step, see))


def _watching(name: str, step: Any, see: Callable[[str], None]) -> Any:
    async def watching(stage: Stage[Any, Any], unit: Unit[Any], earlier: Any) -> Any:
        see(f"{name} {unit_name(unit.key)}")
        return await step(stage, unit, earlier)

    return watching


def watched_main() -> None:
    """`sand`, pausing $WATCHED_PAUSE seconds at the start of every unit and adding its name to the file $WATCHED."""
    from sandcli.cli import main

    def see(line: str) -> None:
        time.sleep(float(os.environ["WATCHED_PAUSE"]))
        with Path(os.environ["WATCHED"]).open("a") as file:
            file.write(line + "\n")

    watched(see)
    main()


def fault(folder: Path, kind: str, where: str) -> None:
    """Arm the toy world: `fault(folder, "exit", "fetch_0 take lamp")` kills the worker at that action, once."""
    folder.mkdir(exist_ok=True)
    number = len(list(folder.iterdir())) + 1
    (folder / f"{kind}-{number}").write_text(where)
