"""
The unary gRPC call of the benchmark: its messages, and what a right answer to it looks like.

h2load counts calls and bytes, but says nothing about trailers. So before calls are measured, `nghttp` makes one, and
what it prints is checked here.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bench.errors import StartError
from bench.launch import LOOPBACK

PATH = "/bench.Greeter/Greet"
FIELDS = ("content-type: application/grpc", "te: trailers")
TIMEOUT_SECONDS = 20.0

DATA_PATTERN = re.compile(r"recv DATA frame <length=(\d+),")
FIELD_PATTERN = re.compile(r"recv \(stream_id=\d+\) (:?[\w-]+): (.*)$", re.MULTILINE)


def framed(text: str) -> str:
    """Return a message with one string field (number 1), behind gRPC's prefix: not compressed, length in four bytes."""
    message = f"\n{chr(len(text))}{text}"
    return f"\0\0\0\0{chr(len(message))}{message}"


REQUEST = framed("hello")
ANSWER = framed("hello from the app")


def check_call(name: str, output: str) -> None:
    """
    Check what `nghttp -v` printed of one call.

    Args:
        name: The proxy's, for the message.
        output: All of it.

    Raises:
        StartError: ALPN did not agree on h2, or the answer is not a whole one: 200 and the content type of gRPC,
            the message, and then the trailer that says that the call succeeded.
    """
    before, after = _split_behind_data(output)
    head, trailers = dict(FIELD_PATTERN.findall(before)), dict(FIELD_PATTERN.findall(after))
    data_bytes = sum(map(int, DATA_PATTERN.findall(output)))
    facts = {
        "protocol": ("h2", "h2" if "The negotiated protocol: h2\n" in output else "another"),
        "status": ("200", head.get(":status")),
        "content type": ("application/grpc", head.get("content-type")),
        "length": (len(ANSWER), data_bytes),
        "grpc-status behind the message": ("0", trailers.get("grpc-status")),
    }
    for what, (expected, actual) in facts.items():
        if actual != expected:
            raise StartError(f"{name} does not pass on a gRPC call: {what} is {actual!r}, not {expected!r}.")


def call_once(executable: str, *, name: str, port: int, request_path: Path) -> None:
    """
    Make one call through the proxy *name*, with the request in a file, and check the answer.

    Raises:
        StartError: As `check_call`, or there was no answer in time.
    """
    command = [executable, "-v", "--no-dep", "-n", "-d", str(request_path)]
    command += [word for field in FIELDS for word in ("-H", field)]
    try:
        done = subprocess.run(
            [*command, f"https://{LOOPBACK}:{port}{PATH}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(f"{name} did not answer a gRPC call within {error.timeout:.0f} s.") from error
    check_call(name, done.stdout)


def _split_behind_data(output: str) -> tuple[str, str]:
    """Split at the end of the first DATA frame that was received; all is before it if there was none."""
    first = DATA_PATTERN.search(output)
    return (output[: first.end()], output[first.end() :]) if first else (output, "")
