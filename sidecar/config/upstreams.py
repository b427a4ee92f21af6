"""Where the key material of upstreams is written: in settings of the app's, or at places of the file."""

from __future__ import annotations

from pathlib import Path

from sidecar.config.names import SETTINGS
from sidecar.config.topology import Reading
from sidecar.topology import Topology, UpstreamTls


def tls_of(reading: Reading) -> list[tuple[str, UpstreamTls]]:
    """Return where clusters that speak TLS are written, and how they do."""
    return [(place, cluster.tls) for place, cluster in reading.clusters.items() if cluster.tls is not None]


def part_of(place: str, part: str) -> str:
    """
    Return the setting or place of ``ca``, ``cert`` or ``key`` of a cluster, or the setting that *part* is itself.

    Args:
        place: As in `Reading.clusters`.
    """
    if part in SETTINGS:
        return part
    return f"upstream_{part}" if place == "upstream" else place.replace(".endpoints", f".tls.{part}")


def files_of(topology: Topology) -> tuple[Path, ...]:
    """Return every file and directory that clusters name, and the keys that are looked for beside certificates."""
    found: list[Path] = []
    for cluster in topology.clusters:
        tls = cluster.tls or UpstreamTls()
        found += [source for source in (tls.ca, tls.cert, tls.key) if isinstance(source, Path)]
        if isinstance(tls.cert, Path) and tls.key is None:
            found.append(tls.cert.with_suffix(".key"))
    return tuple(dict.fromkeys(found))
