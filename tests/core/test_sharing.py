"""Sharing between runs: only what is finished, unchanged and of the same identity is copied."""

from pathlib import Path

import pytest

from sandcli.core.artifact import StageName
from sandcli.core.run import Run
from sandcli.core.sharing import share
from sandcli.core.stage import Options
from sandcli.errors import Exit
from sandcli.new_run import start_run
from tests.helpers import artifact, built, contents, make_run, perform, state


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A run with samples."""
    root = make_run(tmp_path / "one")
    perform("collect", root, limit=2)
    assert perform("sample", root).exit is Exit.DONE
    return root


def other_run(one: Path, **settings: str | int) -> Path:
    """Another run with the same D_exp."""
    root = make_run(one.parent / "other", **settings)
    (root / "sand.toml").rename(one.parent / "toml")
    start_run(root, None, {"env.name": "tests.toyworld:ToyWorld"}, d_exp=one)
    (one.parent / "toml").replace(root / "sand.toml")
    return root


def test_equal_artifact_is_copied_and_done(one: Path) -> None:
    other = other_run(one)
    shared = share(built("sample", other), [artifact(one, "sample")])
    assert shared is not None and shared.path == one / "samples.jsonl"
    assert (other / "samples.jsonl").read_bytes() == (one / "samples.jsonl").read_bytes()
    assert state("sample", other).kind == "done"
    assert perform("sample", other).message.endswith("nothing to do")
    made = artifact(other, "sample").manifest()
    assert made is not None and made.copied_from == str(one / "samples.jsonl")


def test_copy_is_independent(one: Path) -> None:
    other = other_run(one)
    share(built("sample", other), [artifact(one, "sample")])
    before = contents(one)
    assert perform("sample", other, sample__n=7).exit is Exit.DONE
    assert contents(one) == before


def test_other_settings_share_nothing(one: Path) -> None:
    other = other_run(one, run__seed=1)
    assert share(built("sample", other), [artifact(one, "sample")]) is None
    assert not (other / "samples.jsonl").exists()


def test_changed_artifact_is_not_shared(one: Path) -> None:
    other = other_run(one)
    path = one / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert share(built("sample", other), [artifact(one, "sample")]) is None


def test_unfinished_artifact_is_not_shared(one: Path) -> None:
    other = other_run(one)
    (one / "samples.jsonl").rename(one / "samples.jsonl.part")
    assert share(built("sample", other), [artifact(one, "sample")]) is None


def test_stale_artifact_that_was_accepted_is_not_shared(one: Path) -> None:
    other = other_run(one, sample__temperature=0)
    perform("sample", one, options=Options(accept_stale=True), sample__temperature=0)
    assert share(built("sample", other), [artifact(one, "sample")]) is None


def test_begun_work_is_continued_instead(one: Path) -> None:
    other = other_run(one)
    (other / "samples.jsonl.part").write_bytes(b"")
    assert share(built("sample", other), [artifact(one, "sample")]) is None


def test_interrupted_copy_is_made_again(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = other_run(one)
    from sandcli import files

    write = files.write_atomic

    def failing(path: Path, chunks: list[bytes]) -> None:
        if path.name == "samples.jsonl":
            raise KeyboardInterrupt
        write(path, chunks)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("sandcli.core.sharing.write_atomic", failing)
        share(built("sample", other), [artifact(one, "sample")])
    assert state("sample", other).kind == "missing"
    assert share(built("sample", other), [artifact(one, "sample")]) is not None
    assert state("sample", other).kind == "done"


def test_remains_of_work_that_came_to_nothing_do_not_stay(one: Path) -> None:
    other = other_run(one)
    part = artifact(other, "sample").note("json.part")
    part.write_bytes(artifact(one, "sample").note("json").read_bytes())
    share(built("sample", other), [artifact(one, "sample")])
    assert not part.exists() and state("sample", other).kind == "done"


def test_derived_files_come_along(one: Path) -> None:
    made: tuple[StageName, ...] = ("sample", "rollout", "critique", "synthesize")
    for stage in made:
        assert perform(stage, one).exit is Exit.DONE
    other = other_run(one)
    for stage in made:
        assert share(built(stage, other), [artifact(one, stage)]) is not None
    assert list(Run(other).deliberations()) == list(Run(one).deliberations())
