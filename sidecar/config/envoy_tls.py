"""TLS contexts of an Envoy bootstrap, those of listeners and those of clusters."""

from __future__ import annotations

from typing import Final

import attrs

from sidecar.config import envoy_names
from sidecar.config.envoy_draft import Block, Draft
from sidecar.config.envoy_forms import extension, host_of, source
from sidecar.config.envoy_nodes import Node

HTTP_PROTOCOLS: Final = ("http/1.1", "http/1.0")
"""What requests are sent in over TLS, by its name in ALPN."""

_UNCHECKED: Final = "certificates would not be checked as they are there"
_MISSPELT: Final = "TLS may not be what was meant: there is no such field in Envoy, or it is new"
_TICKETS: Final = "keys of session tickets are made anew by each process"
_VERSIONS: Final = ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
_SUITES: Final = "suites, groups and signatures are those of tls_policy: ECDHE with AEAD"


@attrs.frozen(kw_only=True)
class ServerTls:
    """
    What a filter chain says about TLS.

    Attributes:
        certs: Certificate, key and password of each; "" for what is not there.
        common: Settings that all listeners share: ``tls_policy`` and those of clients.
        alpn: Names of protocols that are agreed to.
    """

    certs: tuple[tuple[str, str, str], ...]
    common: tuple[tuple[str, str], ...]
    alpn: tuple[Node, ...]
    node: Node


def tls_context(parent: Node) -> Node | None:
    """The TLS context of a filter chain or cluster, or of a transport socket in another; None if there is none."""
    context = parent.mapping("tls_context")  # files for v2
    if context is not None:
        return context
    socket = parent.mapping("transport_socket")
    if socket is None or socket.is_empty:
        return None
    found = extension(socket)
    if found.kind in ("DownstreamTlsContext", "UpstreamTlsContext", "TlsContext"):
        return found.config
    if found.kind == "RawBuffer":
        return None
    socket.refuse(f"there is no transport socket like {(found.kind or found.family)[:60]!a} here", "use tls or none")
    return None


# -- listeners ---------------------------------------------------------------------------------------------------


def server_tls(context: Node, draft: Draft) -> ServerTls:
    """Read a DownstreamTlsContext."""
    context.must_be_known(_MISSPELT)
    context.ignore("full_scan_certs_on_sni_mismatch", "prefer_client_ciphers")
    for name in ("session_ticket_keys", "session_ticket_keys_sds_secret_config", "session_timeout"):
        context.leave_out(name, _TICKETS)
    for name in ("disable_stateless_session_resumption", "disable_stateful_session_resumption"):
        context.leave_out(name, "sessions are resumed by tickets")
    if context.word("ocsp_staple_policy", ("LENIENT_STAPLING", "STRICT_STAPLING", "MUST_STAPLE")) != "LENIENT_STAPLING":
        context.leave_out("ocsp_staple_policy", "answers of OCSP are not stapled")
    context.leave_out("require_sni", "clients without SNI get the first certificate")
    common = _common(context)
    alpn = tuple(common.texts("alpn_protocols")) if common else ()
    settings = (_policy(common), *_client_settings(context, common, draft)) if common else (_policy(context),)
    certs = tuple(_certificates(common)) if common else ()
    if not certs and not draft.findings.problems:
        draft.note(f"{context.path}: there is no certificate; one is made at start")
    return ServerTls(certs=certs, common=settings, alpn=alpn, node=context)


def _common(context: Node) -> Node | None:
    common = context.mapping("common_tls_context")
    if common is not None:
        common.must_be_known(_MISSPELT)
        common.leave_out("key_log", "keys are never written")
        for name in ("tls_certificate_sds_secret_configs", "tls_certificate_provider_instance"):
            _refuse(common, name, "write tls_certificates with the paths of files, which are watched here")
        for name in ("custom_handshaker", "custom_tls_certificate_selector", "tls_certificate_certificate_provider"):
            _refuse(common, name, "write tls_certificates with the paths of files")
    return common


