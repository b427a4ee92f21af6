"""`pki.leaves`: what all issuing has in common."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.certs.authority import KeyKind, make_authority
from sidecar.certs.identities import Purpose, client_identity, server_identity
from sidecar.certs.register import load_register
from sidecar.errors import MaterialError
from sidecar.pki.leaves import cap_lines, check_places, issue_recorded, names_of, validity_of, write_new
from tests.support.certs import DAY, NOW, authority, ecdsa_key
from tests.support.shell import files, mode


def arguments(directory: Path, *, replace: bool = False, days: int = 90) -> argparse.Namespace:
    return argparse.Namespace(ca=directory, replace=replace, days=days * DAY)


class TestCheckPlaces:
    def test_what_is_there_is_kept_unless_told(self, tmp_path: Path) -> None:
        """The sentence names the option."""
        (tmp_path / "c").touch()
        with pytest.raises(MaterialError, match=r"already there, .*c; renew it with --replace, or name another place"):
            check_places([tmp_path / "c"], arguments(tmp_path))
        check_places([tmp_path / "c"], arguments(tmp_path, replace=True))


class TestIssueRecorded:
    def test_it_is_in_the_register(self, tmp_path: Path) -> None:
        """What is not in there cannot be revoked by its number."""
        issuer = make_authority("Our CA", KeyKind.P256, NOW, 9 * DAY)
        identity = server_identity(["a.example"])
        key = ecdsa_key().public_key()
        leaf = issue_recorded(arguments(tmp_path), issuer, Purpose.SERVER, identity, key, NOW)
        entry = load_register(tmp_path).find(leaf.serial_number)
        assert entry is not None
        assert (entry.purpose, entry.name, entry.revoked) == ("server", "CN=a.example", None)


class TestWriteNew:
    def test_keys_are_for_their_owner(self, tmp_path: Path) -> None:
        """Known by their endings."""
        places = [tmp_path / "d" / name for name in ("a.key", "a.p12", "a.crt")]
        write_new(tmp_path / "d", places, [b"1", b"2", b"3"], arguments(tmp_path))
        assert files(str(tmp_path / "d")) == ["a.crt", "a.key", "a.p12"]
        assert [mode(str(place)) for place in places] == [0o600, 0o600, 0o644]


class TestNamesOf:
    def test_each_is_named_once(self) -> None:
        """The common name first, which may be one of the others as well."""
        assert names_of(client_identity(["Alice Ex", "alice@ex.org"])) == "Alice Ex, alice@ex.org"
        assert names_of(server_identity(["b.example", "a.example"])) == "b.example, a.example"


class TestValidityOf:
    def test_day_and_days_are_named(self) -> None:
        """For people."""
        leaf = authority().issue("a", not_after=NOW + 30 * DAY).certificate
        assert validity_of(leaf, NOW) == f"until {NOW + 30 * DAY:%Y-%m-%d} (30 days left)"


class TestCapLines:
    @pytest.mark.parametrize(("missing", "count"), [(timedelta(0), 0), (timedelta(seconds=1), 1)])
    def test_early_end_is_said(self, tmp_path: Path, missing: timedelta, count: int) -> None:
        """Nobody finds out by an outage."""
        leaf = authority().issue("a", not_after=NOW + 90 * DAY - missing).certificate
        assert len(cap_lines(leaf, arguments(tmp_path), NOW)) == count
