"""ALFWorld: our engine behaves exactly as the stock environment, experts win, and invalid games are reported."""

import asyncio
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("alfworld", reason="ALFWorld is not installed: make setup-alfworld")

from sandcli.envs.alfworld.experts import handcoded
from sandcli.envs.alfworld.files import FILE, FOLDER, TYPES, goal_of, index, read_game
from sandcli.envs.alfworld.game import NOTHING, Game, Position
from sandcli.envs.alfworld.grammars import to_put
from sandcli.envs.alfworld.making import make_games
from sandcli.envs.alfworld.world import Alfworld
from sandcli.envs.pool import Pool
from sandcli.errors import MachineryError, PrerequisiteError, UsageError
from sandcli.records import Step, Task
from sandcli.settings import EnvSettings
from tests.helpers import sand
from tests.real.alfworld_stock import Seen, stock, unpacked, wander
from tests.real.literature import follow_the_literature, shortened

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small game of each type in every split."""
    root = tmp_path_factory.mktemp("games")
    assert len(list(make_games(root, per_type=1, seed=0))) == 3 * len(TYPES)
    return root


@pytest.fixture(scope="module")
def library() -> Any:
    from fast_downward import load_lib

    return load_lib()


def games_of(root: Path) -> list[Path]:
    return sorted(root.glob(f"{FOLDER}/*/*/*/{FILE}"))


def world(root: Path, **settings: Any) -> Alfworld:
    return Alfworld(EnvSettings(games=str(root), **settings))


def step_both(game: Game, position: Position, seen: Seen) -> Position:
    """Take the stock game's action in ours; everything that a player sees must be equal."""
    operator = game.commands(position).get(seen.action)
    after, text = game.apply(position, operator) if operator else (position, NOTHING)
    assert text == seen.feedback
    assert sorted(game.commands(after)) == seen.admissible
    assert game.won(after) == seen.won
    return after


def compare(path: Path, library: Any, seed: int, length: int) -> int:
    """Compare one game with the stock environment, along a walk and along branches from its positions."""
    game = Game(read_game(path), library)
    plan = game.plan()
    intro, walk = wander(path, seed, length, plan)
    assert game.intro() == intro
    positions = [game.start]
    for seen in walk:
        positions.append(step_both(game, positions[-1], seen))
    steps, draw = len(walk), random.Random(seed)
    for _ in range(5):
        start = draw.randrange(len(walk))
        branches = [positions[start]] * 2  # interleaved: each step in the first is followed by one in the second
        for seen in walk[start:]:
            branches = [step_both(game, branch, seen) for branch in branches]
            steps += 2
    assert game.won(positions[len(plan)])
    return steps


def test_made_games_play_as_in_the_stock_environment(made: Path, library: Any) -> None:
    steps = sum(compare(path, library, seed, 20) for seed, path in enumerate(games_of(made)))
    assert steps >= 2000


@pytest.mark.parametrize("grammar", ["older", "newer"])
def test_recorded_games_play_as_in_the_stock_environment(grammar: str, tmp_path: Path, library: Any) -> None:
    paths = unpacked(grammar, tmp_path, 4)
    if not paths:
        pytest.skip("the recorded ALFWorld games are missing")
    assert sum(compare(path, library, seed, 25) for seed, path in enumerate(paths)) >= 600


def test_expert_wins_if_the_stock_expert_does(made: Path, library: Any) -> None:
    for path in games_of(made)[:4]:
        env, game = stock(path, expert=True), Game(read_game(path), library)
        random.seed(0)
        state, position = env.reset(), game.start
        for _ in range(60):
            action = state["extra.expert_plan"][0]
            state, _, done = env.step(action)
            position = step_both(game, position, Seen(action, state.feedback, state.admissible_commands, state.won))
            if done:
                break
        name = path.parent.relative_to(path.parents[3]).as_posix()
        path_of_ours = handcoded(game, goal_of(name), seed=0)
        assert path_of_ours or not state.won
        assert path_of_ours == handcoded(game, goal_of(name), seed=0)


@pytest.mark.parametrize("kind", ["handcoded", "planner"])
def test_experts_win_in_the_pool(made: Path, kind: str) -> None:
    async def scenario() -> None:
        async with Pool(partial(Alfworld, EnvSettings(games=str(made))), 2, 60) as pool:
            for task in world(made).tasks("seen"):
                path = await pool.expert(task, kind, 0)
                assert (await pool.replay(task, path)).outcomes[-1].score == 1.0, (task, path)

    asyncio.run(scenario())


def test_experts_win_recorded_games_of_the_older_grammar(tmp_path: Path, library: Any) -> None:
    paths = unpacked("older", tmp_path, 3)
    if not paths:
        pytest.skip("the recorded ALFWorld games are missing")
    for path in paths:
        game = Game(read_game(path), library)
        name = path.parent.relative_to(path.parents[3]).as_posix()
        for actions in (handcoded(game, goal_of(name), 0), game.plan()):
            position = game.start
            for action in actions:
                position, _ = game.apply(position, game.commands(position)[action])
            assert game.won(position)


