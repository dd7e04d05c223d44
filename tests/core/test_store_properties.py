"""Any sequence of appends, kills, torn ends and seals leaves in the journal what was recorded, and nothing else."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandcli.core.store import Journal, Records
from sandcli.records import Critique, Key

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
CRITIQUES = st.builds(
    Critique,
    id=st.sampled_from("ab"),
    step=st.integers(0, 3),
    candidate=st.integers(0, 1),
    action=TEXTS,
    reward=st.floats(0, 1),
    critique=TEXTS,
    tokens=st.integers(0, 9),
)


class Store(RuleBasedStateMachine):
    """A journal and a dict that mirrors it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.sealed, self.part = self.folder / "c.jsonl", self.folder / "c.jsonl.part"
        self.known: dict[Key, Critique] = {}
        self.journal = Journal(self.part, Critique)

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    @rule(records=st.lists(CRITIQUES, max_size=4))
    def append(self, records: list[Critique]) -> None:
        self.journal.append(*records)
        self.known |= {record.key: record for record in records}

    @rule(torn=st.binary(max_size=20))
    def die_in_a_write(self, torn: bytes) -> None:
        """A line that a kill cut short never has a newline: that is written last."""
        self.journal.close()
        with self.part.open("ab") as file:
            file.write(torn.replace(b"\n", b" "))
        self.journal = Journal(self.part, Critique)

    @rule()
    def seal_and_go_on(self) -> None:
        self.journal.seal(self.sealed, lambda temporary: None)
        self.journal.close()
        assert not self.part.exists()
        assert [record.key for record in Records(self.sealed, Critique)] == sorted(self.known)
        self.sealed.rename(self.part)
        self.journal = Journal(self.part, Critique)

    @precondition(lambda self: self.known)
    @rule()
    def look_up(self) -> None:
        assert all(self.journal.get(key) == record for key, record in self.known.items())

    @invariant()
    def holds_what_was_recorded(self) -> None:
        assert list(self.journal) == [self.known[key] for key in sorted(self.known)]
        with Records(self.part, Critique) as read:
            assert list(read) == list(self.journal)


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
