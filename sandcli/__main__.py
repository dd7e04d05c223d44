"""`python -m sandcli` is `sand`: what launchers such as torchrun are given."""

from sandcli.cli import main

main()
