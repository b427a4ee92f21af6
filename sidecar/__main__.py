"""The command ``sidecar``, and ``python -m sidecar``."""

import gc
import os
import signal
import sys

_WANTED_LATER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


EXIT_CONFIG = 78
"""As `errors.EXIT_CONFIG`, which may be among what cannot be loaded."""


def main() -> int:
    """Run the command that is named by the arguments; return its exit status."""
    # What is loaded from here on stays, and looking for garbage in it is a tenth of the start. What serves turns it on.
    gc.disable()
    if os.getpid() == 1 and sys.argv[1:2] == ["run"]:
        # The kernel drops what process 1 has no handler for, and ours need a while to be loaded. What is blocked waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WANTED_LATER)
    try:
        from sidecar import cli

        return cli.main()
    except ImportError as error:
        if not (error.path or "").endswith(".so"):
            raise
        # What the kernel refuses to run it says itself; an image put together from two architectures gets this far.
        reason = str(error).removeprefix(f"{error.path}: ")
        fix = f"it is for another architecture or system; get the image, or the package, for linux/{os.uname().machine}"
        print(f"sidecar: {error.path} cannot be loaded ({reason}): {fix}", file=sys.stderr)
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
