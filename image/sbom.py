"""
Adds to the image's bill of materials, which so far names the Python packages, the Debian packages and what is compiled
into wheels, as far as these say (PEP 770): the OpenSSL inside cryptography is the one that speaks TLS.

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


def main(root: Path) -> None:
    """Do it, for the file system below *root*."""
    document = json.load(sys.stdin)
    distribution = platform.freedesktop_os_release()
    status = (root / "var/lib/dpkg/status").read_text()
    document["components"] += components(status, f"{distribution['ID']}-{distribution['VERSION_ID']}")
    document["components"] += embedded(root / "opt/sidecar")
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


def embedded(directory: Path) -> list[dict[str, str]]:
    """Return the components that installed wheels say are inside them, each once."""
    found = {}
    for file in sorted(directory.rglob("*.dist-info/sboms/*.json")):
        for component in json.loads(file.read_text()).get("components", ()):
            reference = component.get("purl") or component["bom-ref"]
            found[reference] = {**component, "bom-ref": reference}
    return list(found.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
