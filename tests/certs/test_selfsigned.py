"""`certs.selfsigned`: the certificate of a run without files."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreFlags

from sidecar.certs.bundle import Bundle, load_bundles
from sidecar.certs.describe import describe
from sidecar.certs.selfsigned import LOOK_SECONDS, default_names, make, renew_at, seconds_to_look
from tests.support.certs import NOW, pem

Kind = TypeVar("Kind", bound=x509.ExtensionType)


def extension(bundle: Bundle, kind: type[Kind]) -> Kind:
    return bundle.leaf.extensions.get_extension_for_class(kind).value


def write(bundle: Bundle, directory: Path) -> tuple[Path, Path]:
    cert, key = directory / "c.pem", directory / "k.pem"
    cert.write_bytes(pem(bundle.leaf))
    key.write_bytes(bundle.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert, key


class TestMake:
    def test_names_become_alternative_names(self) -> None:
        """DNS names and addresses are told apart, keep their order and appear once."""
        bundle = make(["LocalHost", "localhost", "127.0.0.1", "::1", "*.app.example", "my_app"], NOW)
        expected = ("DNS:localhost", "IP:127.0.0.1", "IP:::1", "DNS:*.app.example", "DNS:my_app")
        assert describe(bundle.leaf).sans == expected

    def test_certificate_is_a_server_leaf(self) -> None:
        """It is for servers only and can issue nothing."""
        bundle = make(["localhost"], NOW)
        assert bundle.chain == ()
        assert isinstance(bundle.private_key, ec.EllipticCurvePrivateKey)
        assert list(extension(bundle, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert extension(bundle, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
        assert extension(bundle, x509.KeyUsage).digital_signature
        assert not extension(bundle, x509.KeyUsage).key_cert_sign

    def test_validity_starts_an_hour_ago(self) -> None:
        """It is backdated for slow clocks, and lives as long as asked."""
        bundle = make(["localhost"], NOW, timedelta(hours=6))
        assert bundle.leaf.not_valid_before_utc == NOW - timedelta(hours=1)
        assert bundle.leaf.not_valid_after_utc == NOW + timedelta(hours=6)

    def test_each_is_new(self) -> None:
        """Key and serial number are never used twice."""
        one, two = make(["localhost"], NOW), make(["localhost"], NOW)
        assert one.leaf.serial_number != two.leaf.serial_number
        assert one.leaf.public_key() != two.leaf.public_key()
        assert 0 < one.leaf.serial_number < 1 << 159

    @pytest.mark.parametrize(("length", "common_name"), [(64, "a." * 31 + "aa"), (65, "sidecar")])
    def test_long_first_name_is_not_common_name(self, length: int, common_name: str) -> None:
        """A common name has at most 64 characters; a longer name is only an alternative name."""
        name = "a." * 31 + "a" * (length - 62)
        bundle = make([name], NOW)
        [attribute] = bundle.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert attribute.value == common_name
        assert describe(bundle.leaf).sans == (f"DNS:{name}",)

    @pytest.mark.parametrize(
        "name",
        [
            *["", " ", "a b", "-a", "a-", "a..b", "a.", ".a", "a\n", "a" * 64, "a." * 127, "bücher.example", "*"],
            *["a.*.b", "1.2.3", "10.0.0.256", "[::1]", "fe80::1%eth0", "http://a", "a:443", "10.0.0.0/8"],
        ],
    )
    def test_bad_name_is_refused(self, name: str) -> None:
        """What is neither a DNS name nor an address raises ValueError."""
        with pytest.raises(ValueError, match=r"DNS name|zone"):
            make(["localhost", name], NOW)

    def test_no_name_is_refused(self) -> None:
        """A certificate without names helps nobody."""
        with pytest.raises(ValueError, match="at least one name"):
            make([], NOW)

    def test_it_passes_our_own_checks(self, tmp_path: Path) -> None:
        """What we make, we would load."""
        bundle = make(["localhost"], NOW)
        cert, key = write(bundle, tmp_path)
        assert load_bundles([cert], [key], None, NOW) == ((bundle,), [])


class TestTrust:
    """The certificate verifies when it is itself given as the CA file."""

    def test_linked_openssl_accepts_strictly(self) -> None:
        """The OpenSSL that we serve with accepts it under X509_STRICT."""
        certificate = X509.from_cryptography(make(["localhost"], NOW).leaf)
        store = X509Store()
        store.add_cert(certificate)
        store.set_flags(X509StoreFlags.X509_STRICT)
        X509StoreContext(store, certificate).verify_certificate()

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
    def test_openssl_program_accepts_strictly(self, tmp_path: Path) -> None:
        """`openssl verify -x509_strict` accepts it for its names, as a server."""
        cert, _ = write(make(["localhost", "127.0.0.1"], NOW), tmp_path)
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"]
        done = subprocess.run([*command, "-CAfile", cert, cert], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
    def test_python_client_accepts_strictly(self, tmp_path: Path, name: str) -> None:
        """Python's ssl accepts it with the strict flag that is its default since 3.13."""
        cert, key = write(make(["localhost", "127.0.0.1", "::1"], NOW), tmp_path)
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(cert, key)
        client_side = ssl.create_default_context(cafile=str(cert))
        client_side.verify_flags |= ssl.VERIFY_X509_STRICT
        _handshake(server_side, client_side, name)


