"""A policy reads the same tokens in an episode as in training, in every family.

Turns and observations have any white space and script.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from sandcli.agent.conversation import conversation, training_messages
from sandcli.agent.episode import play, take
from sandcli.agent.turns import parse
from sandcli.engines import tokens
from sandcli.engines.base import Completion, Sampling
from sandcli.engines.tokens import Prompts, encode, prompt_ids
from sandcli.envs.base import Outcome
from sandcli.envs.pool import Session
from sandcli.messages import Message
from sandcli.records import Step, Task
from sandcli.settings import AgentSettings
from sandcli.training.rows import IGNORED, TrainingRow, tokenise
from tests.families import Family, every_family, step, trajectory
from tests.toyworld import SYSTEM, ToyEpisode

PREAMBLE = [Message("system", SYSTEM)]

TURNS = [
    "Thought: I look.\nAction: look",
    "Action: go to kitchen",
    "Thought: My options: (1) take lamp; (2) go to hall. With the lamp I … 💡\n\nSo I will take it.\nAction: take lamp",
    "  \n Thought:  I was here before, \n\n\t and held it. \n\n  Action:  `Go to  hall`. \n\nObservation: made up",
    "\n I do not know what to do. \n\n",
    "Action: fly\t ",
    " ",
    "Thought: \nAction: look.",
    "Thought: « voilà », e\u0301té 1234 日本\u2028語\u00a0\nAction: drop lamp\n",
]
"""One episode: bare actions, a deliberation, several scripts, stray white space, turns without an action."""

TEXTS = st.text(st.sampled_from(" \n\t\r\x0b\x1c\x85\xa0\u2028\u200bThAction:. e\u0301é日💡'(12)")) | st.text()
SAID = TEXTS | st.tuples(TEXTS, TEXTS).map(lambda parts: f"Thought: {parts[0]}\nAction: {parts[1]}")


class Told:
    """An engine that returns one text after the other, and keeps the tokens of its prompts."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self._prompts = Prompts(tokenizer, 8192)
        self._texts = iter(texts)
        self.prompts: list[list[int]] = []

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        self.prompts.append(self._prompts.ids(messages))
        return [Completion(next(self._texts), 1, "stop")]


class House:
    """The toy world as a session; `tell` changes its observations."""

    def __init__(self, tell: Callable[[str], str]) -> None:
        self._tell = tell
        self._episode = ToyEpisode(Task(name="fetch", variation=0), 0, None)
        self.score = 0.0

    async def step(self, action: str) -> Outcome:
        outcome = self._episode.step(action)
        return outcome._replace(observation=self._tell(outcome.observation))


def read_as_trained(prompts: Sequence[list[int]], row: TrainingRow) -> None:
    """Check that every prompt is a prefix of the trained tokens, and that trained tokens follow it."""
    begins = [n for n, label in enumerate(row.labels) if label != IGNORED and row.labels[n - 1] == IGNORED]
    assert [len(prompt) for prompt in prompts] == begins
    for prompt in prompts:
        assert row.input_ids[: len(prompt)] == prompt


@every_family
@pytest.mark.parametrize("around", [("", ""), ("", "\n"), (" \n\n", " \t\n\n"), ("\t", "\t")])
def test_an_episode_has_the_same_tokens_at_inference_and_in_training(
    family: Family, tokenizers: dict[str, Any], around: tuple[str, str]
) -> None:
    tokenizer = tokenizers[family.name]
    engine, house = Told(tokenizer, TURNS), House(lambda text: around[0] + text + around[1])
    instruction = " Bring the lamp.\n"
    begin = conversation(PREAMBLE, instruction, [])
    limit, settings = len(TURNS), AgentSettings(max_invalid=len(TURNS))
    told = play(cast(Any, engine), cast(Session, house), begin, lambda turn: Sampling(), limit, settings)
    played = asyncio.run(told)
    assert [(step.action, step.deliberated) for step in played.steps] == [
        ("look", False),
        ("go to kitchen", False),
        ("take lamp", True),
        ("go to hall", False),
        ("", False),
        ("fly", False),
        ("", False),
        ("look", False),
        ("drop lamp", False),
    ]
    row = tokenise(tokenizer, training_messages(PREAMBLE, trajectory(played.steps, instruction)))
    read_as_trained(engine.prompts, row)
    for number, prompt in enumerate(engine.prompts):
        assert prompt_ids(tokenizer, conversation(PREAMBLE, instruction, played.steps[:number])) == prompt


class Saying:
    """A session with given observations."""

    def __init__(self, observations: Sequence[str]) -> None:
        self._observations = iter(observations)
        self.score = 0.0

    async def step(self, action: str) -> Outcome:
        return Outcome(next(self._observations), 0.0, False, True)


async def taken(said: Sequence[tuple[str, str]]) -> list[Step]:
    session = cast(Session, Saying([observation for _, observation in said]))
    return [(await take(session, text, AgentSettings())).step for text, _ in said]


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.tuples(SAID, TEXTS), min_size=6, max_size=8), TEXTS)
def test_any_turn_and_observation_is_read_as_in_training(
    tokenizers: dict[str, Any], said: list[tuple[str, str]], instruction: str
) -> None:
    steps = asyncio.run(taken(said))
    for tokenizer in tokenizers.values():
        row = tokenise(tokenizer, training_messages(PREAMBLE, trajectory(steps, instruction)))
        prompts = [prompt_ids(tokenizer, conversation(PREAMBLE, instruction, steps[:n])) for n in range(len(steps))]
        read_as_trained(prompts, row)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.builds(step, TEXTS, TEXTS, TEXTS), min_size=1, max_size=6))
