"""`pki.signing`: certificates for the keys of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.certs import ecdsa_key
from tests.support.shell import Shell, certificate


def sans(file: str) -> list[str]:
    names = certificate(file).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def write_request(file: str, *extensions: x509.ExtensionType, name: str = "web.example") -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for wanted in extensions:
        builder = builder.add_extension(wanted, critical=False)
    Path(file).write_bytes(builder.sign(ecdsa_key(), hashes.SHA256()).public_bytes(Encoding.PEM))


class TestSign:
    def test_names_come_from_the_request(self, shell: Shell) -> None:
        """The certificate goes beside the request, for servers unless told."""
        wanted = x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.DNSName("b.example")])
        write_request("web.csr", wanted)
        out = shell.good("sign", "web.csr")
        assert sans("web.crt") == ["a.example", "b.example"]
        assert "server certificate for a.example, b.example, until" in out

    def test_name_option_is_instead_of_its_names(self, shell: Shell) -> None:
        """Who signs decides."""
        write_request("web.csr")
        shell.good(
            "sign", "web.csr", "--client", "--name", "ci", "--name", "ci@example.com", "--org", "Ex", "--out", "x"
        )
        assert certificate("x").subject.rfc4514_string() == "CN=ci,O=Ex"
        assert sans("x") == ["ci@example.com"]

    def test_what_a_request_must_not_have_is_left_out_and_said(self, shell: Shell) -> None:
        """CA:TRUE, purposes and unknown extensions are not copied."""
        write_request(
            "web.csr",
            x509.BasicConstraints(ca=True, path_length=None),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]),
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
        )
        answer = shell("sign", "web.csr")
        assert answer.status == 0
        assert [line.removeprefix("sidecar certs: warning: ") for line in answer.err.splitlines()] == [
            "the request asks for a CA certificate; that was not granted",
            "the extension 1.2.3.4 of the request was left out",
        ]
        extensions = certificate("web.crt").extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert "1.2.3.4" not in {extension.oid.dotted_string for extension in extensions}

    def test_request_that_was_tampered_with_is_refused(self, shell: Shell) -> None:
        """Nobody gets a certificate for a key that is not theirs."""
        write_request("web.csr")
        der = x509.load_pem_x509_csr(Path("web.csr").read_bytes()).public_bytes(Encoding.DER)
        Path("web.csr").write_bytes(der.replace(b"web.example", b"wed.example"))
        assert "not signed by the key that is in it" in shell.refusal("sign", "web.csr", "--name", "a.example")
        assert not Path("web.crt").exists()

    @pytest.mark.parametrize("name", ["Web Server", "*.com"])
    def test_bad_name_in_the_request_is_bad_material(self, shell: Shell, name: str) -> None:
        """The fix includes the option that gives other names."""
        write_request("web.csr", name=name)
        refusal = shell.refusal("sign", "web.csr")
        assert "web.csr: " in refusal
        assert "; --name gives other names" in refusal

    def test_name_option_is_checked_as_usage(self, shell: Shell) -> None:
        """What was typed is whose fault it is."""
        write_request("web.csr")
        assert "'a b' is neither" in shell.refusal("sign", "web.csr", "--name", "a b", status=2)

    def test_file_without_request_is_refused(self, shell: Shell) -> None:
        """A certificate is the likely mistake."""
        assert "holds 0 certificate signing requests" in shell.refusal("sign", "ca/ca.crt")

    def test_certificate_is_not_written_over_something(self, shell: Shell) -> None:
        """Not even over the request, if that has the odd ending."""
        write_request("web.crt")
        assert "already there" in shell.refusal("sign", "web.crt")
