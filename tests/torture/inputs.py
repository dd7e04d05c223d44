"""Randomly malformed input from people, models and worlds: it causes no traceback and no unreadable file."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sandcli.config import FILE
from sandcli.core.artifact import StageName
from tests.helpers import artifact
from tests.torture.cases import Case, must, must_end_well
from tests.torture.inside import Ended, forked
from tests.torture.runs import STAGES, Quiet, copied

NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 7.5, 1e400, float("nan"), 10**400, "", " ", "\n", "\x00", "\ud800", "\x1b[2J\x1b]52;c;aGk=\x07",
    "[/INST] [red] [/x]", "\u202eabc", "</script><script>alert(1)</script>", "Action: ", "Thought:" + " " * 3000,
    "../../etc/passwd", "x" * 20000, [], {}, [[[[]]]], {"a": None}, "Action: look\nAction: look", "\ufeff", "<think>",
)  # fmt: skip
"""Values that input might contain."""


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with one part of it replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        match chance.randrange(6):
            case 0:
                return {name: item for name, item in value.items() if name != key}
            case 1:
                return {**value, f"{key}_": value[key]}
            case _:
                return {**value, key: mutated(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        at = chance.randrange(len(value))
        match chance.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[: at + 1] + value[at:]
            case _:
                return [*value[:at], mutated(value[at], chance), *value[at + 1 :]]
    if isinstance(value, str) and value and chance.random() < 0.3:
        at = chance.randrange(len(value))
        return value[:at] + str(chance.choice(NASTY)) + value[at:]
    return chance.choice(NASTY)


def garbled(text: bytes, chance: random.Random) -> bytes:
    """A text file with its bytes, its encoding or its end broken."""
    at = chance.randrange(len(text))
    ways: tuple[bytes, ...] = (
        text[:at],
        text[:at] + chance.randbytes(3) + text[at:],
        text[:at] + b"\x00" * 64 + text[at + 64 :],
        b"\xef\xbb\xbf" + text,
        text.decode(errors="replace").encode("utf-16"),
        text.replace(b"\n", b"\r\n"),
        b"[" * 100_000,
        b"",
        text + text,
        chance.randbytes(200),
    )
    return chance.choice(ways)


def dumped(value: Any) -> bytes:
    """JSON as a careless program writes it, with NaN, infinity and lone surrogates."""
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


class Inputs:
    """The cases of one set of quiet runs; every seed is one."""

    def __init__(self, quiet: Quiet, folder: Path) -> None:
        self._quiet = quiet
        self._kinds: dict[str, Callable[[Path, random.Random], Ended]] = {
            "recorded": self._recorded_trajectories,
            "edited": self._edited_artifact,
            "settings": self._settings,
            "flags": self._flags,
            "answers": self._answers,
            "world": self._world,
        }

    def from_seed(self, seed: int) -> Iterator[Case]:
        """An endless series of cases."""
        while True:
            for kind in self._kinds:
                yield self.case(f"input/{kind}/{seed}")
            seed += 1

    def case(self, name: str) -> Case:
        """The case input/KIND/SEED."""
        return Case(name, lambda folder: self._hand_over(name, folder))

    def _hand_over(self, name: str, folder: Path) -> bool:
        ended = self._kinds[name.split("/")[1]](folder, random.Random(name))
        must_end_well(ended, (0, 1, 2, 3))
        must("\x1b" not in ended.said and "\u202e" not in ended.said, "a control character reaches the terminal", ended)
        root = folder / "run"
        _must_be_readable(root)
        if root.exists():
            must_end_well(forked([("status", "--run", root)]), (0, 2))
        return True

    def _recorded_trajectories(self, folder: Path, chance: random.Random) -> Ended:
        """A file of expert trajectories in ETO's form."""
        root = copied(self._quiet.at("collect"), folder)
        turns = (("take lamp", "You take the lamp."), ("go to hall", "You are in the hall, lamp in hand."))
        said = [{"from": "human", "value": "Bring the lamp from the kitchen to the hall. (House 0.)"}]
        for action, seen in (("go to kitchen", "You are in the kitchen."), *turns, ("drop lamp", "You drop the lamp.")):
            said += [{"from": "gpt", "value": f"Thought: So.\nAction: {action}"}, {"from": "human", "value": seen}]
        rows = [{"id": f"fetch_{number}", "conversations": said} for number in (0, 2)]
        file = folder / "rows.json"
        file.write_bytes(_broken(rows, chance))
        return forked([("collect", "--run", root, "--from", file)])

    def _edited_artifact(self, folder: Path, chance: random.Random) -> Ended:
        """An artifact that somebody edited, accepted by its own stage and read by the next."""
        stage = chance.choice([stage for stage in STAGES if stage not in ("sft", "train")])
        root = copied(self._quiet.finished, folder)
        path = artifact(root, stage).path
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
        at = chance.randrange(len(records))
        records[at] = mutated(records[at], chance)
        path.write_bytes(b"".join(dumped(record) + b"\n" for record in records))
        if chance.random() < 0.2:
            path.write_bytes(garbled(path.read_bytes(), chance))
        accept = ("--accept-stale",) * chance.randrange(2)
        after = STAGES[(STAGES.index(stage) + 1) % len(STAGES)]
        show: tuple[str | Path, ...] = ("show", "--run", root, *(("fetch_0",) * chance.randrange(2)))
        limit = ("--run", root, "--limit", "2")
        return forked([(stage, *limit, *accept), (after, *limit, "--force"), show, ("report", root)])

    def _settings(self, folder: Path, chance: random.Random) -> Ended:
        """A sand.toml that somebody edited."""
        root = copied(self._quiet.at("sample"), folder)
        text = (root / FILE).read_bytes()
        lines = text.splitlines(keepends=True)
        at = chance.choice([number for number, line in enumerate(lines) if b" = " in line])
        name = lines[at].removeprefix(b"# ").partition(b" = ")[0]
        lines[at] = name + b" = " + _toml(chance.choice(NASTY)) + b"\n"
        (root / FILE).write_bytes(b"".join(lines) if chance.random() < 0.7 else garbled(text, chance))
        return forked([("config", "--run", root), ("collect", "--run", root, "--limit", "2", "--dry-run")])

    def _flags(self, folder: Path, chance: random.Random) -> Ended:
        """Settings on the command line of `init`; what it writes must be readable."""
        lines = (self._quiet.finished / FILE).read_text().splitlines()
        keys, table = [], ""
        for line in lines:
            table = line.strip("[]") if line.startswith("[") else table
            if " = " in line and table:
                keys.append(f"{table}.{line.removeprefix('# ').partition(' = ')[0]}")
        value = str(chance.choice(("inf", "nan", "1e10", "-1", "9" * 5000, "\x7f", "\udcff", "a,b", *NASTY)))
        folder.mkdir(parents=True, exist_ok=True)
        made = forked([("init", "--run", folder / "run", "--set", f"{chance.choice(keys)}={value}")])
        if made.code != 0:
            return made
        return forked([("config", "--run", folder / "run")])

    def _answers(self, folder: Path, chance: random.Random) -> Ended:
        """What a model answers."""
        played: tuple[StageName, ...] = ("explore", "sample", "rollout", "critique", "synthesize", "eval")
        root = copied(self._quiet.at(chance.choice(played)), folder)
        rules = folder / "rules.json"
        answers = [str(chance.choice(NASTY)) for _ in range(3)] + ["Thought: I go.\nAction: look"]
        chance.shuffle(answers)
        rules.write_bytes(json.dumps([{"when": "", "replies": answers}]).encode())
        (root / FILE).write_text((root / FILE).read_text().replace(str(self._quiet.folder / "0-collect"), str(folder)))
        limit = ("--run", root, "--limit", "2")
        stages = [(stage, *limit) for stage in played]
        return forked([*stages, ("show", "--run", root, "fetch_0"), ("report", root)])

    def _world(self, folder: Path, chance: random.Random) -> Ended:
        """What a world answers."""
        root = copied(self._quiet.at("collect"), folder)
        text = (root / FILE).read_text().replace("tests.toyworld:ToyWorld", "tests.torture.worlds:MadWorld")
        (root / FILE).write_text(text.replace('simplifications = "none"', f'simplifications = "mad={chance.random()}"'))
        limit = ("--run", root, "--limit", "2")
        return forked([(stage, *limit) for stage in ("collect", "sft", "explore", "sample", "rollout", "eval")])


def _broken(value: Any, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 3)):
        value = mutated(value, chance)
    return dumped(value) if chance.random() < 0.8 else garbled(dumped(value), chance)


def _toml(value: Any) -> bytes:
    if value is None or isinstance(value, dict):
        return b"{}"
    return dumped(value).replace(b"NaN", b"nan").replace(b"Infinity", b"inf")


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _must_be_readable(root: Path) -> None:
    """Check that everything `sand` wrote is readable: strict JSON, in UTF-8."""
    for path in root.rglob("manifests/*.json"):
        _must_parse(path, path.read_bytes())
    for path in [*root.glob("*.part"), *root.glob("manifests/*.jsonl")]:
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            _must_parse(path, line)


def _must_parse(path: Path, text: bytes) -> None:
    try:
        json.loads(text.decode(), parse_constant=_refuse)
    except ValueError as error:
        must(False, f"{path.name} was written and cannot be read: {error}")