def _refuse(parent: Node, name: str, fix: str) -> None:
    node = parent.get(name)
    if node is not None and not node.is_nothing:
        node.refuse("there is nothing like it here, and TLS cannot do without it", fix)


def _certificates(common: Node) -> list[tuple[str, str, str]]:
    """Each certificate with its key and password."""
    found = []
    for node in common.mappings("tls_certificates"):
        node.ignore("watched_directory")
        node.leave_out("ocsp_staple", "answers of OCSP are not stapled")
        _refuse(node, "private_key_provider", "write private_key with the path of a file")
        password = _password(node)
        if node.has("pkcs12"):
            found.append((source(node, "pkcs12"), "", password))
        else:
            found.append((source(node, "certificate_chain"), source(node, "private_key"), password))
        if not found[-1][0]:
            node.refuse("there is no certificate_chain", "write certificate_chain: {filename: …}")
    return found


def _password(certificate: Node) -> str:
    password = source(certificate, "password")
    node = certificate.get("password")
    if not password or node is None:
        return ""
    if node.has("filename"):
        return password if password.startswith(("/", "./", "../")) else f"./{password}"
    if password.startswith(("/", ".")) or password.strip() in ("none", "") or password != password.strip():
        node.refuse("a password like this cannot be given as a value", "write filename: with the path of a file")
    return password


def _policy(common: Node) -> tuple[str, str]:
    params = common.mapping("tls_params")
    if params is None:
        return "tls_policy", "intermediate"
    for name in ("cipher_suites", "ecdh_curves", "signature_algorithms"):
        params.leave_out(name, _SUITES)
    _refuse(params, "compliance_policies", "remove it if suites and groups need no certification")
    least = params.word("tls_minimum_protocol_version", _VERSIONS)
    if least in ("TLSv1_0", "TLSv1_1"):
        params.leave_out("tls_minimum_protocol_version", "TLS 1.2 is the oldest version there is")
    if params.word("tls_maximum_protocol_version", _VERSIONS, "TLS_AUTO") not in ("TLS_AUTO", "TLSv1_3"):
        params.leave_out("tls_maximum_protocol_version", "TLS 1.3 is spoken too")
    return "tls_policy", "modern" if least == "TLSv1_3" else "intermediate"


def _client_settings(context: Node, common: Node, draft: Draft) -> list[tuple[str, str]]:
    is_required = context.flag("require_client_certificate")
    validation = _validation(common, draft)
    ca = source(validation, "trusted_ca") if validation else ""
    if not ca:
        if is_required or (validation is not None and not validation.is_empty):
            fix = "write validation_context: {trusted_ca: {filename: …}}"
            context.refuse("clients are asked for certificates, but there is no CA to check them with", fix)
        return []
    assert validation is not None  # it has a CA
    allow = envoy_names.client_allow(validation, draft)
    # Where certain certificates are wanted, Envoy lets nobody in without one, told to require it or not.
    settings = [("client_cert", "required" if is_required or allow else "optional"), ("client_ca", ca)]
    if crl := source(validation, "crl"):
        settings += [("client_crl", crl), ("client_crl_scope", _crl_scope(validation))]
    depth = validation.number("max_verify_depth")
    if depth is not None:
        settings.append(("client_depth", str(min(depth, 100))))
    if allow:
        settings.append(("client_allow", allow))
    settings.append(("client_refusal", "handshake"))
    draft.note(
        "clients without an accepted certificate get a TLS alert, as in Envoy; client_refusal: http tells them why"
    )
    return settings


def _crl_scope(validation: Node) -> str:
    return "leaf" if validation.flag("only_verify_leaf_cert_crl") else "chain"


