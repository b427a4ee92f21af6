"""
Says what an image's bytes are for, as a table in Markdown: `python image/contents.py tls-sidecar:0.1.0`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections import Counter

ROWS = (
    (r"opt/sidecar/lib/[^/]+/site-packages/sidecar(?:/|__mypyc)", "sidecar"),
    (r"opt/sidecar/lib/[^/]+/site-packages/twisted/", "Twisted, without its other protocols, tools and tests"),
    (r"opt/sidecar/lib/[^/]+/site-packages/cryptography/", "cryptography, with OpenSSL inside"),
    (r"opt/", "other dependencies"),
    (r"usr/lib/python[^/]+/lib-dynload/", "Python's compiled modules"),
    (r"usr/lib/python", "Python's standard library, without tests, tkinter, curses and the like"),
    (r"usr/bin/python", "Python"),
    (r".*/lib(?:crypto|ssl)\.so", "Debian's OpenSSL, which Python is linked with"),
    (r"usr/lib/|usr/lib64/", "other shared libraries (libc, libstdc++, zlib and the like)"),
    (r"usr/bin/", "dash, for the entrypoint, and the entrypoint"),
    (r"usr/share/doc/|usr/share/sbom/|var/lib/dpkg/", "licences, bill of materials, package database"),
    (r"etc/ssl/", "public CAs, for `https://` upstreams"),
    (r"", "users, names, version of the system"),
)
"""What a path begins with, and what that is for; the first that fits."""


def sizes(image: str) -> Counter[str]:
    """Return the bytes of each of `ROWS` in the file system of *image*, source and bytecode apart from each other."""
    found: Counter[str] = Counter()
    name = subprocess.run(  # noqa: S603 - as the user typed it
        ["docker", "create", image],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    try:
        with (
            subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as exporting,  # noqa: S603, S607
            tarfile.open(fileobj=exporting.stdout, mode="r|") as archive,
        ):
            for member in archive:
                found[next(what for start, what in ROWS if re.match(start, member.name))] += member.size
    finally:
        subprocess.run(["docker", "rm", name], check=True, capture_output=True)  # noqa: S603, S607
    return found


def main(image: str) -> None:
    """Print the table, the largest first."""
    found = sizes(image)
    print("| MB | of |\n|---:|---|")
    for what, size in found.most_common():
        print(f"| {size / 1e6:.1f} | {what} |")
    print(f"| **{found.total() / 1e6:.1f}** | **all of it** |")


if __name__ == "__main__":
    main(sys.argv[1])
