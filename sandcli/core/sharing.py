"""Sharing between runs: what another run made from the same inputs in the same way is copied instead of made again."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sandcli.core.artifact import Artifact
from sandcli.core.manifest import Manifest, write_manifest
from sandcli.core.stage import Stage
from sandcli.core.work import discard
from sandcli.errors import SandError
from sandcli.files import disk_space, fsync_path, rename_durably, write_atomic

_CHUNK = 2**20


def share(stage: Stage[Any, Any], others: Iterable[Artifact[Any]]) -> Artifact[Any] | None:
    """Copy the stage's artifact from the first of `others` that is finished, unchanged and of the same identity.

    Returns what was copied. None if there is no such artifact, or the stage has begun its own. The files of a model are
    hard links, where the file system has these: nothing changes them in place.
    """
    with stage.artifact.locked():
        if stage.artifact.begun():
            return None
        identity = stage.identity()
        for other in others:
            made = other.manifest()
            if made is not None and made.identity == identity and not made.accepted and _is_whole(other):
                _copy(other, made, stage.artifact)
                return other
    return None


def _is_whole(artifact: Artifact[Any]) -> bool:
    with contextlib.suppress(SandError):
        artifact.require()
        return all(artifact.require_derived(name) for name, path in artifact.derived.items() if path.exists())
    return False


def _copy(made: Artifact[Any], manifest: Manifest, to: Artifact[Any]) -> None:
    """The artifact comes last: until it is there, the stage is not done, and what was copied is copied again."""
    notes = [(made.note(kind), to.note(kind)) for kind in ("units.json", "failures.jsonl")]
    for source, target in (*zip(made.derived.values(), to.derived.values(), strict=True), (made.log, to.log), *notes):
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, _content(source))
    manifest.copied_from = manifest.copied_from or str(made.path)
    write_manifest(to.note("json"), manifest)
    if made.record is None:
        _link_folder(made.path, to.path)
    else:
        write_atomic(to.path, _content(made.path))
    to.finish()


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _link_folder(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + ".tmp")
    discard(temporary)
    with disk_space(target):
        shutil.copytree(source, temporary, copy_function=_link)
    for folder, _, _ in os.walk(temporary):
        fsync_path(Path(folder))
    rename_durably(temporary, target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
        fsync_path(Path(target))