def _validation(common: Node, draft: Draft) -> Node | None:
    """The CertificateValidationContext, of which nothing may be left out that refuses somebody."""
    validation = common.mapping("validation_context")
    if validation is None:
        return None
    validation.must_be_whole(_UNCHECKED)
    validation.ignore("watched_directory", "only_verify_leaf_cert_crl", "require_signed_certificate_timestamp")
    if validation.word("trust_chain_verification", ("VERIFY_TRUST_CHAIN", "ACCEPT_UNTRUSTED")) == "ACCEPT_UNTRUSTED":
        node = validation.get("trust_chain_verification")
        assert node is not None  # it has a value
        node.refuse("certificates that are not trusted are never accepted", "remove it, and add their CA to trusted_ca")
    if validation.flag("allow_expired_certificate"):
        draft.note(f"{validation.path}: certificates that have expired are refused here")
    return validation


# -- clusters ----------------------------------------------------------------------------------------------------


def upstream_tls(context: Node, addresses: list[str], draft: Draft, *, is_raw: bool) -> Block:
    """
    Read an UpstreamTlsContext.

    Args:
        addresses: Of the cluster's endpoints.
        is_raw: Whether bytes go there, not requests.
    """
    context.must_be_known(_MISSPELT)
    context.ignore("max_session_keys", "enforce_rsa_key_usage", "allow_renegotiation")
    sni = context.text("sni")
    values: dict[str, object] = {}
    common = _common(context)
    validation = _validation(common, draft) if common else None
    if validation is None or validation.is_empty:
        values["verify"] = "off"
        draft.note(f"{context.path}: Envoy does not verify this upstream, as it has no validation_context; write one")
    else:
        values |= _verification(context, validation, sni, addresses, draft)
    if sni:
        values["sni"] = sni
    if common is not None:
        values |= _spoken(common, is_raw) | _own_certificate(common)
    return Block(context.line, values)


def _verification(context: Node, validation: Node, sni: str, addresses: list[str], draft: Draft) -> dict[str, object]:
    values: dict[str, object] = {}
    ca = source(validation, "trusted_ca")
    if ca:
        values["ca"] = ca
    elif validation.mapping("system_root_certs") is None:
        validation.refuse("there is no trusted_ca", "write trusted_ca: {filename: …}, or system_root_certs: {}")
    names = envoy_names.upstream_names(validation)
    if not names:
        names = [sni] if sni else []
        named = sni or " or ".join(dict.fromkeys(filter(None, map(host_of, addresses)))) or "the socket"
        draft.note(f"{context.path}: the certificate must name {named} here; Envoy would accept any name")
    if names:
        values["names"] = names
    return values


def _spoken(common: Node, is_raw: bool) -> dict[str, object]:
    """The protocols that are offered; of versions, those that are always there."""
    params = common.mapping("tls_params")
    if params is not None:
        for name in ("cipher_suites", "ecdh_curves", "signature_algorithms", "tls_maximum_protocol_version"):
            params.leave_out(name, "what is spoken with upstreams are TLS 1.2 and 1.3, with ECDHE and AEAD")
        if params.word("tls_minimum_protocol_version", _VERSIONS) == "TLSv1_3":
            params.refuse("TLS 1.2 is spoken with upstreams too", "remove the minimum if that is right")
    offered = common.texts("alpn_protocols")
    for node in () if is_raw else offered:
        if node.content not in HTTP_PROTOCOLS:
            node.lose(f"requests are sent in {' or '.join(HTTP_PROTOCOLS)}")
    protocols = [str(node.content) for node in offered if is_raw or node.content in HTTP_PROTOCOLS]
    return {"alpn": protocols} if protocols else {}


def _own_certificate(common: Node) -> dict[str, object]:
    values: dict[str, object] = {}
    certificates = _certificates(common)
    if certificates:
        cert, key, password = certificates[0]
        values |= {name: value for name, value in (("cert", cert), ("key", key)) if value}
        if "-----BEGIN" in key:
            common.refuse("a key for an upstream must be in a file", "write private_key: {filename: …}")
        if password or len(certificates) > 1:
            fact = "an upstream is shown one certificate, whose key has no password"
            common.refuse(fact, "keep one of tls_certificates, and decrypt its key")
    return values
