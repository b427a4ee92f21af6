"""The command ``sidecar``, and ``python -m sidecar``."""

import gc
import os
import signal
import sys

_WANTED_LATER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


EXIT_CONFIG = 78
"""As `errors.EXIT_CONFIG`, which may be among what cannot be loaded."""

EXIT_BROKEN = 1
"""A library is there and could not be loaded, for a reason that may pass: memory, descriptors."""

_OF_ANOTHER_MACHINE = ("wrong ELF class", "invalid ELF header", "cannot open shared object file: No such file")
"""What the dynamic linker says of a file that is there, and was made for another one; of the last, strangely, too."""


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
        reason = str(error).removeprefix(f"{error.path}: ")
        # What the kernel refuses to run it says itself; an image put together from two architectures gets this far.
        is_foreign = reason.startswith(_OF_ANOTHER_MACHINE) and str(error) != reason
        fix = f": it is for another architecture; get the image, or the package, for linux/{os.uname().machine}"
        print(f"sidecar: {error.path} cannot be loaded ({reason}){fix if is_foreign else ''}", file=sys.stderr)
        return EXIT_CONFIG if is_foreign else EXIT_BROKEN


if __name__ == "__main__":
    sys.exit(main())