def test_tasks_interleave_types_and_follow_the_split_folders(made: Path) -> None:
    tasks = world(made).tasks("seen")
    assert [task.name for task in tasks] == list(TYPES)
    assert {task.game.split("/")[0] for task in tasks if task.game} == {"valid_seen"}
    assert [task.name for task in world(made, tasks=["pick_two_obj_and_place"]).tasks("train")] == [TYPES[5]]
    with pytest.raises(UsageError, match="unknown split 'dev'"):
        world(made).tasks("dev")
    with pytest.raises(UsageError) as caught:
        world(made, tasks=["pick_two_obj"])
    assert caught.value.fix == "did you mean pick_two_obj_and_place?"


def test_episode_has_the_texts_of_the_literature(made: Path) -> None:
    simulator = world(made).start()
    task = world(made).tasks("seen")[0]
    episode = simulator.open(task)
    assert episode.reset.instruction.startswith("You are in the middle of a room.")
    assert "\nYour task is to: " in episode.reset.instruction
    path = simulator.expert(task, "planner", 0)
    assert path[0].startswith("go to ")
    assert not episode.step(path[0]).observation.startswith("You arrive")
    for nonsense in ("", "go to the moon", "look\x00\x1b[2J", "a" * 10_000):
        outcome = episode.step(nonsense)
        assert (outcome.observation, outcome.valid, outcome.done) == (NOTHING, False, False)


def test_pool_restores_a_branch_and_rejects_a_false_prefix(made: Path) -> None:
    async def scenario() -> None:
        async with Pool(partial(Alfworld, EnvSettings(games=str(made))), 1, 60) as pool:
            task = world(made).tasks("seen")[0]
            path = await pool.expert(task, "planner", 0)
            _, outcomes = await pool.replay(task, path)
            prefix = [
                Step(thought="", action=action, observation=outcome.observation, score=0.0)
                for action, outcome in zip(path[:2], outcomes, strict=False)
            ]
            one, other = await pool.restore(task, prefix), await pool.restore(task, prefix)
            assert [await one.step(action) for action in path[2:]] == outcomes[2:]
            assert (await other.step("inventory")).observation.startswith("You are carrying: a")
            with pytest.raises(MachineryError, match="after the end"):
                await one.step("look")
            false = [*prefix[:1], Step(thought="", action=path[1], observation="You fly.", score=0.0)]
            with pytest.raises(MachineryError, match=r"step 1 \(take .*recorded 'You fly.'") as caught:
                await pool.restore(task, false)
            assert caught.value.reason == "replay_diverged"

    asyncio.run(scenario())


def write_game(root: Path, source: Path, name: str, **changes: Any) -> Path:
    """A copy of a game with some of its content changed."""
    path = root / FOLDER / "train" / name / "trial_T1" / FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**json.loads(source.read_text()), **changes}))
    return path


def test_task_sentence_is_found_in_other_spellings_of_the_grammar(made: Path, library: Any) -> None:
    file = read_game(games_of(made)[0])
    sentence = Game(file, library).intro().split("\n\n")[-1]
    other = msgspec.structs.replace(file, grammar=file.grammar.replace('"rhs": "Your task', '"rhs":"Your task'))
    assert Game(other, library).intro().endswith(sentence)
    quoted = msgspec.structs.replace(
        file, grammar=file.grammar.replace("Your task is to: ", 'Your task is to: \\"now\\" ')
    )
    assert 'Your task is to: "now" ' in Game(quoted, library).intro()


def test_invalid_game_files_are_named(made: Path, tmp_path: Path) -> None:
    source = games_of(made)[0]
    name = "pick_and_place_simple-Mug-None-Desk-308"
    path = write_game(tmp_path, source, name, pddl_domain="(define (domain blocks))")
    with pytest.raises(UsageError, match=f"{path}: not an ALFWorld game: its PDDL domain"):
        index(tmp_path)
    path.write_text(source.read_text()[:5000])
    with pytest.raises(UsageError, match=f"{path}: not an ALFWorld game"):
        index(tmp_path)
    path.write_text("[1]")
    with pytest.raises(UsageError, match="not an ALFWorld game"):
        index(tmp_path)
    path.write_text(json.dumps({**json.loads(source.read_text()), "solvable": False}))
    assert [entry.playable for entry in index(tmp_path)] == [False]
    path.write_text(source.read_text())
    assert [entry.playable for entry in index(tmp_path)] == [True]
    path.unlink()
    with pytest.raises(PrerequisiteError, match="no ALFWorld games in") as caught:
        index(tmp_path)
    assert "alfworld-download" in caught.value.fix


def test_untranslatable_game_is_a_machinery_error(made: Path, tmp_path: Path, library: Any) -> None:
    source = games_of(made)[0]
    problem = json.loads(source.read_text())["pddl_problem"]
    path = write_game(tmp_path, source, "pick_and_place_simple-Mug-None-Desk-308", pddl_problem=problem[:-400])
    with pytest.raises(MachineryError, match="the translator refuses"):
        Game(read_game(path), library)


