"""
Builds the hot path as native code where that is asked for: ``SIDECAR_COMPILE=1 pip install .``.

The modules are the same, and so are their tests: mypyc, which comes with mypy, compiles them as they stand. Without the
variable nothing is compiled, no compiler is needed, and the sources run as they are.
"""

import configparser
import os

from setuptools import setup

COMPILED = (
    "sidecar/observe/accesslog.py",
    "sidecar/observe/escaping.py",
    "sidecar/observe/histogram.py",
    "sidecar/observe/jsonline.py",
    "sidecar/observe/timeformat.py",
    "sidecar/policy/balancer.py",
    "sidecar/policy/rewrite.py",
    "sidecar/policy/tracing.py",
    "sidecar/proxy/cluster.py",
    "sidecar/proxy/deadlines.py",
    "sidecar/proxy/dispatch.py",
    "sidecar/proxy/downstream.py",
    "sidecar/proxy/exchange.py",
    "sidecar/proxy/h2downstream.py",
    "sidecar/proxy/intake.py",
    "sidecar/proxy/multiplex.py",
    "sidecar/proxy/pool.py",
    "sidecar/proxy/routing.py",
    "sidecar/proxy/service.py",
    "sidecar/proxy/sockets.py",
    "sidecar/proxy/splice.py",
    "sidecar/proxy/stream.py",
    "sidecar/proxy/streampool.py",
    "sidecar/proxy/upstream.py",
    "sidecar/tls/fastpath.py",
    "sidecar/tls/records.py",
    "sidecar/tls/server.py",
    "sidecar/wire/events.py",
    "sidecar/wire/fields.py",
    "sidecar/wire/framing.py",
    "sidecar/wire/h2clientfields.py",
    "sidecar/wire/h2connection.py",
    "sidecar/wire/h2fields.py",
    "sidecar/wire/h2frames.py",
    "sidecar/wire/h2hpack.py",
    "sidecar/wire/h2rules.py",
    "sidecar/wire/h2streams.py",
    "sidecar/wire/head.py",
    "sidecar/wire/http1.py",
    "sidecar/wire/http2.py",
    "sidecar/wire/http2client.py",
    "sidecar/wire/target.py",
)
"""What every request goes through, and what derives from that: nothing interpreted may derive from a compiled class."""


def main() -> None:
    """Build what the caller of this file asks for."""
    if os.environ.get("SIDECAR_COMPILE") != "1":
        setup()
        return
    # mypyc compiles by types, so it needs all that the sources import.
    settings = configparser.ConfigParser()
    settings.read("setup.cfg")
    needed = ["mypy >= 2.4", *settings["options"]["install_requires"].split("\n")[1:]]
    try:
        from mypyc.build import mypycify
    except ImportError:
        setup(setup_requires=needed)  # pip asks what it is to install before it builds
        raise
    # Without debug information: the same source makes the same files, wherever it is built.
    extensions = mypycify(list(COMPILED), opt_level="3", debug_level="0", group_name="sidecar")
    setup(ext_modules=extensions, setup_requires=needed)


if __name__ == "__main__":
    main()
