"""`certs.register`: what a CA has issued and revoked."""

from __future__ import annotations

import fcntl
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from sidecar.certs.builders import certificate_builder
from sidecar.certs.register import MAX_REGISTER_BYTES, Register, is_revocable, load_register, locked, save_register
from sidecar.errors import MaterialError
from tests.support.certs import CLIENT, DAY, NOW, authority, ecdsa_key

ALICE = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Ltd"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Alice Example"),
    ]
)
KEY = ecdsa_key()
MOMENT = "2026-01-01T00:00:00Z"


def nameless(*names: str) -> x509.Certificate:
    """A certificate without a subject."""
    builder = certificate_builder(x509.Name([]), ALICE, KEY.public_key(), NOW, NOW + DAY)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return builder.add_extension(alternatives, critical=True).sign(KEY, hashes.SHA256())


class TestRegister:
    def test_it_comes_back_from_its_file(self, tmp_path: Path) -> None:
        """What was issued and revoked survives, also names with blanks and certificates without a subject."""
        leaves = [
            authority().issue("a", subject=ALICE).certificate,
            nameless("a.example", "b.example"),
        ]
        register = Register().add(leaves[0], "client", NOW).add(leaves[1], "server", NOW).next_crl()
        register = register.revoke(leaves[1].serial_number, NOW + DAY)
        save_register(tmp_path, register)
        assert load_register(tmp_path) == register
        assert [entry.name for entry in register.entries] == ["CN=Alice Example,O=Example Ltd", "a.example, b.example"]

    def test_moments_have_whole_seconds(self) -> None:
        """The file has no parts of a second, so the value has none either."""
        moment = datetime.fromisoformat("2026-01-01T00:00:00.5+00:00")
        register = Register().add(authority().issue("a").certificate, "server", moment)
        assert register.entries[0].issued == moment.replace(microsecond=0)

    def test_second_revocation_keeps_the_first_date(self) -> None:
        """A certificate is revoked once."""
        leaf = authority().issue("localhost").certificate
        register = Register().add(leaf, "server", NOW).revoke(leaf.serial_number, NOW)
        assert register.revoke(leaf.serial_number, NOW + DAY) == register

    def test_no_name_can_forge_a_line(self) -> None:
        """A certificate made elsewhere may have a line feed in its name."""
        odd = authority().issue("a\nf 2026-01-01T00:00:00Z", purposes=CLIENT).certificate
        assert Register().add(odd, "unknown", NOW).text().count("\n") == 4

    def test_no_file_is_an_empty_register(self, tmp_path: Path) -> None:
        """A CA of another origin has none."""
        assert load_register(tmp_path) == Register()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            pytest.param("crl-number 1\nhello\n", "line 2 of", id="word"),
            pytest.param("crl-number x\n", "line 1 of", id="number"),
            pytest.param("crl-number -1\n", "line 1 of", id="negative-number"),
            pytest.param(f"crl-number 1\n0 {MOMENT} {MOMENT} - server a\n", "line 2 of", id="zero"),
            pytest.param(f"crl-number 1\n8{'0' * 39} {MOMENT} {MOMENT} - server a\n", "line 2 of", id="too-long"),
            pytest.param(f"crl-number 1\n{'a' * 41} {MOMENT} {MOMENT} - server a\n", "line 2 of", id="longer"),
            pytest.param(f"crl-number 1\nab 1949{MOMENT[4:]} {MOMENT} - server a\n", "line 2 of", id="too-old"),
            pytest.param(
                "crl-number 1\nzz 2026-01-01T00:00:00Z 2026-01-01T00:00:00Z - server a\n", "line 2 of", id="hex"
            ),
            pytest.param("crl-number 1\nab 2026-01-01 2026-01-01T00:00:00Z - server a\n", "line 2 of", id="date"),
            pytest.param("# nothing\n", "no line with the crl-number", id="without-number"),
            pytest.param("", "is empty", id="empty"),
        ],
    )
    def test_damaged_file_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        """A revocation must not get lost because a line could not be read."""
        (tmp_path / "issued.txt").write_text(text)
        with pytest.raises(MaterialError, match=message):
            load_register(tmp_path)

    def test_lock_is_for_one_at_a_time(self, tmp_path: Path) -> None:
        """While one run changes the register another waits; here it sees that it would have to."""
        with locked(tmp_path), (tmp_path / ".lock").open("r+") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (tmp_path / ".lock").open("r+") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_directory_that_cannot_be_written_is_a_sentence(self, tmp_path: Path) -> None:
        """The lock is the first file that is needed."""
        with pytest.raises(MaterialError, match="cannot be written"), locked(tmp_path / "none"):
            pass

    def test_endless_file_is_bounded(self, tmp_path: Path) -> None:
        """Its limit is its own."""
        (tmp_path / "issued.txt").write_bytes(b"\n" * MAX_REGISTER_BYTES + b"a")
        with pytest.raises(MaterialError, match="over the limit of 16,777,216 bytes"):
            load_register(tmp_path)


class TestIsRevocable:
    @pytest.mark.parametrize(("serial", "expected"), [(0, False), (1, True), ((1 << 159) - 1, True), (1 << 159, False)])
    def test_number_of_20_octets_is(self, serial: int, expected: bool) -> None:
        """Such as every certificate has that is issued here."""
        assert is_revocable(serial) is expected
