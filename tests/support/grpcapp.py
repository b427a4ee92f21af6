"""
A gRPC server to put behind the sidecar, h2c as gRPC apps speak it: grpcio's own, with messages of plain bytes.

`GrpcApp` runs it as a process of its own, as ``python -m tests.support.grpcapp``, so that it shares no threads with
the clients of the tests, and can be killed. What it saw of its calls it writes to its standard output, for `GrpcApp`.

What waits, waits for the client to go, or for the gate, which opens once.
"""

from __future__ import annotations

import os

# Read when the library is loaded. Its complaints would stand between the results of the tests; and it would complain
# of each program that they start, which it takes for a fork of threads that are busy.
os.environ["GRPC_VERBOSITY"] = "NONE"
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import attrs
import grpc

from tests.support.apps import pattern
from tests.support.program import ROOT, STOP_SECONDS, eventually

SERVICE: Final = "test.Calls"

LARGEST_MESSAGE: Final = 20 * 1024 * 1024
"""Bytes that the app takes."""

_THREADS: Final = 128
"""More than calls that any test holds at once: each has a thread of its own."""

_START_SECONDS: Final = 20.0

_Metadata = tuple[tuple[str, str | bytes], ...]


class GrpcApp:
    """
    A running app, for ``with``. Once it is left, no call of it runs any more.

    Attributes:
        address: Where it listens.
        upstream: The same as SIDECAR_UPSTREAM says it.
    """

    def __init__(self, directory: Path, *, port: int = 0, max_streams: int = 0) -> None:
        """
        Args:
            directory: For what it writes; made if it is not there.
            port: 0: one from the kernel.
            max_streams: How many calls it takes at once on one connection; 0: any number.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._stdout = directory / "grpc-app-stdout"
        self._stderr = directory / "grpc-app-stderr"
        words = ("--port", str(port), "--max-streams", str(max_streams))
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.grpcapp", *words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        try:
            eventually(self._has_begun, "the app listens", _START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.address = f"127.0.0.1:{self.journal()[0]['port']}"
        self.upstream = f"h2c://{self.address}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def journal(self) -> list[dict[str, Any]]:
        """What it wrote so far, one entry for each event of a call."""
        return [json.loads(line) for line in self._stdout.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, event: str, name: str, count: int = 1) -> None:
        """Wait until *count* calls of this *name* have ``begun``, or have been ``left`` by their client."""
        entry = {"event": event, "name": name}
        eventually(lambda: self.journal().count(entry) >= count, f"{count} x {event} {name}, in {self._stdout}")

    def open_gate(self) -> None:
        """Let the calls go on that wait for it, and all that come."""
        with grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path("Open"))
            call(b"", timeout=STOP_SECONDS)

    def close(self) -> None:
        """SIGTERM; it must end well, and with nothing to complain of."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            finally:
                self.kill()
            assert (self._process.returncode, self._stderr.read_text()) == (0, "")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    def _has_begun(self) -> bool:
        assert self._process.poll() is None, self._stderr.read_text()
        return bool(self.journal())


def path(method: str) -> str:
    """How a client calls *method* of the app."""
    return f"/{SERVICE}/{method}"


# -- the server itself ---------------------------------------------------------------------------------------------


