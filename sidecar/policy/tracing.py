"""
Which trace a request belongs to (W3C Trace Context): the client's if it names one properly, else a new one.

We record no spans, so we stand between caller and app without being seen: a valid ``traceparent`` goes on as it came,
with its ``tracestate``. Both are dropped if it is not valid, since apps disagree about what to make of it, and the
request then gets a new trace like one without. Who calls may name any trace; nothing may hang on its being true.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.wire.events import RequestHead

TRACE_FIELDS: Final = frozenset({b"traceparent", b"tracestate"})
"""The two go on together, or neither does."""

_NO_FIELDS: Final[frozenset[bytes]] = frozenset()

# Trace Context section 3.2: traceparent = version "-" trace-id "-" parent-id "-" trace-flags, lower-case hexadecimal,
# neither id all zeros. Versions after 00 may append more behind a hyphen: that much of it is let through.
# Groups: version, trace-id, what is appended.
_TRACEPARENT: Final = re.compile(
    rb"((?!ff)[0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}((?:-[!-~]{0,200})?)"
)


def client_trace_id(head: RequestHead) -> bytes:
    """
    Return the trace-id, 32 hexadecimal digits, of the trace that the client continues; b"" if it names none properly.

    It depends on the head alone, so it holds for as long as a head is remembered.
    """
    fields = head.fields
    if fields.names.count(b"traceparent") != 1 or b"traceparent" in head.options:
        return b""  # two say nothing, and one that Connection nominates does not go on
    match = _TRACEPARENT.fullmatch(fields.first(b"traceparent").strip(b" \t"))
    if match is None:
        return b""
    version, trace_id, appended = match.groups()
    return b"" if appended and version == b"00" else trace_id


def dropped_trace_fields(head: RequestHead, trace_id: bytes) -> frozenset[bytes]:
    """
    Return the names of the fields that are not to be forwarded with *head*; empty for most requests.

    Args:
        trace_id: What `client_trace_id` says of it.
    """
    return _NO_FIELDS if trace_id or TRACE_FIELDS.isdisjoint(head.fields.names) else TRACE_FIELDS


def naming_lines(request_id: bytes, trace_id: bytes) -> bytes:
    """
    Return the field lines that name a request and start its trace.

    Not sampled: we record nothing, and whether to is for the app to decide.

    Args:
        request_id: Visible ASCII.
        trace_id: 32 lower-case hexadecimal digits, random.
    """
    # The parent must have an id although nobody keeps that span. Half of the trace's is as random as any.
    return b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-00\r\n" % (request_id, trace_id, trace_id[16:])