def test_task_of_finds_the_game_of_expert_data(made: Path) -> None:
    here = world(made)
    task = here.tasks("train")[0]
    folder = "/".join((task.game or "").split("/")[1:])
    assert here.task_of(f"data/json_2.1.1/train/{folder}/{FILE}") == task == here.task_of(folder)
    assert here.task_of(folder.replace("/", "_")) == task  # AgentGym's
    with pytest.raises(UsageError, match="names no game"):
        here.task_of("train/pick/trial_T0")


def test_task_of_rejects_a_game_that_exists_twice(made: Path, tmp_path: Path) -> None:
    for split in ("train", "valid_seen"):
        path = tmp_path / FOLDER / split / "pick_and_place_simple-Mug-None-Desk-308" / "trial_T1" / FILE
        path.parent.mkdir(parents=True)
        path.write_text(games_of(made)[0].read_text())
    with pytest.raises(UsageError, match="names several games"):
        world(tmp_path).task_of("pick_and_place_simple-Mug-None-Desk-308/trial_T1")


def test_data_in_the_other_grammar_is_rejected_or_translated(made: Path) -> None:
    task = world(made).tasks("train")[0]
    actions = ["go to desk 1", "put mug 1 in/on desk 1"]
    observations = ["You arrive at loc 3. On the desk 1, you see nothing.", "You put the mug 1 in/on the desk 1."]
    with pytest.raises(UsageError, match="in another grammar") as caught:
        world(made).to_game_grammar(task, actions, observations)
    assert "set env.translate = true in sand.toml" in caught.value.fix
    assert world(made, translate=True).to_game_grammar(task, actions, observations) == (
        ["go to desk 1", "move mug 1 to desk 1"],
        ["On the desk 1, you see nothing.", "You move the mug 1 to the desk 1."],
    )
    plain = world(made).to_game_grammar(task, ["move mug 1 to desk 1"], ["You move the mug 1 to the desk 1."])
    assert plain == (["move mug 1 to desk 1"], ["You move the mug 1 to the desk 1."])


def test_same_seed_makes_the_same_games(tmp_path: Path) -> None:
    for out in ("a", "b"):
        done = sand("games", "make", tmp_path / out, "--per-type", "1", "--seed", "7")
        assert done.returncode == 0, done.stderr
        assert "won in" in done.stdout and "next: sand init" in done.stderr
    one, other = games_of(tmp_path / "a"), games_of(tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert len({path.read_text() for path in one}) == len(one) == 18


def test_translation_cache_is_private_and_replaced_if_damaged(
    made: Path, tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = read_game(games_of(made)[0])
    first = Game(file, library).intro()
    (kept,) = tmp_path.glob("sand/alfworld/*/*.z")
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:100])
    assert Game(file, library).intro() == first
    assert Game(file, library).intro() == first


def eto_row(made: Path) -> dict[str, Any]:
    """The planner's path through the first training game, in ETO's form."""
    task: Task = world(made).tasks("train")[0]
    simulator = world(made).start()
    episode = simulator.open(task)
    said = ["Chores.", "OK", episode.reset.instruction]
    for action in simulator.expert(task, "planner", 0):
        said += [f"Thought: so.\nAction: {action}", f"Observation: {episode.step(action).observation}"]
    messages = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(said)]
    return {"id": 0, "game_file": f"{FOLDER}/{task.game}/{FILE}", "conversations": messages}


def test_rows_are_used_with_their_preamble_in_every_stage(made: Path, tiny: Path, tmp_path: Path) -> None:
    games = {"env__name": "alfworld", "env__games": str(made)}
    follow_the_literature(shortened(tiny, [eto_row(made)], tmp_path / "run", **games))


def test_agents_command_in_the_other_grammar_is_translated_if_set(made: Path) -> None:
    task = world(made).tasks("train")[0]
    path = world(made).start().expert(task, "planner", 0)
    place = next(number for number, action in enumerate(path) if action.startswith("move "))
    ends = {}
    for translate in (False, True):
        episode = world(made, translate=translate).start().open(task)
        for action in path[:place]:
            assert episode.step(action).valid
        ends[translate] = episode.fork().step(to_put(path[place]))
        assert episode.step(path[place]).valid  # the game's own grammar stays valid
    assert not ends[False].valid and ends[True].valid
    assert ends[True].observation.startswith("You move the ")


def test_collect_reads_expert_data(made: Path, tmp_path: Path) -> None:
    task: Task = world(made).tasks("train")[0]
    row = eto_row(made)
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    run = tmp_path / "run"
    sand("init", "--run", run, "--set", "env.name=alfworld", "--set", f"env.games={made}")
    done = sand("collect", "--run", run, "--from", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    (line,) = (run / "expert.jsonl").read_text().splitlines()
    collected = json.loads(line)
    assert collected["reward"] == 1.0 and collected["task"] == {"name": task.name, "game": task.game}
