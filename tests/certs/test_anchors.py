"""`certs.anchors`: whom clients must come from, and what was revoked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.certs.anchors import load_anchors, load_crls
from sidecar.errors import MaterialError
from sidecar.settings import Inline, Source
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    authority,
    der,
    ed25519_key,
    intermediate,
    key_usage,
    make_root,
    other_authority,
    pem,
    revocation_list,
    rsa_key,
    self_signed,
    truststore,
)

ROOT, ISSUER, OTHER = authority().certificate, intermediate().certificate, other_authority().certificate
EXPIRED = make_root("Old Root", NOW - 9 * DAY, NOW - DAY).certificate


def inline(*certificates: x509.Certificate) -> Inline:
    return Inline(pem(*certificates).decode())


def refusal_of(source: Source) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        load_anchors(source, NOW)
    assert caught.value.role == "ca"
    return caught.value


class TestLoadAnchors:
    def test_bundle_of_authorities_loads(self, tmp_path: Path) -> None:
        """A file may hold several CAs, intermediates among them; each counts once."""
        (tmp_path / "cas.pem").write_bytes(pem(ROOT, ISSUER, OTHER, ROOT))
        assert load_anchors(tmp_path / "cas.pem", NOW) == (ROOT, ISSUER, OTHER)

    def test_directory_layout_loads(self, tmp_path: Path) -> None:
        """A directory means ca.crt in it."""
        (tmp_path / "ca.crt").write_bytes(pem(ROOT))
        assert load_anchors(tmp_path, NOW) == (ROOT,)

    def test_directory_without_file_is_named(self, tmp_path: Path) -> None:
        """A directory without ca.crt is said to be one."""
        assert refusal_of(tmp_path).fact == f"{tmp_path} is a directory without ca.crt"

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(pem(ROOT, ISSUER).decode(), id="PEM"),
            pytest.param(base64.b64encode(pem(ROOT, ISSUER)).decode(), id="base64"),
            pytest.param(json.dumps({"issuing_ca": pem(ISSUER).decode(), "ca_chain": [pem(ROOT).decode()]}), id="JSON"),
            pytest.param(base64.b64encode(truststore(ROOT, ISSUER, password=None)).decode(), id="PKCS#12"),
        ],
    )
    def test_every_form_loads(self, text: str) -> None:
        """CAs come in the forms of all key material."""
        assert set(load_anchors(Inline(text), NOW)) == {ROOT, ISSUER}

    def test_truststore_takes_a_passphrase(self, tmp_path: Path) -> None:
        """Java's truststores have a password though there is nothing secret in them."""
        (tmp_path / "truststore.p12").write_bytes(truststore(ROOT))
        assert load_anchors(tmp_path, NOW, passphrase=Inline("secret")) == (ROOT,)
        with pytest.raises(MaterialError, match="the password given does not open the PKCS#12") as caught:
            load_anchors(tmp_path, NOW, passphrase=Inline("wrong"))
        assert caught.value.role == "passphrase"
        assert "no password is given" in refusal_of(tmp_path).fact

    def test_truststore_may_bring_its_password(self) -> None:
        """JSON holds both."""
        text = json.dumps({"truststore": base64.b64encode(truststore(ROOT)).decode(), "password": "secret"})
        assert load_anchors(Inline(text), NOW) == (ROOT,)

    def test_passphrase_is_not_read_in_vain(self, tmp_path: Path) -> None:
        """Of PEM, a passphrase for something else is no concern."""
        assert load_anchors(inline(ROOT), NOW, passphrase=tmp_path / "missing") == (ROOT,)

    def test_key_alone_is_refused(self) -> None:
        """A key is not a CA certificate."""
        fact = refusal_of(Inline(authority().key_pem.decode())).fact
        assert fact == "the value given as CA holds no certificate, only: PRIVATE KEY"

    @pytest.mark.parametrize(
        ("purposes", "kind"), [(CLIENT, "a client's"), (SERVER, "a server's"), (None, "one that may not issue others")]
    )
    def test_leaf_among_them_is_named(self, purposes: Sequence[x509.ObjectIdentifier] | None, kind: str) -> None:
        """Each certificate must be a CA; the one that is not is named."""
        leaf = authority().issue("ci", purposes=purposes).certificate
        fact = refusal_of(inline(ROOT, leaf)).fact
        assert fact == f"'CN=ci' in the value given as CA is not a CA certificate but {kind}"

    def test_leaf_alone_is_named(self) -> None:
        """A certificate in place of its CA is the usual mistake."""
        error = refusal_of(inline(authority().issue("ci", purposes=CLIENT).certificate))
        assert error.fact == "the value given as CA holds no CA certificate: 'CN=ci' is a client's"
        assert error.fix == "give the certificate of the CA that issued it"

    def test_self_signed_leaf_is_no_authority(self) -> None:
        """CA:FALSE is meant."""
        assert "holds no CA certificate" in refusal_of(inline(self_signed("a").certificate)).fact

    def test_intermediate_alone_is_refused(self) -> None:
        """Without a root no client could ever be verified."""
        assert "no root" in refusal_of(inline(ISSUER)).fact

    def test_all_expired_is_refused(self) -> None:
        """When every root has expired, the last day is named."""
        older = make_root("Older", NOW - 9 * DAY, NOW - 2 * DAY).certificate
        assert f"has expired, the last on {NOW - DAY:%Y-%m-%d}" in refusal_of(inline(EXPIRED, older, ISSUER)).fact

    def test_expired_one_is_left_out_with_a_warning(self) -> None:
        """While one root is in date, an expired one beside it only costs a sentence."""
        told: list[str] = []
        assert load_anchors(inline(EXPIRED, ROOT), NOW, warn=told.append) == (ROOT,)
        assert told == [
            f"'CN=Old Root' in the value given as CA expired on {NOW - DAY:%Y-%m-%d %H:%M:%S} UTC and is left out"
        ]
        assert load_anchors(inline(EXPIRED, ROOT), NOW) == (ROOT,)

    def test_last_second_is_valid(self) -> None:
        """A root counts up to and including its last second."""
        end = EXPIRED.not_valid_after_utc
        assert load_anchors(inline(EXPIRED), end) == (EXPIRED,)
        with pytest.raises(MaterialError, match="has expired"):
            load_anchors(inline(EXPIRED), end + timedelta(seconds=1))


