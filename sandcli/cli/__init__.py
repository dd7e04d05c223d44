"""Every command: parse, call the library function of the same name, print. Nothing heavy is imported on start."""

from sandcli.cli import stages  # isort: skip  (help lists the commands in this order)
from sandcli.cli import experiments, inspect, panel, tools
from sandcli.cli.app import app, main

__all__ = ["app", "experiments", "inspect", "main", "panel", "stages", "tools"]
