"""``quickstudy`` and ``python -m quickstudy``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; Ctrl-C outside of a command just ends the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from quickstudy.cli import main as run

    run()


if __name__ == "__main__":
    main()
