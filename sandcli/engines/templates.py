"""Conversations as the model's own text.

Training and inference both render through this module, so the policy reads at inference what it was trained on. Models
that think before they answer are asked not to, by the switch of their template; see `_Openings`.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateError

from sandcli.errors import UsageError
from sandcli.messages import Message

_TODAY = datetime(2024, 7, 26)
"""The date for templates. Llama's write it into the system turn; a fixed date keeps every prompt the same.

Llama-3.1's template falls back on this date.
"""

_BEGIN = [Message("system", "s"), Message("user", "u")]
_SHAPE = [*_BEGIN, Message("assistant", "a"), Message("user", "u")]
"""A conversation that every model must accept."""

_MARK = "sand-turn-{}-of-the-assistant"
"""Stands for an assistant turn while the template is rendered, so that the template cannot change the turn."""


def render(tokenizer: Any, messages: Sequence[Message], answer: bool) -> str:
    """Write a conversation as the model's own text; `answer` opens the assistant's next turn.

    Raises `UsageError` if the template refuses the conversation, as Gemma's does if there is a system message.
    """
    openings = _openings(tokenizer, str(tokenizer.chat_template))
    return openings.rendered(tokenizer, messages, answer) if openings else _filled(tokenizer, messages, answer)


def refuse_template(tokenizer: Any) -> None:
    """Raise `UsageError` for a template that does not fit conversations of several turns, written by a policy.

    It must accept every role, start a turn without a thought, and keep earlier turns as they were generated.
    """
    opened = render(tokenizer, _BEGIN, answer=True)
    later = render(tokenizer, _SHAPE, answer=True)
    if opened.rfind("<think>") > opened.rfind("</think>"):
        raise UsageError(
            f"the chat template of {tokenizer.name_or_path} starts every turn with a thought and has no switch "
            "enable_thinking to turn that off",
            "use a model that does not think, or edit the template so that its generation prompt ends with </think>",
        )
    turn = f"{opened}{_SHAPE[2].content}"
    if not later.startswith(turn) or not render(tokenizer, _SHAPE[:3], answer=False).startswith(turn):
        raise UsageError(
            f"the chat template of {tokenizer.name_or_path} rewrites earlier turns",
            "use a model whose template keeps earlier turns as they were generated",
        )


class _Openings(NamedTuple):
    """How a template with a switch for thinking opens an assistant turn.

    Asked not to think, Qwen3's template opens the next turn with an empty thought, but earlier turns without one, so
    a policy would be trained on other tokens than it reads. Here every turn begins as the next one does: `now`.
    `earlier` are the openings that the template itself writes for finished turns.
    """

    now: str
    earlier: tuple[str, ...]

    def rendered(self, tokenizer: Any, messages: Sequence[Message], answer: bool) -> str:
        """Write a conversation; every assistant turn stays as it was generated."""
        turns = [number for number, message in enumerate(messages) if message.role == "assistant"]
        marks = {number: _MARK.format(number) for number in turns}
        marked = [m._replace(content=marks.get(number, m.content)) for number, m in enumerate(messages)]
        rest, text = _filled(tokenizer, marked, answer), ""
        for number, mark in marks.items():
            before, _, rest = rest.partition(mark)
            begin = next((known for known in self.earlier if before.endswith(known)), "")
            text += before.removesuffix(begin) + self.now + messages[number].content
        return text + rest


@lru_cache(maxsize=8)
def _openings(tokenizer: Any, template: str) -> _Openings | None:
    """The openings of a template that has the switch `enable_thinking`; None for others."""
    asked = _filled(tokenizer, _BEGIN, answer=True)
    if asked == _filled(tokenizer, _BEGIN, answer=True, thinking=True):
        return None
    before, mark = _filled(tokenizer, _BEGIN, answer=False), _MARK.format(2)
    shape = [*_BEGIN, Message("assistant", mark), _SHAPE[3]]
    over = {_filled(tokenizer, shape[:end], answer=False).removeprefix(before).partition(mark)[0] for end in (3, 4)}
    return _Openings(asked.removeprefix(before), tuple(sorted(over, key=len, reverse=True)))


def _filled(tokenizer: Any, messages: Sequence[Message], answer: bool, thinking: bool = False) -> str:
    try:
        text = tokenizer.apply_chat_template(
            [message._asdict() for message in messages],
            tokenize=False,
            add_generation_prompt=answer,
            enable_thinking=thinking,
            date_string=_TODAY.strftime("%d %b %Y"),
            strftime_now=_TODAY.strftime,  # replaces the function of that name in transformers
        )
    except TemplateError as error:
        raise UsageError(
            f"the chat template of {tokenizer.name_or_path} refuses a conversation: {error}",
            "use a model whose template accepts a system message, such as Llama-3.1, Qwen2.5 or SmolLM2; if it refuses "
            "your own preamble, change that (agent.preamble)",
        ) from None
    return str(text)