ANCHORS = (ROOT, ISSUER)
GONE = authority().issue("gone", purposes=CLIENT).certificate
CRL = revocation_list(authority(), GONE)


def crl_pem(*crls: x509.CertificateRevocationList) -> str:
    return b"".join(crl.public_bytes(Encoding.PEM) for crl in crls).decode()


def crl_refusal_of(
    *crls: x509.CertificateRevocationList, anchors: Sequence[x509.Certificate] = ANCHORS
) -> MaterialError:
    with pytest.raises(MaterialError) as caught:
        load_crls(Inline(crl_pem(*crls)), anchors, NOW)
    assert caught.value.role == "crl"
    return caught.value


def point(**changes: object) -> tuple[x509.ExtensionType, bool]:
    """A critical issuing distribution point."""
    fields: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**fields, **changes}), True  # type: ignore[arg-type]


def part(number: int) -> tuple[x509.ExtensionType, bool]:
    return point(full_name=[x509.UniformResourceIdentifier(f"http://ca.example/{number}.crl")])


class TestLoadCrls:
    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(crl_pem(CRL), id="PEM"),
            pytest.param(crl_pem(CRL).replace("\n", "\\n"), id="escaped"),
            pytest.param(base64.b64encode(crl_pem(CRL).encode()).decode(), id="base64 of PEM"),
            pytest.param(base64.b64encode(der(CRL)).decode(), id="base64 of DER"),
            pytest.param(json.dumps({"crl": crl_pem(CRL), "ca": pem(ROOT).decode()}), id="JSON"),
            pytest.param(pem(ROOT).decode() + crl_pem(CRL), id="after its CA"),
        ],
    )
    def test_every_form_loads(self, text: str) -> None:
        """Lists come in the forms of all key material."""
        (crl,) = load_crls(Inline(text), ANCHORS, NOW)
        assert crl.get_revoked_certificate_by_serial_number(GONE.serial_number) is not None

    @pytest.mark.parametrize("name", ["ca.crl", "crl.pem"])
    def test_directory_layout_loads(self, tmp_path: Path, name: str) -> None:
        """DER in a file of a directory, as CAs publish it."""
        (tmp_path / name).write_bytes(der(CRL))
        assert load_crls(tmp_path, ANCHORS, NOW) == (CRL,)

    def test_directory_without_file_is_named(self, tmp_path: Path) -> None:
        """A directory without a list is said to be one."""
        with pytest.raises(MaterialError, match=r"is a directory without ca\.crl; put ca\.crl or crl\.pem there"):
            load_crls(tmp_path, ANCHORS, NOW)

    def test_several_authorities_have_each_their_own(self) -> None:
        """One file may hold the lists of the whole chain."""
        second = revocation_list(intermediate())
        assert load_crls(Inline(crl_pem(CRL, second)), ANCHORS, NOW) == (CRL, second)

    def test_ed25519_signature_is_verified(self) -> None:
        """Authorities may have any supported kind of key."""
        issuer = authority().issue("Ed CA", key=ed25519_key())
        crl = revocation_list(issuer)
        assert load_crls(Inline(crl_pem(crl)), [issuer.certificate], NOW) == (crl,)

    @pytest.mark.parametrize(
        ("first", "second", "winner"),
        [
            pytest.param({"number": 2}, {"number": 3}, 1, id="number"),
            pytest.param({"number": 10}, {"number": 9}, 0, id="number descending"),
            pytest.param({"number": 3, "last_update": NOW - 5 * DAY}, {"number": 2}, 0, id="number before date"),
            pytest.param({"number": None, "last_update": NOW - 5 * DAY}, {"number": None}, 1, id="date"),
            pytest.param({"number": 9, "last_update": NOW - 5 * DAY}, {"number": None}, 1, id="date if one lacks it"),
            pytest.param({"number": 1}, {"number": 1, "last_update": NOW - 5 * DAY}, 0, id="same number"),
        ],
    )
    def test_newest_of_an_authority_wins(
        self, first: dict[str, object], second: dict[str, object], winner: int
    ) -> None:
        """By CRL number, or else by date."""
        crls = [revocation_list(authority(), **fields) for fields in (first, second)]  # type: ignore[arg-type]
        assert load_crls(Inline(crl_pem(*crls)), ANCHORS, NOW) == (crls[winner],)

    def test_parts_of_a_divided_list_are_all_kept(self) -> None:
        """A CA may publish its list in parts, each for the certificates that name it."""
        parts = [revocation_list(authority(), number=n, extensions=[part(n % 2)]) for n in (1, 2, 3)]
        assert load_crls(Inline(crl_pem(*parts)), ANCHORS, NOW) == (parts[2], parts[1])

    def test_overdue_one_is_returned(self) -> None:
        """What an overdue list is worth is decided elsewhere."""
        crl = revocation_list(authority(), last_update=NOW - 9 * DAY, next_update=NOW - DAY)
        assert load_crls(Inline(crl_pem(crl)), ANCHORS, NOW) == (crl,)

    def test_future_suspects_the_clock(self) -> None:
        """A list of the future may be one of a machine of the past."""
        error = crl_refusal_of(revocation_list(authority(), last_update=NOW + timedelta(seconds=1)))
        assert "revocation list 1 in the value given as CRL is not valid until" in error.fact
        assert "clock" in error.fix
        assert load_crls(Inline(crl_pem(revocation_list(authority(), last_update=NOW))), ANCHORS, NOW)

    def test_list_of_another_authority_names_both(self) -> None:
        """Whose it is, and whose would do."""
        error = crl_refusal_of(CRL, revocation_list(other_authority()))
        assert error.fact == (
            "revocation list 2 in the value given as CRL is from 'CN=Other Root CA', "
            "and the client CAs are 'CN=Test Root CA', 'CN=Test Intermediate CA'"
        )

    def test_no_authority_at_all_is_said(self) -> None:
        """A list without a CA has nobody to believe."""
        assert crl_refusal_of(CRL, anchors=()).fact.endswith("and the client CAs are none")

    def test_many_authorities_are_not_all_named(self) -> None:
        """The bundle of a distribution has hundreds of CAs."""
        fact = crl_refusal_of(CRL, anchors=[OTHER] * 300).fact
        assert fact.endswith(", …")
        assert len(fact) < 400

    def test_list_of_a_namesake_is_refused(self) -> None:
        """A name alone is nobody's signature."""
        error = crl_refusal_of(revocation_list(make_root("Test Root CA")))
        assert "is not signed by the client CA 'CN=Test Root CA'" in error.fact

    @pytest.mark.parametrize("key", [rsa_key, ed25519_key, x25519.X25519PrivateKey.generate])
    def test_list_of_a_namesake_with_another_kind_of_key_is_refused(
        self, key: Callable[[], x25519.X25519PrivateKey]
    ) -> None:
        """Nor if its key could not have made such a signature, or any at all."""
        public_key, name = key().public_key(), ROOT.subject
        builder = x509.CertificateBuilder(name, name, public_key, 1, NOW - DAY, NOW + DAY)
        namesake = builder.sign(authority().key, hashes.SHA256())
        assert "is not signed by" in crl_refusal_of(CRL, anchors=[namesake]).fact

    def test_renewed_authority_of_the_same_name_is_found(self) -> None:
        """Of several CAs of one name, the one that signed is looked for."""
        namesake = make_root("Test Root CA")
        crls = (revocation_list(namesake), CRL)
        assert load_crls(Inline(crl_pem(*crls)), (ROOT, namesake.certificate), NOW) == crls

    def test_altered_list_is_refused(self) -> None:
        """One changed byte inside what is signed is enough."""
        data = der(CRL)
        at = data.index(GONE.serial_number.to_bytes(20, "big").lstrip(b"\0")) + 5
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(MaterialError, match="not signed by") as caught:
            load_crls(Inline(base64.b64encode(changed).decode()), ANCHORS, NOW)
        assert caught.value.role == "crl"

    @pytest.mark.parametrize("body", ["AAAA", "A*", ""])
    def test_damaged_list_is_numbered(self, body: str) -> None:
        """What cannot be parsed is named by its position."""
        text = crl_pem(CRL) + f"-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n"
        with pytest.raises(MaterialError, match="revocation list 2 in the value given as CRL is damaged"):
            load_crls(Inline(text), ANCHORS, NOW)

    @pytest.mark.parametrize(
        ("extension", "word"),
        [
            pytest.param((x509.DeltaCRLIndicator(1), True), "is a delta", id="delta"),
            pytest.param(point(indirect_crl=True), "is indirect", id="indirect"),
            pytest.param(
                point(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])), "is partial", id="reasons"
            ),
            pytest.param(point(only_contains_attribute_certs=True), "is partial", id="attribute certificates"),
            pytest.param(
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True), "1.2.3.4", id="critical"
            ),
        ],
    )
    def test_incomplete_list_is_refused(self, extension: tuple[x509.ExtensionType, bool], word: str) -> None:
        """A list that needs another one beside it, or that we do not wholly understand, protects nobody."""
        assert word in crl_refusal_of(revocation_list(authority(), extensions=[extension])).fact

    @pytest.mark.parametrize(
        "extension",
        [
            point(only_contains_user_certs=True),
            part(1),
            (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), False),
        ],
        ids=["users only", "part", "not critical"],
    )
    def test_other_extensions_are_accepted(self, extension: tuple[x509.ExtensionType, bool]) -> None:
        """OpenSSL uses a list for what it covers, and passes over what is not critical."""
        crl = revocation_list(authority(), extensions=[extension])
        assert load_crls(Inline(crl_pem(crl)), ANCHORS, NOW) == (crl,)

    def test_authority_that_may_not_sign_lists_is_refused(self) -> None:
        """RFC 5280 section 4.2.1.3: OpenSSL would refuse each client."""
        issuer = authority().issue("No Lists CA", usage=key_usage("key_cert_sign"))
        fact = crl_refusal_of(revocation_list(issuer), anchors=(ROOT, issuer.certificate)).fact
        assert "is signed by 'CN=No Lists CA', whose key usage does not allow that" in fact

    def test_certificate_in_place_of_a_list_is_named(self) -> None:
        """The CA's certificate is not its list."""
        with pytest.raises(MaterialError, match="holds no certificate revocation list, only: CERTIFICATE") as caught:
            load_crls(inline(ROOT), ANCHORS, NOW)
        assert caught.value.role == "crl"
