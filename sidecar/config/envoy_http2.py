"""
HTTP/2 in an Envoy bootstrap.

With clients, Envoy speaks it where a listener's ALPN has it or its codec is set to it; here one setting is for all
listeners with TLS. With upstreams, it is spoken without TLS alone.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from sidecar.config.envoy_draft import Draft
from sidecar.config.envoy_nodes import Node
from sidecar.config.units import size_text
from sidecar.settings import ByteCount, Http2Settings

SPOKEN: Final = ("h2", "http/1.1", "http/1.0")
"""What is spoken with clients, by its name in ALPN."""

MOST_STREAMS: Final = 1000
"""What `http2_max_streams` may say."""

_CODECS: Final = ("AUTO", "HTTP1", "HTTP2", "HTTP3")
_ONE_FOR_ALL: Final = "clients may agree on HTTP/2 here too: there is one http2 for all listeners"

_COUNTED: Final = "it is counted by connection here"
_FIXED: Final = "it is fixed here"
_NOT_HERE: Final = {
    "max_outbound_frames": "there is http2_max_control_bytes",
    "max_outbound_control_frames": "there is http2_max_control_bytes",
    "max_consecutive_inbound_frames_with_empty_payload": f"{_COUNTED}, by http2_max_empty_data",
    "max_inbound_priority_frames_per_stream": f"{_COUNTED}, by http2_max_priorities",
    "max_inbound_window_update_frames_per_data_frame_sent": f"{_COUNTED}, by http2_max_window_updates",
    "stream_error_on_invalid_http_messaging": _FIXED,
    "override_stream_error_on_invalid_http_message": _FIXED,
    "hpack_table_size": _FIXED,
    "connection_keepalive": "there is idle_timeout",
    "custom_settings_parameters": _FIXED,
    "allow_metadata": "frames of METADATA are not passed on",
    "max_metadata_size": "frames of METADATA are not passed on",
}

_SILENT: Final = ("allow_connect", "use_oghttp2_codec", "enable_huffman_encoding")
"""WebSockets are passed on anyway; the others are about how it is done."""


@attrs.frozen
class Codec:
    """
    What the clients of a listener with TLS may speak.

    Attributes:
        config: Of its HttpConnectionManager.
        is_http2: Whether HTTP/2 is among it.
        is_written: Whether a ``codec_type`` says so.
    """

    config: Node
    is_http2: bool
    is_written: bool


# -- listeners ---------------------------------------------------------------------------------------------------


def codec(config: Node, alpn: tuple[Node, ...] | None, draft: Draft) -> Codec | None:
    """
    Read what a HttpConnectionManager says of versions; its options for HTTP/2 become settings.

    Args:
        alpn: What its clients may agree on; None without TLS.

    Returns:
        None without TLS, where HTTP/1.1 is spoken.
    """
    kind = config.word("codec_type", _CODECS, "AUTO")
    if kind == "HTTP3":
        config.leave_out("codec_type", "there is no HTTP/3")
    if alpn is None:
        reason = "without TLS, HTTP/1.1 is spoken with clients"
        if kind == "HTTP2":
            config.leave_out("codec_type", reason)
        config.leave_out("http2_protocol_options", reason)
        return None
    is_http2 = kind == "HTTP2" or (kind == "AUTO" and any(node.content == "h2" for node in alpn))
    _other_protocols(config, kind, alpn, draft)
    if is_http2:
        _options(config, draft)
    else:
        config.ignore("http2_protocol_options")
    return Codec(config, is_http2, kind != "AUTO")


def _other_protocols(config: Node, kind: str, alpn: tuple[Node, ...], draft: Draft) -> None:
    for node in alpn:
        if node.content not in SPOKEN:
            node.lose("clients agree on h2 or http/1.1")
    if kind == "HTTP2":
        config.leave_out("codec_type", "clients may agree on HTTP/1.1 too")
    elif alpn and all(node.content == "h2" for node in alpn):
        draft.note(f"{alpn[0].path}: clients may agree on http/1.1 too")


def put(draft: Draft, codecs: list[Codec]) -> None:
    """Choose ``http2`` for the listeners with TLS: off if none of them has it."""
    if not any(each.is_http2 for each in codecs):
        for each in codecs[:1]:
            draft.put("http2", "off", each.config.get("codec_type") or each.config)
        return
    for each in codecs:
        if not each.is_http2 and each.is_written:
            each.config.leave_out("codec_type", _ONE_FOR_ALL)
        elif not each.is_http2:
            draft.note(f"{each.config.path}: {_ONE_FOR_ALL}")


def _options(config: Node, draft: Draft) -> None:
    options = config.mapping("http2_protocol_options")
    if options is None:
        return
    options.ignore(*_SILENT)
    for name, reason in _NOT_HERE.items():
        options.leave_out(name, reason)
    streams, node = options.number("max_concurrent_streams"), options.get("max_concurrent_streams")
    if streams is not None and node is not None:
        draft.put("http2_max_streams", str(min(streams, MOST_STREAMS)), node)
        if streams > MOST_STREAMS:
            draft.note(f"{node.path}: {streams:,} is more than there can be here, {MOST_STREAMS:,}")
    _windows(options, draft)


def _windows(options: Node, draft: Draft) -> None:
    """Both windows; that of a stream is never larger than that of the connection, which is how much Envoy takes."""
    usual = Http2Settings()
    stream, whole = options.number("initial_stream_window_size"), options.number("initial_connection_window_size")
    connection = whole if whole is not None else max(usual.connection_window, stream or 0)
    one = min(usual.stream_window if stream is None else stream, connection)
    for name, value, default, field in (
        ("http2_stream_window", one, usual.stream_window, "initial_stream_window_size"),
        ("http2_connection_window", connection, usual.connection_window, "initial_connection_window_size"),
    ):
        node = options.get(field)
        if node is not None or value != default:
            draft.put(name, size_text(ByteCount(value)), node or options)


# -- clusters ----------------------------------------------------------------------------------------------------


def protocol(node: Node, *, is_tls: bool, is_raw: bool) -> dict[str, Any]:
    """
    Read what a cluster says of versions: its ``protocol``, if that is not the usual one.

    Args:
        is_tls: Whether TLS is spoken with it.
        is_raw: Whether it gets bytes, and no requests.
    """
    options = [option for option in _asking(node) if option is not None]
    for option in options:
        if is_raw:
            option.lose("bytes are passed on to it as they come")
        elif is_tls:
            fix = "remove it, and requests are sent in HTTP/1.1 over TLS; or do without TLS there"
            option.refuse("HTTP/2 is spoken with upstreams without TLS alone", fix)
        else:
            for inner in option.entries:
                inner.lose("with upstreams it is fixed here")
    return {"protocol": "h2c"} if options and not is_raw and not is_tls else {}


def _asking(node: Node) -> list[Node | None]:
    """The options for HTTP/2 of a cluster, which ask for it by being there; those for HTTP/1.1 say what is usual."""
    found = [node.mapping("http2_protocol_options")]
    options = node.mapping("typed_extension_protocol_options")
    for option in options.entries if options is not None else []:
        option.ignore("@type", "common_http_protocol_options")
        for name in ("auto_config", "use_downstream_protocol_config"):
            option.leave_out(
                name, "a cluster is spoken to in one version; in HTTP/1.1, unless explicit_http_config says"
            )
        explicit = option.mapping("explicit_http_config")
        if explicit is not None:
            explicit.ignore("http_protocol_options")
            explicit.leave_out("http3_protocol_options", "there is no HTTP/3")
            found.append(explicit.mapping("http2_protocol_options"))
    return found
