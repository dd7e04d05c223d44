"""Trajectories and preference pairs as masked tokens.

The loss covers the agent's turns and their end tokens only. Conversations are tokenised piece by piece, and the pieces
are checked against the tokens of the whole text: templates need no special tags, and nothing is cut silently.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sandcli.agent.conversation import pair_prompt, training_messages
from sandcli.engines.configs import stop_ids
from sandcli.engines.templates import render
from sandcli.engines.tokens import encode
from sandcli.errors import UsageError
from sandcli.messages import Message, as_messages
from sandcli.records import Pair, Trajectory

IGNORED = -100
"""The label of a token that carries no loss."""


class TrainingRow(NamedTuple):
    """One trajectory for the trainer: token ids, and labels that are `IGNORED` outside the agent's turns."""

    input_ids: list[int]
    labels: list[int]

    @property
    def tokens(self) -> int:
        """All tokens."""
        return len(self.input_ids)

    @property
    def trained(self) -> int:
        """The tokens with loss."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def longest(self) -> int:
        """The tokens of its only conversation."""
        return self.tokens

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return self.input_ids[-1]

    def empty(self) -> "TrainingRow":
        """A row without loss, which fills up a batch."""
        return TrainingRow(self.input_ids[-1:], [IGNORED])

    def within(self, limit: int, cut: bool) -> tuple["TrainingRow | None", str]:
        """The row if it has at most `limit` tokens, else what is left if whole steps are cut from its end, and why."""
        ends = self._ends()
        if 0 < self.tokens <= limit:
            return self, ""
        kept = sum(end <= limit for end in ends) if cut else 0
        what = f"cut to {kept} of {len(ends)} steps" if kept else "left out"
        why = f"{what}: {self.tokens} tokens, and {limit} are allowed" if ends else "left out: no step"
        return (TrainingRow(self.input_ids[: ends[kept - 1]], self.labels[: ends[kept - 1]]) if kept else None), why

    def _ends(self) -> list[int]:
        """The position after each of the agent's turns."""
        after = [*self.labels, IGNORED][1:]
        return [
            n for n, (label, next_) in enumerate(zip(self.labels, after, strict=True), 1) if next_ == IGNORED != label
        ]


class PairRow(NamedTuple):
    """A preference pair for the trainer: two conversations with the same beginning, which carries no loss."""

    chosen: TrainingRow
    rejected: TrainingRow

    @property
    def tokens(self) -> int:
        """All tokens of both."""
        return self.chosen.tokens + self.rejected.tokens

    @property
    def trained(self) -> int:
        """The tokens of both with loss."""
        return self.chosen.trained + self.rejected.trained

    @property
    def longest(self) -> int:
        """The tokens of the longer conversation."""
        return max(self.chosen.tokens, self.rejected.tokens)

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        return self.chosen.end

    def empty(self) -> "PairRow":
        """A row without loss, which fills up a batch."""
        return PairRow(self.chosen.empty(), self.chosen.empty())

    def within(self, limit: int, cut: bool) -> tuple["PairRow | None", str]:
        """As for a single conversation. A pair needs both."""
        sides = {side: row.within(limit, cut) for side, row in self._asdict().items()}
        why = "; ".join(f"{side} {why}" for side, (_, why) in sides.items() if why)
        chosen, rejected = (row for row, _ in sides.values())
        if chosen is None or rejected is None:
            return None, why
        if rejected.input_ids[: chosen.tokens] == chosen.input_ids:
            return None, f"left out: within {limit} tokens, nothing tells the sides apart"
        return PairRow(chosen, rejected), why


class Prepared(NamedTuple):
    """Rows to train on, and what happened to those that are too long or empty, by id."""

    rows: Sequence[TrainingRow] | Sequence[PairRow]
    too_long: dict[str, str]


def tokenise(tokenizer: Any, messages: Sequence[Message], preamble: int = 0) -> TrainingRow:
    """A conversation with loss on the assistant's turns, end tokens included, but not on its first `preamble` messages.

    Raises `UsageError` if the template rewrites earlier turns, or if the tokens of a turn depend on what follows: at
    inference the policy would never see the context that it was trained on.
    """
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for number, message in enumerate(messages):
        if message.role != "assistant" or number < preamble:
            continue
        opened = render(tokenizer, messages[:number], answer=True)
        closed = render(tokenizer, messages[: number + 1], answer=False)
        said = closed[len(opened) :].rstrip("\n")
        if not opened.startswith(done) or not closed.startswith(opened + message.content):
            raise UsageError("the chat template rewrites earlier turns", "use a model whose template keeps them")
        context, turn = encode(tokenizer, opened[len(done) :]), encode(tokenizer, said)
        ids += context + turn
        labels += [IGNORED] * len(context) + turn
        done = opened + said
    if ids != encode(tokenizer, done):
        raise UsageError(
            "the pieces of a conversation are not the tokens of the whole",
            "use a model whose chat template separates turns with special tokens",
        )
    return TrainingRow(ids, labels)


def prepare(
    tokenizer: Any, preamble: Sequence[Message], records: Sequence[Trajectory | Pair], limit: int, too_long: str
) -> Prepared:
    """All rows. One of more than `limit` tokens is dropped, or loses whole steps from its end."""
    rows: list[Any] = []
    report: dict[str, str] = {}
    for record in records:
        whole = _row(tokenizer, preamble, record)
        row, why = whole.within(limit, cut=too_long == "cut")
        if row:
            rows.append(row)
        if why:
            report[" ".join(map(str, record.key))] = why
    return Prepared(rows, report)


def _row(tokenizer: Any, preamble: Sequence[Message], record: Trajectory | Pair) -> TrainingRow | PairRow:
    if isinstance(record, Pair):
        return pair_row(tokenizer, preamble, record)
    return training_row(tokenizer, preamble, record)


def pair_row(tokenizer: Any, preamble: Sequence[Message], pair: Pair) -> PairRow:
    """A preference pair as it is trained on: no loss on what both sides begin with. Raises what `tokenise` does."""
    prompt = pair_prompt(preamble, pair)
    chosen, rejected = (
        tokenise(tokenizer, [*prompt, *as_messages(side)], len(prompt)) for side in (pair.chosen, pair.rejected)
    )
    return PairRow(chosen, rejected)


def training_row(tokenizer: Any, preamble: Sequence[Message], trajectory: Trajectory) -> TrainingRow:
    """A trajectory as it is trained on. Raises what `tokenise` does."""
    return tokenise(tokenizer, training_messages(preamble, trajectory), len(preamble))


def refuse_endless(tokenizer: Any, end: int, folder: Path) -> None:
    """Raise `UsageError` if turns end with the token `end`, and the model in `folder` does not stop there.

    The trained policy would generate up to its token limit every time.
    """
    stops = stop_ids(folder, tokenizer)
    if end not in stops:
        known = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(sorted(stops)))) or "nowhere"
        raise UsageError(
            f"the template of {folder} ends a turn with {tokenizer.decode([end])!r}, and the model stops at {known}",
            "use an instruction-tuned model, or add the token's id to eos_token_id in its generation_config.json",
        )
