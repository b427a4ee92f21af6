"""`certs.certificates`: parsed wholly, judged by themselves, put in order."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sidecar.certs.certificates import (
    called,
    certificates,
    chain_of,
    check_dates,
    check_purpose,
    check_strength,
    date,
    leaf_for,
)
from sidecar.certs.items import Contents, Item, Kind
from sidecar.errors import MaterialError
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Issued,
    authority,
    der,
    ecdsa_key,
    intermediate,
    key_usage,
    make_root,
    other_authority,
    rsa_key,
    self_signed,
    signing_request,
)

ROOT, ISSUER = authority().certificate, intermediate().certificate
LEAF = intermediate().issue("app.example").certificate


def contents_of(*items: Item) -> Contents:
    return Contents("ca", "X", "X", items)


def item_of(certificate: x509.Certificate, **kwargs: str) -> Item:
    return Item(Kind.CERTIFICATE, "CERTIFICATE", der(certificate), **kwargs)


class TestCertificates:
    def test_each_is_returned_once(self) -> None:
        """Duplicates, as a chain appended twice has, are dropped; the order stays."""
        contents = contents_of(*map(item_of, (LEAF, ISSUER, LEAF, ROOT, ISSUER)))
        assert certificates(contents) == (LEAF, ISSUER, ROOT)

    def test_loaded_one_is_taken(self) -> None:
        """What a keystore held is not parsed again."""
        contents = contents_of(Item(Kind.CERTIFICATE, "PKCS#12 certificate", b"", loaded=LEAF))
        assert certificates(contents) == (LEAF,)

    @pytest.mark.parametrize("data", [b"", b"\0\0\0", der(LEAF)[:-1]])
    def test_damaged_one_is_numbered(self, data: bytes) -> None:
        """The one that is wrong is named by its position, and by its field if it has one."""
        contents = contents_of(item_of(ROOT), Item(Kind.CERTIFICATE, "CERTIFICATE", data, field="'chain'"))
        with pytest.raises(MaterialError) as caught:
            certificates(contents)
        assert caught.value.role == "ca"
        assert caught.value.fact == "certificate 2 in X (field 'chain') is damaged or of an unknown kind"

    @pytest.mark.parametrize(
        ("kind", "label", "advice"),
        [
            (Kind.PRIVATE_KEY, "PRIVATE KEY", "swapped"),
            (Kind.REQUEST, "CERTIFICATE REQUEST", "must be signed"),
            (Kind.OTHER, "TRUSTED CERTIFICATE", "openssl x509 -in X"),
            (Kind.OTHER, "PKCS7", "openssl pkcs7 -in X -print_certs"),
            (Kind.CRL, "X509 CRL", "BEGIN CERTIFICATE"),
        ],
    )
    def test_something_else_is_named(self, kind: Kind, label: str, advice: str) -> None:
        """What is no certificate is called what it is, with advice that fits."""
        with pytest.raises(MaterialError) as caught:
            certificates(contents_of(Item(kind, label, b"")))
        assert caught.value.fact == f"X holds no certificate, only: {label}"
        assert advice in caught.value.fix

    def test_request_is_no_certificate(self) -> None:
        """Nor if its label says so."""
        with pytest.raises(MaterialError, match="damaged"):
            certificates(contents_of(Item(Kind.CERTIFICATE, "CERTIFICATE", der(signing_request()))))


class TestCheckDates:
    @pytest.mark.parametrize(
        ("offset", "fits"), [(timedelta(0), True), (timedelta(seconds=1), False), (timedelta(seconds=-1), True)]
    )
    def test_last_second_is_valid(self, offset: timedelta, fits: bool) -> None:
        """Validity includes its last second (RFC 5280 section 4.1.2.5)."""
        if fits:
            check_dates(LEAF, "X", NOW + 90 * DAY + offset)
        else:
            with pytest.raises(MaterialError, match=f"expired on {NOW + 90 * DAY:%Y-%m-%d %H:%M:%S} UTC"):
                check_dates(LEAF, "X", NOW + 90 * DAY + offset)

    def test_future_suspects_the_clock(self) -> None:
        """A certificate of the future may be one of a machine of the past."""
        check_dates(LEAF, "X", NOW - DAY)
        with pytest.raises(MaterialError) as caught:
            check_dates(LEAF, "X", NOW - DAY - timedelta(seconds=1))
        assert f"is not valid until {date(NOW - DAY)}, and the clock says" in caught.value.fact
        assert "clock" in caught.value.fix


class TestCheckPurpose:
    @pytest.mark.parametrize("purposes", [None, SERVER, (*CLIENT, *SERVER)])
    def test_server_is_accepted(self, purposes: tuple[x509.ObjectIdentifier, ...] | None) -> None:
        """No extended key usage, or serverAuth among others."""
        check_purpose(authority().issue("app", purposes=purposes).certificate, "X")

    def test_client_is_refused(self) -> None:
        """Clients would refuse a client's certificate."""
        with pytest.raises(MaterialError, match=r"the certificate in X is not for servers: .* lacks serverAuth"):
            check_purpose(authority().issue("ci", purposes=CLIENT).certificate, "X")

    def test_authority_is_refused(self) -> None:
        """A CA whose key may only sign certificates and lists cannot serve."""
        with pytest.raises(MaterialError, match="the certificate in X is a CA's"):
            check_purpose(ROOT, "X")

    def test_self_signed_authority_is_accepted(self) -> None:
        """CA:TRUE without key usage is what `openssl req -x509` makes."""
        check_purpose(self_signed("localhost", ca=True).certificate, "X")

    @pytest.mark.parametrize(
        ("usage", "fits"),
        [
            ("digital_signature", True),
            ("key_encipherment", True),
            ("key_agreement", True),
            ("content_commitment", False),
        ],
    )
    def test_one_usage_of_tls_is_enough(self, usage: str, fits: bool) -> None:
        """RFC 5280 section 4.2.1.12: which of the three depends on the cipher suite."""
        certificate = authority().issue("app", usage=key_usage(usage)).certificate
        if fits:
            check_purpose(certificate, "X")
        else:
            with pytest.raises(MaterialError, match="not a server's"):
                check_purpose(certificate, "X")


