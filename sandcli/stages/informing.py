"""WKM at inference: what a knowledge base knows of a state counts in the first word of an action. (A baseline.)

Every turn but the first takes part. The world-knowledge model says where the agent stands; the states of expert
trajectories that are most like it, and that were reached by the same kind of action, tell how experts went on.
"""

from asyncio import to_thread
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandcli.agent.conversation import conversation
from sandcli.agent.turns import parse, split_action
from sandcli.engines.base import Completion, Engine, Model, Sampling, Speaker
from sandcli.episodes import GivenPlan
from sandcli.errors import ContextOverflow, MachineryError, PrerequisiteError
from sandcli.messages import Message
from sandcli.method.texts import on_one_line
from sandcli.method.world_knowledge import Entry, entries, first_word, knowledge_preamble, known, mixed, shares
from sandcli.models import fingerprint, locate
from sandcli.records import Step
from sandcli.stages.evaluated import ModelsStage
from sandcli.stages.knowledge import STATE_TOKENS

if TYPE_CHECKING:
    from sandcli.engines.embedding import Embed


class KnowledgeBase:
    """How experts went on from the states that they reached."""

    def __init__(self, found: Sequence[Entry], embed: "Embed", neighbours: int) -> None:
        self.words = sorted({entry.word for entry in found})
        self._entries, self._embed, self._neighbours = found, embed, neighbours
        self._vectors = embed([entry.state for entry in found])

    def next_words(self, state: str, before: str) -> dict[str, float]:
        """How often each word came next in the nearest states, of those that were reached by an action `before`."""
        from sandcli.engines.embedding import nearest

        rows = nearest(self._vectors, self._embed([state])[0], self._neighbours)
        return shares([self._entries[row] for row in rows], before)


class Informing:
    """What the agents of an evaluation are told at every turn, if `retrieval.weight` says so."""

    def __init__(self, stage: ModelsStage[Any, Any], knower: Model) -> None:
        self.knower = knower
        self.stage = stage
        self.settings = stage.context.settings.retrieval
        self.preamble = knowledge_preamble(stage.context.prompts)

    @property
    def active(self) -> bool:
        """Whether knowledge counts."""
        return self.settings.weight < 1

    def depends_on(self) -> dict[str, str]:
        """What the agents' actions depend on."""
        weight = {"retrieval.weight": str(self.settings.weight)}
        if not self.active:
            return weight
        run, model = self.stage.run, self._model()
        return {
            **weight,
            "retrieval.neighbours": str(self.settings.neighbours),
            "retrieval.embedding": fingerprint(model.folder) if model else "words",
            "knowledge": fingerprint(run.artifact("knowledge").require()),
            "experts": fingerprint(run.artifact("collect").require()),
        }

    def _model(self) -> Model | None:
        name = self.settings.embedding
        if not name:
            return None
        try:
            return Model(locate(self.stage.context.path(name)), name, self.stage.context.settings.model.trust_code)
        except PrerequisiteError as error:
            fix = "name the folder or hub name of a model, or leave it empty"
            raise PrerequisiteError(f"retrieval.embedding: {error.what}", fix) from None

    async def open(self, agent: Model) -> None:
        """Make the knowledge base. Raises `PrerequisiteError` if the engine does not tell probabilities."""
        from sandcli.engines.embedding import by_model, by_words

        model, run = self._model(), self.stage.run
        embed = await to_thread(by_model, model.folder, model.trust_code) if model else by_words
        found = list(entries(run.trajectories(), run.knowledge()))
        if not found:
            path = run.artifact("knowledge").path
            raise PrerequisiteError(f"{path} holds no state knowledge", "collect more, or set retrieval.weight to 1")
        self.base = await to_thread(KnowledgeBase, found, embed, self.settings.neighbours)
        trial = [*conversation(self.stage.context.preamble, "", []), Message("assistant", "Action:")]
        async with self.stage.engines.for_model(agent) as engine:
            try:
                await chances(engine, trial, self.base.words)
            except MachineryError as error:
                raise PrerequisiteError(f"retrieval.weight is below 1: {error}", "set it to 1") from None

    def speaker(self, engine: Engine, task: str, plan: GivenPlan | None, begin: int) -> Speaker:
        """An agent in one episode; `begin` counts the messages before its first turn."""
        return _Informed(self, engine, task, plan.text if plan else "", begin) if self.active else engine


async def chances(engine: Speaker, begun: Sequence[Message], words: Sequence[str]) -> dict[str, float]:
    """How probable each word is after a turn that ends in `Action:`, by its first token."""
    (scored,) = await engine.generate(begun, Sampling(max_tokens=1, openings=tuple(f" {word}" for word in words)))
    return dict(zip(words, scored.chances, strict=True))


class _Informed:
    """An agent in one episode. Call it once a turn."""

    def __init__(self, informing: Informing, engine: Engine, task: str, lesson: str, begin: int) -> None:
        self._informing, self._engine, self._task, self._begin = informing, engine, task, begin
        self._told: list[Step] = []
        self._last = lesson
        """What the world-knowledge model wrote last."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """The agent's own turn, with another action if that is more probable."""
        (own,) = await self._engine.generate(messages, sampling)
        opened = len(messages) > self._begin and messages[-1].role == "assistant"
        history, opening = (messages[:-1], messages[-1].content) if opened else (messages, "")
        if len(history) == self._begin:
            return [own]
        try:
            state = await self._state(history)
            turn = split_action(f"{opening}{own.text}", self._informing.stage.settings.agent)
            other = await self._other(history, state.text, turn, sampling) if turn and state.text else None
        except ContextOverflow:  # there is room for the agent's own turn alone
            return [own]
        if other is None:
            return [own._replace(tokens=own.tokens + state.tokens)]
        tokens = own.tokens + state.tokens + other.tokens
        return [other._replace(text=other.text.removeprefix(opening), tokens=tokens)]

    async def _state(self, history: Sequence[Message]) -> Completion:
        """Ask the world-knowledge model where the agent stands."""
        said, seen = history[-2:]
        action, observation = _action(said), seen.content.removeprefix("Observation: ")
        self._told.append(known(self._last, Step(thought="", action=action, observation=observation, score=0)))
        question = conversation(self._informing.preamble, self._task, self._told)
        async with self._informing.stage.engines.beside(self._informing.knower) as engine:
            (state,) = await engine.generate(question, Sampling(max_tokens=STATE_TOKENS))
        self._last = on_one_line(state.text)
        return state._replace(text=self._last)

    async def _other(
        self, history: Sequence[Message], state: str, turn: tuple[str, str], sampling: Sampling
    ) -> Completion | None:
        """A turn with the same thought and another action; None if the agent's own is the most probable."""
        base, (head, action) = self._informing.base, turn
        found = await to_thread(base.next_words, state, first_word(_action(history[-2])))
        if not found:
            return None
        first = first_word(action)
        own = await chances(self._engine, [*history, Message("assistant", head)], sorted({*base.words, first}))
        likely = mixed(own, found, self._informing.settings.weight)
        word = max(likely, key=lambda each: (likely[each], each == first))
        if word == first:
            return None
        begun = f"{head} {word}"
        (rest,) = await self._engine.generate([*history, Message("assistant", begun)], sampling)
        return rest._replace(text=f"{begun}{rest.text}")


def _action(said: Message) -> str:
    turn = parse(said.content)
    return turn.action if turn else ""
