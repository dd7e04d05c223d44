"""The committed reference pages are what the program generates today."""

import importlib.util

from tests.helpers import REPO


def test_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", REPO / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.pages().items():
        committed = (REPO / "docs" / "reference" / name).read_text()
        assert committed == text, f"docs/reference/{name} is out of date: run python docs/make_reference.py"
