"""``quickstudy`` and ``python -m quickstudy``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported just ends the process."""
    usual = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from quickstudy.cli import main as run

    signal.signal(signal.SIGINT, usual)
    run()


if __name__ == "__main__":
    main()
