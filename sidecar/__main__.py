"""The command ``sidecar``, and ``python -m sidecar``."""

import os
import signal
import sys

_WANTED_LATER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def main() -> int:
    """Run the command that is named by the arguments; return its exit status."""
    if os.getpid() == 1 and sys.argv[1:2] == ["run"]:
        # The kernel drops what process 1 has no handler for, and ours need a while to be loaded. What is blocked waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WANTED_LATER)
    from sidecar import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
