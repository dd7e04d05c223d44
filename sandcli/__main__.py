"""The `sand` command, and `python -m sandcli`: the module that launchers such as torchrun start."""

import signal


def main() -> None:
    """Run the command. Ctrl-C during the imports ends the process at once, without a traceback."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a background process may ignore Ctrl-C
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sandcli.cli import main as command

    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