_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_ECDSA_SHA1 = bytes.fromhex("06072a8648ce3d0401")


def _with_algorithm(certificate: x509.Certificate, old: bytes, new: bytes) -> x509.Certificate:
    """Swap the algorithm identifier by hand, as `cryptography` refuses to sign with SHA-1; lengths are mended."""
    data = der(certificate)
    identifier, changed = b"\x30\x0a" + old, b"\x30\x09" + new
    assert data.count(identifier) == 2
    data = data.replace(identifier, changed)
    outer, inner = int.from_bytes(data[2:4], "big") - 2, int.from_bytes(data[6:8], "big") - 1
    assert data[:2] == data[4:6] == b"\x30\x82"
    data = data[:2] + outer.to_bytes(2, "big") + data[4:6] + inner.to_bytes(2, "big") + data[8:]
    return x509.load_der_x509_certificate(data)


class TestCheckStrength:
    def test_sha1_is_refused(self) -> None:
        """A signature with SHA-1 would fail each handshake, so it fails the start."""
        weak = _with_algorithm(LEAF, _ECDSA_SHA256, _ECDSA_SHA1)
        with pytest.raises(MaterialError, match=r"'CN=app\.example' in X is signed with SHA-1, which clients refuse"):
            check_strength([weak], "X")

    def test_own_signature_does_not_matter(self) -> None:
        """Nobody verifies the signature of a root."""
        check_strength([_with_algorithm(ROOT, _ECDSA_SHA256, _ECDSA_SHA1)], "X")

    def test_short_key_anywhere_is_refused(self) -> None:
        """So would an issuer with a short RSA key."""
        weak = authority().issue("Weak CA", key=rsa_key(1024)).certificate
        with pytest.raises(MaterialError, match="'CN=Weak CA' in X has an RSA key of 1024 bits, the least is 2048"):
            check_strength([LEAF, weak], "X")