def test_foreign_records_are_read_as_in_training(tokenizers: dict[str, Any], steps: list[Step]) -> None:
    for tokenizer in tokenizers.values():
        row = tokenise(tokenizer, training_messages(PREAMBLE, trajectory(steps)))
        prompts = [
            prompt_ids(tokenizer, conversation(PREAMBLE, "Bring the lamp.", steps[:n])) for n in range(len(steps))
        ]
        read_as_trained(prompts, row)


def test_every_family_reads_the_same_turn() -> None:
    steps = [step(" \nI look. ", " look\t", "A hall.")]
    said = [message.content for message in conversation(PREAMBLE, "u", steps)]
    assert said[2] == "Thought: I look.\nAction: look" and parse(said[2]) == ("I look.", "look")
    assert conversation(PREAMBLE, "u", [step("\n", "look", "")])[2].content == "Action: look"


@every_family
def test_training_uses_the_tokenizers_tokens_whichever_the_model_generated(
    family: Family, tokenizers: dict[str, Any]
) -> None:
    """A model may generate smaller tokens than the tokenizer makes; the next turn has the tokenizer's."""
    tokenizer = tokenizers[family.name]
    usual = encode(tokenizer, "Action: look")
    spelled = [token for letter in "Action: look" for token in encode(tokenizer, letter)]
    assert spelled != usual and tokenizer.decode(spelled) == tokenizer.decode(usual)
    engine = Told(tokenizer, [tokenizer.decode(spelled), "Action: look"])
    begin = conversation(PREAMBLE, "Bring the lamp.", [])
    house = cast(Session, House(str))
    played = asyncio.run(
        play(cast(Any, engine), house, begin, lambda turn: Sampling(), 2, AgentSettings(max_invalid=2))
    )
    first, second = engine.prompts
    assert second[len(first) :][: len(usual)] == usual
    read_as_trained(engine.prompts, tokenise(tokenizer, training_messages(PREAMBLE, trajectory(played.steps))))


MARKS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>", "<|im_start", "|>", "<|im_end|><|im_end|>")
MARKED = st.lists(st.sampled_from(MARKS) | TEXTS).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant"])
CONVERSATIONS = st.lists(st.builds(Message, ROLES, MARKED), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=100)
@given(CONVERSATIONS, st.lists(CONVERSATIONS, min_size=1, max_size=3))
def test_prompts_that_share_a_history_have_the_tokens_of_the_whole_text(
    tokenizers: dict[str, Any], history: list[Message], branches: list[list[Message]]
) -> None:
    """Also if what was said contains special tokens, or parts of them."""
    for tokenizer in tokenizers.values():
        prompts = Prompts(tokenizer, 8192)
        begin = [*PREAMBLE, *history]
        for messages in (begin, *([*begin, *branch] for branch in branches), begin):
            assert prompts.ids(messages) == prompt_ids(tokenizer, messages)


def record_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every text is added that is tokenised from now on."""
    texts: list[str] = []

    def recording(tokenizer: Any, text: str) -> list[int]:
        texts.append(text)
        return encode(tokenizer, text)

    monkeypatch.setattr(tokens, "encode", recording)
    return texts


@every_family
def test_a_history_is_tokenised_once(
    family: Family, tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers[family.name]
    prompts = Prompts(tokenizer, 8192)
    begin = conversation(PREAMBLE, "Bring the lamp.", [step("I look.", "look", "A hall.")])
    prompts.ids(begin)
    texts = record_texts(monkeypatch)
    for place in ("kitchen", "garden"):  # two branches of one history
        texts.clear()
        said = [Message("assistant", f"Action: go to {place}"), Message("user", f"Observation: The {place}.")]
        prompts.ids([*begin, *said])
        assert all(place in text for text in texts) and len(texts) == 2
    texts.clear()
    prompts.ids(begin)
    assert texts == []


class Stubborn:
    """A tokenizer of SmolLM2 whose special tokens have one property changed."""

    def __init__(self, tokenizer: Any, **changed: bool) -> None:
        self._tokenizer, self._changed = tokenizer, changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:
        return self._tokenizer(text, **options)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        found = self._tokenizer.added_tokens_decoder.items()
        return {number: AddedToken(token.content, special=True, **self._changed) for number, token in found}


@pytest.mark.parametrize("changed", ["lstrip", "rstrip", "single_word", "normalized"])
def test_a_text_is_not_split_at_tokens_that_depend_on_what_surrounds_them(
    tokenizers: dict[str, Any], changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Stubborn(tokenizers["SmolLM2"], **{changed: True})
    whole = record_texts(monkeypatch)
    messages = conversation(PREAMBLE, "Bring the lamp.", [])
    assert Prompts(tokenizer, 8192).ids(messages) == prompt_ids(tokenizer, messages)
    assert len(set(whole)) == 1


def test_a_tokenizer_that_reads_a_text_otherwise_in_parts_gets_it_whole(
    tokenizers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers["SmolLM2"]
    monkeypatch.setattr(tokens, "encode", lambda tokenizer, text: [len(text), *encode(tokenizer, text)])
    messages = conversation(PREAMBLE, "Bring the lamp.", [])
    assert Prompts(tokenizer, 8192).ids(messages) == prompt_ids(tokenizer, messages)
