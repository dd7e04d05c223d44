"""The `sand` command and its surroundings: Ctrl-C, a closed pipe, a terminal without UTF-8, errors."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandcli.errors import Exit
from tests.helpers import REPO, SAND, environment, make_run, sand


@pytest.mark.parametrize("module", ["msgspec", "typer", "rich"])
def test_ctrl_c_during_startup_prints_no_traceback(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    command = [sys.executable, "-m", "sandcli", "status", "--run", str(tmp_path / "none")]
    path = f"{tmp_path}:{REPO}"
    ran = subprocess.run(
        command,
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # the tests may ignore it
    )
    assert (ran.returncode in (-signal.SIGINT, Exit.INTERRUPTED), ran.stderr) == (True, "")


def test_ctrl_c_during_a_command_that_reads_exits_with_130(tmp_path: Path) -> None:
    program = "import sandcli.status; sandcli.status.status_of = interrupted; main()"
    code = f"from sandcli.cli import main\ndef interrupted(context): raise KeyboardInterrupt\n{program}"
    root = make_run(tmp_path / "run")
    ran = subprocess.run(
        [sys.executable, "-c", code, "status", "--run", str(root)], env=environment(), capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


def test_the_installed_command_is_the_one_that_is_tested() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"sand": "sandcli.__main__:main"}


def without_reader(*arguments: str | Path, **closed: bool) -> subprocess.CompletedProcess[str]:
    """Run the command with stdout or stderr closed at the other end."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams: dict[str, Any] = {
            name: writer if closed.get(name) else subprocess.PIPE for name in ("stdout", "stderr")
        }
        return subprocess.run([*SAND, *map(str, arguments)], env=environment(), text=True, timeout=120, **streams)
    finally:
        os.close(writer)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sample", "--help"]], ids=" ".join)
def test_help_for_a_closed_pipe_is_no_error(arguments: list[str]) -> None:
    ran = without_reader(*arguments, stdout=True)
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["config"]], ids=" ".join)
def test_a_closed_pipe_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    ran = without_reader(*arguments, "--run", make_run(tmp_path / "run"), stdout=True)
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_a_stage_continues_if_nobody_reads_its_notices(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    ran = without_reader("collect", "--run", root, "--json", stderr=True)
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["manifest"]["counts"]["units"] == 6
    assert without_reader("rollout", "--run", root, stderr=True).returncode == 3


@pytest.mark.slow
def test_a_terminal_that_is_not_utf_8_shows_every_character_somehow(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    ran = sand("status", "--run", make_run(tmp_path / "模型"), extra=plain)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "expert.jsonl is missing" in ran.stdout and ran.stdout.isascii()
    ran = sand("show", "--run", tmp_path / "模", extra=plain)
    assert (ran.returncode, ran.stderr.isascii()) == (3, True)


@pytest.mark.parametrize("name", ["a b", "a'b", "a;b"])
def test_every_printed_command_can_be_pasted(tmp_path: Path, name: str) -> None:
    ran = sand("init", "--run", tmp_path / name)
    command = shlex.split(ran.stderr.splitlines()[-1].removeprefix("next: "))
    assert command == ["sand", "collect", "--run", str(tmp_path / name)]


@pytest.mark.slow
def test_a_traceback_does_not_control_the_terminal_and_keeps_the_exit_code(tmp_path: Path) -> None:
    ran = sand("--debug", "status", "--run", tmp_path / "\x1b[2J")
    assert ran.returncode == 3
    assert "Traceback" in ran.stderr and "there is no run directory" in ran.stderr.splitlines()[-2]
    assert "\x1b" not in ran.stderr


@pytest.mark.slow
def test_a_run_whose_name_is_not_utf_8_is_read(tmp_path: Path) -> None:
    root = make_run(tmp_path / os.fsdecode(b"it\xff"))
    for stage in ("collect", "eval"):
        ran = sand(stage, "--run", root, "--limit", "1", "--json")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["exit"] == 0
    ran = sand("report", root, "--html", tmp_path / "page.html", "--out", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    assert "it\\udcff" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not [
        stage for stage in json.loads(sand("status", "--run", root, "--json").stdout) if "internal" in stage["note"]
    ]