class _Calls:
    """The methods; those with a lower-case name are not for clients."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self._journal = threading.Lock()

    def write(self, **entry: object) -> None:
        """Write a line of the journal."""
        with self._journal:
            print(json.dumps(entry), flush=True)

    def Echo(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """The message."""
        return message

    def Digest(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """The message's length and checksum."""
        return f"{len(message)} {hashlib.sha256(message).hexdigest()}".encode()

    def Bytes(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """As many bytes as the message says."""
        return b"".join(pattern(int(message)))

    def Collect(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The number of messages, and the checksum of all of them together."""
        count, digest = 0, hashlib.sha256()
        for message in messages:
            count += 1
            digest.update(message)
        return f"{count} {digest.hexdigest()}".encode()

    def Count(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """The numbers below the one in the message."""
        for number in range(int(message)):
            yield b"%d" % number

    def Chat(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each message as it comes; the first answer comes before the first message."""
        yield b"welcome"
        yield from messages

    def Seen(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """What arrived beside the message."""
        metadata = [(name, _readable(value)) for name, value in context.invocation_metadata()]
        seen = {"peer": context.peer(), "metadata": metadata, "remaining": context.time_remaining()}
        return json.dumps(seen).encode()

    def Adorned(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """The message, between the metadata of `ADORNMENT`."""
        context.send_initial_metadata(ADORNMENT.initial)
        context.set_trailing_metadata(ADORNMENT.trailing)
        return message

    def Fail(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """The status that the message says in JSON, with details and trailing metadata."""
        wanted = json.loads(message)
        context.set_trailing_metadata(ADORNMENT.trailing)
        context.abort(_STATUS_CODES[wanted["code"]], wanted["details"])

    def FailInside(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Three messages, and then as `Fail`."""
        yield from (b"0", b"1", b"2")
        self.Fail(message, context)

    def Wait(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Answers nothing until the client leaves the call, whose name is the message."""
        self._wait_until_left(message.decode(), context)
        return b""

    def WaitInside(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One message, and then as `Wait`."""
        yield b"wait"
        self._wait_until_left(message.decode(), context)

    def WaitForMore(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """As `Wait`, of a client that goes on sending; its first message is the call's name."""
        self._wait_until_left(next(messages).decode(), context)
        return b""

    def Endless(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Messages of 64 KiB for as long as the client takes them; the call's name is the message."""
        name = message.decode()
        context.add_callback(lambda: self.write(event="left", name=name))
        while context.is_active():
            yield bytes(65_536)

    def Held(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """The message, once the gate is open; it is the call's name."""
        self.write(event="begun", name=message.decode())
        self.gate.wait()
        return message

    def HeldInside(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """One message; a hundred more once the gate is open. The call's name is the message."""
        yield b"first"
        self.write(event="begun", name=message.decode())
        self.gate.wait()
        yield from (b"%d" % number for number in range(100))

    def Open(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """Opens the gate."""
        self.gate.set()
        return b""

    def _wait_until_left(self, name: str, context: grpc.ServicerContext) -> None:
        over = threading.Event()
        if context.add_callback(over.set):
            self.write(event="begun", name=name)
            over.wait()
        self.write(event="left", name=name)


@attrs.frozen
class Adornment:
    """Metadata around an answer."""

    initial: _Metadata
    trailing: _Metadata


ADORNMENT: Final = Adornment(
    initial=(("x-first", "1"), ("x-first-bin", b"\x00\x01\xfe\xff")),
    trailing=(("x-last", "a"), ("x-last", "b"), ("x-last-bin", bytes(range(256)))),
)
"""What `Adorned` adds; a name that is there twice, and bytes that no field may have as they are."""

_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _readable(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def _rpc_handlers(calls: _Calls) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    unary, from_stream = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    to_stream, both = grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    kinds: dict[Any, tuple[Any, ...]] = {  # Any: the four have nothing in common
        unary: (
            *(calls.Echo, calls.Digest, calls.Bytes, calls.Seen, calls.Adorned),
            *(calls.Fail, calls.Wait, calls.Held, calls.Open),
        ),
        from_stream: (calls.Collect, calls.WaitForMore),
        to_stream: (calls.Count, calls.FailInside, calls.WaitInside, calls.Endless, calls.HeldInside),
        both: (calls.Chat,),
    }
    return {method.__name__: kind(method) for kind, methods in kinds.items() for method in methods}


def main(port: int, max_streams: int) -> None:
    """Serve until SIGTERM."""
    signals = (signal.SIGTERM,)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    options = [("grpc.max_receive_message_length", LARGEST_MESSAGE), ("grpc.so_reuseport", 0)]
    if max_streams:
        options.append(("grpc.max_concurrent_streams", max_streams))
    calls = _Calls()
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, _rpc_handlers(calls)),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    calls.write(port=bound)
    signal.sigwait(signals)
    calls.gate.set()
    server.stop(grace=None).wait()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--max-streams", type=int, required=True)
    main(**vars(arguments.parse_args()))
