"""`tls.fastpath`: which implementation serves; the contract itself is tested in `test_records` for both."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from sidecar.settings import TlsPolicy
from sidecar.tls import fastpath
from sidecar.tls.context import build_context
from sidecar.tls.fastpath import DirectRecords, records_for, records_on
from sidecar.tls.records import Records
from sidecar.tls.trust import ClientTrust
from tests.support.certs import authority
from tests.support.handshake import client_context, outgoing


@pytest.fixture(scope="module")
def context() -> SSL.Context:
    return build_context([authority().issue("localhost").bundle], ClientTrust(), TlsPolicy.INTERMEDIATE)


class TestRecordsFor:
    def test_fast_path_is_taken_where_it_is_available(self, context: SSL.Context) -> None:
        """The installed pyOpenSSL has what the fast path needs."""
        assert fastpath.IS_AVAILABLE
        assert type(records_for(context)) is DirectRecords

    def test_public_calls_serve_otherwise(self, context: SSL.Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """An installation without the private names works all the same."""
        monkeypatch.setattr(fastpath, "IS_AVAILABLE", False)
        assert type(records_for(context)) is Records


class TestMayHoldMore:
    def test_nothing_behind_the_handshake_is_known(self, context: SSL.Context) -> None:
        """OpenSSL is not asked in vain for what a client has not sent yet."""
        assert not _after_handshake(records_for(context)).may_hold_more()

    def test_public_calls_cannot_tell(self, context: SSL.Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """An installation without the private names asks, so that nothing is lost."""
        monkeypatch.setattr(fastpath, "IS_AVAILABLE", False)
        assert _after_handshake(records_for(context)).may_hold_more()


def _after_handshake(records: Records) -> Records:
    """Let a client shake hands that waits before it says more."""
    client = SSL.Connection(client_context(), None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    assert not records.handshake(outgoing(client))
    client.bio_write(records.take())
    client.do_handshake()
    assert records.handshake(outgoing(client))
    return records


class TestRecordsOn:
    @pytest.mark.parametrize(("is_available", "kind"), [(True, DirectRecords), (False, Records)], ids=["has", "lacks"])
    def test_role_of_the_connection_stays(
        self, is_available: bool, kind: type[Records], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client is one on either path: it speaks first."""
        monkeypatch.setattr(fastpath, "IS_AVAILABLE", is_available)
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        connection.set_connect_state()
        records = records_on(connection)
        assert type(records) is kind
        assert not records.handshake(b"")
        assert records.take()[:1] == b"\x16"
