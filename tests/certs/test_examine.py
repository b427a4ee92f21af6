"""`certs.examine`: what is in a file, in words, and what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.certs.examine import examine
from sidecar.certs.parsed import read
from sidecar.certs.report import Level, Report
from sidecar.errors import MaterialError
from tests.support.certs import DAY, NOW, authority, der, ecdsa_key, revocation_list, signing_request

KEY = ecdsa_key()


def write(directory: Path, content: bytes, name: str = "f.pem") -> Path:
    file = directory / name
    file.write_bytes(content)
    return file


def problems(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.level is Level.PROBLEM]


def notes(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.level is Level.NOTE]


class TestExamine:
    def test_key_beside_it_fits_or_not(self, tmp_path: Path) -> None:
        """The other common mistake: a new certificate with the old key."""
        leaf, other = authority().issue("a"), authority().issue("a")
        contents = read(write(tmp_path, leaf.cert_pem))
        anchors = [authority().certificate]
        for key_pem, problem_count in ((leaf.key_pem, 0), (other.key_pem, 1)):
            [key] = read(write(tmp_path, key_pem, "k")).keys
            [report] = examine(contents, NOW, key=key, key_place="k", anchors=anchors)
            assert len(problems(report)) == problem_count
            assert dict(report.facts)["private key"] == ("k does NOT fit" if problem_count else "k fits")

    def test_encrypted_key_beside_it_is_left_open(self, tmp_path: Path) -> None:
        """Whether it fits cannot be known; that is no problem."""
        leaf = authority().issue("a")
        [key] = read(write(tmp_path, leaf.encrypted_key_pem(), "k")).keys
        contents = read(write(tmp_path, leaf.cert_pem))
        [report] = examine(contents, NOW, key=key, key_place="k", anchors=[authority().certificate])
        assert "k is encrypted" in dict(report.facts)["private key"]
        assert report.findings == ()

    def test_key_within_the_file_goes_first(self, tmp_path: Path) -> None:
        """A file of both is one thing."""
        leaf = authority().issue("a")
        file = write(tmp_path, leaf.key_pem + leaf.cert_pem)
        [report] = examine(read(file), NOW)
        assert dict(report.facts)["private key"] == f"{file} fits"

    @pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o640, 1), (0o604, 1)])
    def test_key_that_others_may_read_is_a_note(self, tmp_path: Path, mode: int, count: int) -> None:
        """The note is the command that mends it."""
        file = write(tmp_path, authority().key_pem)
        file.chmod(mode)
        [report] = examine(read(file), NOW)
        assert report.title == f"{file}: private key"
        assert len(notes(report)) == count

    def test_request_is_described(self, tmp_path: Path) -> None:
        """Whoever signs it should see what it is for."""
        file = write(tmp_path, signing_request("a.example").public_bytes(Encoding.PEM))
        [report] = examine(read(file), NOW)
        assert report.facts == (("subject", "CN=a.example"), ("names", "(none)"), ("key", "ECDSA P-256"))
        assert report.findings == ()

    def test_request_that_was_tampered_with_is_a_problem(self, tmp_path: Path) -> None:
        """Its signature shows that whoever asks has the key."""
        file = write(tmp_path, der(signing_request("a.example")).replace(b"a.example", b"b.example"))
        [report] = examine(read(file), NOW)
        assert "its signature is not valid" in problems(report)[0]

    def test_crl_is_described(self, tmp_path: Path) -> None:
        """How many, which, and until when it is good."""
        revoked = [authority().issue("a", key=KEY).certificate for _ in range(25)]
        file = write(tmp_path, der(revocation_list(authority(), *revoked, number=3)))
        [report] = examine(read(file), NOW)
        facts = dict(report.facts)
        assert facts["number"] == "3"
        assert facts["revoked"].startswith(f"25: {revoked[0].serial_number:x}, ")
        assert facts["revoked"].endswith("and 5 more")
        assert report.findings == ()

    def test_overdue_crl_is_a_problem(self, tmp_path: Path) -> None:
        """Peers that check it refuse everybody then, which is a bad way to learn of it."""
        contents = read(write(tmp_path, der(revocation_list(authority()))))
        [report] = examine(contents, NOW + 7 * DAY + timedelta(seconds=1))
        assert "a newer list was due" in problems(report)[0]

    def test_file_of_nothing_to_show_is_refused(self, tmp_path: Path) -> None:
        """A public key says nothing that anybody asks here."""
        text = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
        with pytest.raises(MaterialError, match="holds nothing that can be shown"):
            examine(read(write(tmp_path, text)), NOW)