class TestLeafFor:
    def test_position_does_not_matter(self) -> None:
        """The leaf is the one that the key belongs to."""
        for order in itertools.permutations((LEAF, ISSUER, ROOT)):
            assert leaf_for(order, LEAF.public_key(), NOW) == LEAF

    def test_renewed_one_is_preferred(self) -> None:
        """A renewal with the same key may stand after the one that has expired."""
        key = ecdsa_key()
        old = authority().issue("app", key=key, not_before=NOW - 9 * DAY, not_after=NOW - DAY).certificate
        new = authority().issue("app", key=key).certificate
        assert leaf_for([old, new], key.public_key(), NOW) == new
        assert leaf_for([old], key.public_key(), NOW) == old

    def test_foreign_key_has_none(self) -> None:
        """A key that fits nowhere has no certificate."""
        assert leaf_for([LEAF, ISSUER], ecdsa_key().public_key(), NOW) is None


class TestChainOf:
    def test_any_order_is_sorted(self) -> None:
        """Issuer by issuer, however they were given."""
        second = intermediate().delegate("Second Intermediate CA")
        issued = second.issue("app")
        for order in itertools.permutations((second.certificate, ISSUER, ROOT, issued.certificate)):
            assert chain_of(issued.certificate, order) == (second.certificate, ISSUER, ROOT)

    def test_unrelated_ones_are_left_out(self) -> None:
        """What did not issue anything in the chain is no part of it."""
        others = (other_authority().certificate, ISSUER, authority().issue("other").certificate)
        assert chain_of(LEAF, others) == (ISSUER,)

    def test_gap_ends_it(self) -> None:
        """Without the intermediate, the root is of no use."""
        assert chain_of(LEAF, [ROOT]) == ()

    def test_name_alone_does_not_make_an_issuer(self) -> None:
        """A CA made anew under the old name did not sign the old certificates."""
        namesake = make_root("Test Intermediate CA").certificate
        assert chain_of(LEAF, [namesake, ISSUER]) == (ISSUER,)

    def test_self_signed_has_none(self) -> None:
        """It is its own issuer."""
        own = self_signed("localhost").certificate
        assert chain_of(own, [own, ROOT]) == ()

    def test_circle_ends(self) -> None:
        """Two CAs that certified each other do not make an endless chain."""
        one, other = make_root("One"), make_root("Other")
        crossed = [_cross(one, other), _cross(other, one)]
        issued = one.issue("app").certificate
        assert len(chain_of(issued, crossed)) == 2


def _cross(subject: Issued, issuer: Issued) -> x509.Certificate:
    """A certificate for the key of *subject* by *issuer*."""
    builder = x509.CertificateBuilder(
        issuer.certificate.subject,
        subject.certificate.subject,
        subject.key.public_key(),
        x509.random_serial_number(),
        NOW - DAY,
        NOW + DAY,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(issuer.key, hashes.SHA256())


class TestCalled:
    def test_subject_is_quoted(self) -> None:
        """Line breaks in a name stay in their line."""
        assert called(LEAF) == "'CN=app.example'"
        assert "\n" not in called(self_signed("a\nb.example").certificate)

    def test_without_subject_the_fingerprint_does(self) -> None:
        """Public CAs leave the subject empty."""
        key = ecdsa_key()
        builder = x509.CertificateBuilder(ROOT.subject, x509.Name([]), key.public_key(), 255, NOW, NOW + DAY)
        certificate = builder.sign(key, hashes.SHA256())
        assert called(certificate) == f"the certificate {certificate.fingerprint(hashes.SHA256()).hex()[:16]}"
