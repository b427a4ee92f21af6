"""`pki.revoking`: certificates that are good no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from tests.support.certs import CLIENT, DAY, NOW, authority
from tests.support.shell import Shell, certificate


class TestRevoke:
    def crl(self) -> x509.CertificateRevocationList:
        return x509.load_pem_x509_crl(Path("ca/ca.crl").read_bytes())

    def number(self) -> int:
        return self.crl().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def test_file_and_number_are_revoked_at_once(self, shell: Shell) -> None:
        """The new list is there in the same step, so that nobody forgets it."""
        for name in ("a", "b", "c"):
            shell.good("client", name)
        serials = [certificate(f"{name}/client.crt").serial_number for name in ("a", "b", "c")]
        out = shell.good("revoke", "a/client.crt", f"0x{serials[1]:040X}")
        assert {entry.serial_number for entry in self.crl()} == set(serials[:2])
        assert f"revoked {serials[0]:x} (client, CN=a)" in out
        assert "list number 1, revoked certificates: 2" in out

    def test_number_as_openssl_prints_it_is_understood(self, shell: Shell) -> None:
        """Octets with colons are copied from there."""
        shell.good("server", "localhost")
        digits = f"{certificate('localhost/tls.crt').serial_number:040x}"
        shell.good("revoke", ":".join(digits[place : place + 2] for place in range(0, 40, 2)))
        assert len(self.crl()) == 1

    def test_second_time_keeps_the_date(self, shell: Shell) -> None:
        """It is said, and the list goes on."""
        shell.good("client", "a")
        shell.good("revoke", "a/client.crt")
        out = shell.good("revoke", "a/client.crt", days_later=1)
        assert "was revoked on" in out
        assert next(iter(self.crl())).revocation_date_utc == NOW
        assert self.number() == 2

    def test_certificate_of_the_ca_that_is_not_in_the_register_can_be_revoked(self, shell: Shell) -> None:
        """A CA of another origin has issued before."""
        shell.good("client", "a")
        Path("ca/issued.txt").unlink()
        shell.good("revoke", "a/client.crt")
        assert len(self.crl()) == 1
        assert " unknown CN=a" in Path("ca/issued.txt").read_text()

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            pytest.param("stranger.crt", "is not a certificate of the CA in ca", id="stranger"),
            pytest.param("ca/ca.crt", "is the CA itself", id="ca"),
            pytest.param("ca/ca.key", "is not a certificate of the CA", id="key"),
            pytest.param("abcdef", "has issued nothing with the serial number abcdef", id="unknown"),
            pytest.param("a/client.crt", "neither a file nor a serial number", id="no-file"),
            pytest.param("a" * 41, "neither a file nor a serial number", id="long"),
        ],
    )
    def test_what_it_did_not_issue_is_refused(self, shell: Shell, target: str, message: str) -> None:
        """One wrong target stops all, before anything is changed."""
        Path("stranger.crt").write_bytes(authority().issue("a", purposes=CLIENT).cert_pem)
        shell.good("client", "good")
        assert message in shell.refusal("revoke", "good/client.crt", target)
        assert not Path("ca/ca.crl").exists()
        assert " - client CN=good" in Path("ca/issued.txt").read_text()

    def test_list_is_renewed_with_a_greater_number(self, shell: Shell) -> None:
        """`crl` keeps what is revoked, and the number grows."""
        shell.good("client", "a")
        shell.good("revoke", "a/client.crt")
        out = shell.good("crl", "--days", "30", days_later=5)
        assert self.number() == 2
        assert len(self.crl()) == 1
        assert self.crl().next_update_utc == NOW + 35 * DAY
        assert "list number 2, revoked certificates: 1" in out

    def test_damaged_register_stops_it(self, shell: Shell) -> None:
        """A list without what was lost would un-revoke it."""
        Path("ca/issued.txt").write_text("crl-number 1\nwhat is this\n")
        assert "line 2 of ca/issued.txt cannot be read" in shell.refusal("crl")