def _handshake(server_side: ssl.SSLContext, client_side: ssl.SSLContext, name: str) -> None:
    """Raise what the client raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting


class TestDefaultNames:
    def test_order_is_stable(self) -> None:
        """The loopback names come first, then what the machine is called, then what was asked for."""
        names = default_names("Web-1", ["10.0.0.5", "2001:db8::1"], ["app.example", "192.0.2.1"])
        assert names == (
            "localhost",
            "127.0.0.1",
            "::1",
            "web-1",
            "10.0.0.5",
            "2001:db8::1",
            "app.example",
            "192.0.2.1",
        )

    def test_duplicates_appear_once(self) -> None:
        """Names are compared in one spelling."""
        names = default_names("LOCALHOST", ["127.0.0.1", "0:0:0:0:0:0:0:1"], ["App.example", "app.EXAMPLE"])
        assert names == ("localhost", "127.0.0.1", "::1", "app.example")

    def test_odd_machine_names_are_left_out(self) -> None:
        """What the machine calls itself may be no DNS name; that must not stop the start."""
        assert default_names("my host!", ["fe80::1%eth0", ""], []) == ("localhost", "127.0.0.1", "::1")

    def test_odd_wanted_name_is_refused(self) -> None:
        """What the operator asked for must be possible."""
        with pytest.raises(ValueError, match="'not valid'"):
            default_names("web", [], ["not valid"])

    def test_result_can_be_made(self) -> None:
        """Every list of names is one that `make` takes."""
        names = default_names(socket.gethostname(), ["10.0.0.5"], [])
        leaf = make(names, NOW).leaf
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert ipaddress.ip_address("10.0.0.5") in found.get_values_for_type(x509.IPAddress)


class TestRenewAt:
    def test_two_thirds_are_left_behind(self) -> None:
        """The successor is due after two thirds of the validity, the hour of backdating included."""
        bundle = make(["localhost"], NOW, timedelta(hours=8))
        assert renew_at(bundle) == NOW + timedelta(hours=5)

    def test_time_of_day_may_be_set_meanwhile(self) -> None:
        """It is looked at least once an hour, at the moment itself, and soon where that has passed."""
        bundle = make(["localhost"], NOW, timedelta(hours=8))
        due = renew_at(bundle)
        assert seconds_to_look(bundle, NOW) == LOOK_SECONDS
        assert seconds_to_look(bundle, due - timedelta(seconds=90)) == 90
        assert seconds_to_look(bundle, due + timedelta(days=400)) == 1
