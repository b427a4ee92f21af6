"""
Adds the Debian packages of the image to its bill of materials, which so far names the Python packages.

Run by the Dockerfile: a CycloneDX document on standard input, the changed one on standard output. What scanners find in
the image's package database is what this lists; nothing in it depends on when it was made.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

from packageurl import PackageURL


def main(status: Path) -> None:
    """Do it, with the package database *status*."""
    document = json.load(sys.stdin)
    distribution = platform.freedesktop_os_release()
    document["components"] += components(status.read_text(), f"{distribution['ID']}-{distribution['VERSION_ID']}")
    json.dump(document, sys.stdout, indent=2)


def components(status: str, distribution: str) -> Iterator[dict[str, str]]:
    """
    Yield the CycloneDX component of each package.

    Args:
        status: As in ``/var/lib/dpkg/status``.
        distribution: Such as ``debian-13``.
    """
    for stanza in status.strip().split("\n\n"):
        fields = HeaderParser().parsestr(stanza.strip())
        name, version = fields["Package"], fields["Version"]
        qualifiers = {"arch": fields["Architecture"], "distro": distribution}
        purl = PackageURL("deb", "debian", name, version, qualifiers).to_string()
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
