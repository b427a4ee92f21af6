"""The loads of the HTTP/2 rows: what h2load asks for, how often, and how long each answer is."""

from __future__ import annotations

from pathlib import Path

from bench import unary
from bench.app import GREETING, TRANSFER_BYTES
from bench.h2load import CONNECTIONS, Load

BROWSER_FIELDS = (
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language: en-US,en;q=0.5",
    "accept-encoding: gzip, deflate, br, zstd",
    "cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
)


def small_load(requests: int) -> Load:
    """Ask for the greeting over 10 connections x 10 streams, each time alike."""
    return Load(paths=["/"], requests=requests, answer_bytes=len(GREETING))


def varied_loads(requests: int) -> list[Load]:
    """
    Ask for the same with a browser's fields, and a query that no other request has.

    h2load starts at the top of its list on each connection, so each connection is one load with a list of its own.
    """
    return [
        Load(
            paths=[f"/?item={number}" for number in range(first, requests, CONNECTIONS)],
            requests=len(range(first, requests, CONNECTIONS)),
            answer_bytes=len(GREETING),
            connections=1,
            fields=BROWSER_FIELDS,
        )
        for first in range(CONNECTIONS)
    ]


def download_load(transfers: int) -> Load:
    """Fetch the big file again and again over one connection."""
    return Load(paths=["/download"], requests=transfers, answer_bytes=TRANSFER_BYTES, connections=1, streams=1)


def upload_load(transfers: int, path: Path) -> Load:
    """
    Send the big file, at *path*, again and again over one connection.

    The app answers with the bytes that it read, of the head too: were they fewer, the number would have fewer digits.
    """
    answer_bytes = len(f"{TRANSFER_BYTES}\n")
    return Load(
        paths=["/upload"], requests=transfers, answer_bytes=answer_bytes, connections=1, streams=1, body_path=path
    )


def unary_load(calls: int, request_path: Path) -> Load:
    """Make the gRPC call, with its request in a file, over 10 connections x 10 streams."""
    return Load(
        paths=[unary.PATH],
        requests=calls,
        answer_bytes=len(unary.ANSWER),
        fields=unary.FIELDS,
        body_path=request_path,
    )
