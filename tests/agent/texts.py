"""Thoughts and actions for property-based tests: any text that a turn can hold."""

from hypothesis import strategies as st

from sandcli.agent.turns import has_action_line, normalise
from sandcli.settings import AgentSettings

THOUGHTS = st.text().map(str.strip).filter(lambda text: not has_action_line(text))
ACTIONS = st.text().filter(lambda text: "\n" not in text).map(str.strip).filter(normalise)

FORMS = [AgentSettings(inline=inline, preface=preface) for inline in (False, True) for preface in (False, True)]
"""Every combination of the forms in which a turn can be read."""
