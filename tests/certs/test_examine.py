"""`certs.examine`: what is in a file, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.certs import authority as ca
from sidecar.certs import examine
from sidecar.certs.examine import Level, Report
from sidecar.errors import MaterialError
from tests.support.certs import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Authority,
    Issued,
    authority,
    ecdsa_key,
    intermediate,
    key_usage,
    make_root,
    other_authority,
    self_signed,
)


def request(key: ec.EllipticCurvePrivateKey | None = None) -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key or ecdsa_key(), hashes.SHA256())


def revocations(count: int = 1, due_days: int = 7) -> x509.CertificateRevocationList:
    issuer = ca.Authority(authority().certificate, (), authority().key)
    entries = [ca.Entry(number, NOW, NOW + DAY, NOW, "server", "a") for number in range(1, count + 1)]
    return ca.make_crl(issuer, entries, 3, NOW, due_days * DAY)


def write(directory: Path, content: bytes, name: str = "f.pem") -> Path:
    file = directory / name
    file.write_bytes(content)
    return file


def chain(*certificates: x509.Certificate, anchors: Sequence[x509.Certificate] | None = None) -> Report:
    return examine.examine_chain(certificates, "f", NOW, anchors)


def problems(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.level is Level.PROBLEM]


def notes(report: Report) -> list[str]:
    return [finding.text for finding in report.findings if finding.level is Level.NOTE]


class TestRead:
    @pytest.mark.parametrize(("form", "encoding"), [("PEM", Encoding.PEM), ("DER", Encoding.DER)], ids=["pem", "der"])
    @pytest.mark.parametrize("kind", ["certificate", "request", "crl", "key"])
    def test_each_kind_is_recognised(self, tmp_path: Path, form: str, encoding: Encoding, kind: str) -> None:
        """What it is follows from the content, not from the name."""
        leaf = authority().issue("localhost")
        made: dict[str, bytes] = {
            "certificate": leaf.certificate.public_bytes(encoding),
            "request": request().public_bytes(encoding),
            "crl": revocations().public_bytes(encoding),
            "key": leaf.key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption()),
        }
        contents = examine.read(write(tmp_path, made[kind]))
        found = (contents.certificates, contents.requests, contents.crls, contents.keys)
        assert contents.form == form
        assert [len(items) for items in found] == [kind == name for name in ("certificate", "request", "crl", "key")]

    def test_pkcs12_needs_its_password(self, tmp_path: Path) -> None:
        """Without it there is nothing to see, and a wrong one is not shown."""
        leaf = authority().issue("ci", purposes=CLIENT)
        packed = ca.pkcs12_file(
            "ci", leaf.certificate, leaf.key, [authority().certificate], b"correct horse", modern=False
        )
        file = write(tmp_path, packed, "c.p12")
        with pytest.raises(MaterialError, match=r"is PKCS#12, which has a password; name its file"):
            examine.read(file)
        with pytest.raises(MaterialError, match="does not open with the password given") as refusal:
            examine.read(file, b"wrong horse")
        assert "horse" not in str(refusal.value)
        contents = examine.read(file, b"correct horse")
        assert contents.certificates == (leaf.certificate, authority().certificate)
        assert (contents.keys[0].kind, contents.keys[0].is_encrypted) == ("ECDSA P-256", True)

    @pytest.mark.parametrize("format", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL], ids=["pkcs8", "old"])
    def test_encrypted_key_stays_closed_without_password(self, tmp_path: Path, format: PrivateFormat) -> None:
        """It is a key, and what it is a key of needs the password."""
        file = write(tmp_path, authority().issue("a").encrypted_key_pem(format))
        assert examine.read(file).keys == (examine.KeyFile(None, "", is_encrypted=True),)
        assert examine.read(file, b"secret").keys[0].kind == "ECDSA P-256"
        with pytest.raises(MaterialError, match="check the password, or copy the file again"):
            examine.read(file, b"terces")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            pytest.param(b"", "is empty", id="empty"),
            pytest.param(b"hello", "is no certificate, key, request, CRL or PKCS#12 file", id="text"),
            pytest.param(b"-----BEGIN CERTIFICATE-----\nAAAA\n", "cut short or damaged", id="cut"),
            pytest.param(
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "block 1 of .*, CERTIFICATE", id="junk"
            ),
            pytest.param(
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "block 1 of .*, PRIVATE KEY", id="key"
            ),
            pytest.param(b"\x30\x82\x02\x01\x03" + bytes(40), "is PKCS#12", id="pkcs12-junk"),
            pytest.param(b"a" * (1024 * 1024 + 1), "over the limit of 1,048,576 bytes", id="huge"),
        ],
    )
    def test_what_cannot_be_read_is_a_sentence(self, tmp_path: Path, content: bytes, message: str) -> None:
        """Damage of any kind is named, with the file."""
        with pytest.raises(MaterialError, match=message) as refusal:
            examine.read(write(tmp_path, content))
        assert "f.pem" in refusal.value.fact

    @pytest.mark.parametrize("path", ["none", ".", "a\x00b"])
    def test_what_cannot_be_opened_is_a_sentence(self, tmp_path: Path, path: str) -> None:
        """A wrong path is not a traceback."""
        with pytest.raises(MaterialError, match="cannot be read"):
            examine.read(tmp_path / path)

    def test_many_begin_lines_cost_little(self, tmp_path: Path) -> None:
        """A hostile file of a megabyte is refused, not searched for minutes."""
        line = b"-----BEGIN CERTIFICATE-----\n"
        with pytest.raises(MaterialError, match="cut short"):
            examine.read(write(tmp_path, line * (1024 * 1024 // len(line))))

    def test_other_blocks_are_passed_over(self, tmp_path: Path) -> None:
        """Curve parameters, which openssl writes before a key, are no damage."""
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        assert len(examine.read(write(tmp_path, parameters + authority().key_pem)).keys) == 1

    @pytest.mark.parametrize("kind", ["certificate", "request", "crl", "pkcs12", "key"])
    def test_damage_anywhere_is_a_sentence(self, tmp_path: Path, kind: str) -> None:
        """Whatever octet is wrong: there is a report or our own error, never another one."""
        leaf = authority().issue("a.example", "10.0.0.1", "spiffe://ex.org/a")
        good = {
            "certificate": leaf.certificate.public_bytes(Encoding.DER),
            "request": request().public_bytes(Encoding.DER),
            "crl": revocations(3).public_bytes(Encoding.DER),
            "pkcs12": ca.pkcs12_file("ci", leaf.certificate, leaf.key, [], b"correct horse", modern=False),
            "key": leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        }[kind]
        # PKCS#12 costs the derivation of a key each time, and nearly all of it is one encrypted string.
        places = range(0, len(good), 40 if kind == "pkcs12" else 1)
        readable = 0
        for place in places:
            for octet in (good[place] ^ 0x01, 0xFF):
                file = write(tmp_path, good[:place] + bytes([octet]) + good[place + 1 :])
                try:
                    readable += len(examine.examine(examine.read(file, b"correct horse"), NOW))
                except MaterialError:
                    pass
        assert readable < 2 * len(places)

    def test_private_key_is_not_kept(self, tmp_path: Path) -> None:
        """Of a key there is only the public half."""
        [key] = examine.read(write(tmp_path, authority().key_pem)).keys
        assert b"PRIVATE" not in (key.public_key or b"")
        assert not hasattr(key, "private_bytes")


class TestParseChain:
    def test_damaged_certificate_of_a_peer_is_a_sentence(self) -> None:
        """A server can send what it likes."""
        assert examine.parse_chain([authority().certificate.public_bytes(Encoding.DER)], "h:1")
        with pytest.raises(MaterialError, match="h:1 sent a certificate that is damaged"):
            examine.parse_chain([b"\x30\x03junk"], "h:1")


class TestListFiles:
    def test_files_are_those_named_like_it(self, tmp_path: Path) -> None:
        """Others, and directories, are left out; the order is that of the names."""
        for name in ("tls.key", "tls.crt", "README", "issued.txt", "CA.PEM"):
            write(tmp_path, b"x", name)
        (tmp_path / "d.crt").mkdir()
        assert [file.name for file in examine.list_files(tmp_path)] == ["CA.PEM", "tls.crt", "tls.key"]

    def test_empty_or_huge_directory_is_refused(self, tmp_path: Path) -> None:
        """There is something to say, and not too much."""
        with pytest.raises(MaterialError, match=r"holds no file with one of the endings .*\.crt"):
            examine.list_files(tmp_path)
        for number in range(51):
            write(tmp_path, b"x", f"{number}.crt")
        with pytest.raises(MaterialError, match="holds 51 such files, the limit is 50"):
            examine.list_files(tmp_path)
        (tmp_path / "0.crt").unlink()
        assert len(examine.list_files(tmp_path)) == 50

    def test_unreadable_directory_is_a_sentence(self, tmp_path: Path) -> None:
        """As a file would be."""
        with pytest.raises(MaterialError, match="cannot be read"):
            examine.list_files(tmp_path / "none")


class TestKindOf:
    @pytest.mark.parametrize(
        ("make", "kind"),
        [
            pytest.param(lambda: authority(), "root CA certificate", id="root"),
            pytest.param(lambda: intermediate(), "intermediate CA certificate", id="intermediate"),
            pytest.param(lambda: authority().issue("a"), "server certificate", id="server"),
            pytest.param(lambda: authority().issue("a", purposes=CLIENT), "client certificate", id="client"),
            pytest.param(
                lambda: authority().issue("a", purposes=[*CLIENT, *SERVER]), "server and client certificate", id="both"
            ),
            pytest.param(lambda: authority().issue("a", purposes=None), "certificate for any purpose", id="no-usage"),
            pytest.param(
                lambda: authority().issue("a", purposes=[ExtendedKeyUsageOID.CODE_SIGNING]),
                "certificate that is neither for servers nor clients",
                id="code",
            ),
        ],
    )
    def test_purpose_is_in_words(self, make: Callable[[], Issued], kind: str) -> None:
        """The title says what a certificate is good for."""
        report = chain(make().certificate)
        assert report.title == f"f: {kind}"


class TestExamineChain:
    def test_facts_are_those_people_ask_for(self) -> None:
        """Names, issuer, end, key and fingerprint of the leaf are there."""
        leaf = authority().issue("a.example", "10.0.0.1").certificate
        facts = dict(chain(leaf).facts)
        assert facts["names"] == "DNS:a.example, IP:10.0.0.1"
        assert facts["issuer"] == "CN=Test Root CA"
        assert facts["valid"].endswith("(90 days left)")
        assert facts["key"] == "ECDSA P-256"
        assert facts["SHA-256"] == leaf.fingerprint(hashes.SHA256()).hex()
        assert facts["purposes"] == "server"

    def test_good_chain_has_no_findings(self) -> None:
        """A leaf, its intermediate, and a root that is known."""
        leaf = intermediate().issue("a")
        report = chain(leaf.certificate, *leaf.chain, anchors=[authority().certificate])
        assert report.findings == ()
        assert ("chain 1", "CN=a is signed by CN=Test Intermediate CA") in report.facts

    @pytest.mark.parametrize(
        ("make", "problem"),
        [
            pytest.param(
                lambda: authority().issue("a", not_before=NOW - 9 * DAY, not_after=NOW - DAY),
                "it expired on",
                id="expired",
            ),
            pytest.param(lambda: authority().issue("a", not_before=NOW + DAY), "it is not valid before", id="not-yet"),
            pytest.param(
                lambda: authority().issue("a", key=rsa.generate_private_key(65537, 1024)), "1024 bits", id="weak-rsa"
            ),
            pytest.param(lambda: authority().issue("a", key=ecdsa_key(ec.SECP224R1())), "secp224r1", id="weak-curve"),
            pytest.param(lambda: authority().issue("a", usage=key_usage("crl_sign")), "digitalSignature", id="usage"),
            pytest.param(
                lambda: authority().issue("a", purposes=[ExtendedKeyUsageOID.CODE_SIGNING]), "TLS peers", id="purpose"
            ),
            pytest.param(lambda: _without_names(), "no alternative names", id="no-san"),
        ],
    )
    def test_bad_leaf_is_a_problem(self, make: Callable[[], Issued], problem: str) -> None:
        """Each thing that peers refuse is named, once and alone."""
        [found] = problems(chain(make().certificate, anchors=[authority().certificate]))
        assert problem in found

    def test_sha1_signature_is_a_problem(self) -> None:
        """Old CAs still sign like that, and peers refuse it in each handshake."""
        issuer = ca.make_authority("Old CA", ca.KeyKind.RSA2048, NOW, 9 * DAY)
        key = ecdsa_key().public_key()
        leaf = ca.issue(issuer, ca.Purpose.SERVER, ca.server_identity(["a"]), key, NOW, DAY)
        sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
        weak = x509.load_der_x509_certificate(leaf.public_bytes(Encoding.DER).replace(sha256, sha1))
        assert problems(chain(weak)) == ["it is signed with SHA-1, which peers refuse"]

    def test_client_needs_no_alternative_name(self) -> None:
        """Clients are known by their common name as well."""
        made = ca.issue(
            ca.Authority(authority().certificate, (), authority().key),
            ca.Purpose.CLIENT,
            ca.client_identity(["ci"]),
            ecdsa_key().public_key(),
            NOW,
            DAY * 30,
        )
        assert chain(made, anchors=[authority().certificate]).findings == ()

    @pytest.mark.parametrize(("days", "count"), [(14, 0), (13, 1)])
    def test_near_end_is_a_note(self, days: int, count: int) -> None:
        """Two weeks are the time to renew it in."""
        leaf = authority().issue("a", not_after=NOW + days * DAY).certificate
        report = chain(leaf, anchors=[authority().certificate])
        assert len(notes(report)) == count
        assert problems(report) == []

    @pytest.mark.parametrize(("days", "count"), [(398, 0), (399, 1)])
    def test_long_validity_is_a_note(self, days: int, count: int) -> None:
        """A private CA may, a public one may not."""
        leaf = authority().issue("a", not_before=NOW, not_after=NOW + days * DAY).certificate
        assert len(notes(chain(leaf, anchors=[authority().certificate]))) == count

    def test_wrong_order_says_the_right_one(self) -> None:
        """The most common mistake: the intermediates are there, upside down."""
        low = intermediate().delegate("Low CA")
        leaf = low.issue("a").certificate
        [problem] = problems(
            chain(leaf, intermediate().certificate, low.certificate, anchors=[authority().certificate])
        )
        assert problem == "wrong order: certificate 1 is signed by certificate 3, which must come next"

    def test_missing_intermediate_is_named(self) -> None:
        """Whether it is missing inside or at the end, the issuer's name is what to look for."""
        low = intermediate().delegate("Low CA")
        leaf = low.issue("a").certificate
        inside = chain(leaf, intermediate().certificate)
        assert problems(inside) == ["the chain is incomplete: CN=Low CA, which signed certificate 1, is missing"]
        [problem] = problems(chain(leaf, anchors=[authority().certificate]))
        assert "the issuer CN=Low CA is not among them, or an intermediate is missing" in problem
        [note] = notes(chain(leaf))
        assert "peers must know the issuer, CN=Low CA" in note

    def test_issuer_with_the_name_but_another_key_is_told_apart(self) -> None:
        """A CA that was made anew under its old name is the trap of renewals."""
        leaf = make_root("Twin").issue("a").certificate
        [problem] = problems(chain(leaf, make_root("Twin").certificate))
        assert problem == "certificate 2 has the name of the issuer of 1 but did not sign it"

    def test_unknown_root_is_a_problem(self) -> None:
        """The chain is whole but leads elsewhere."""
        leaf = other_authority().issue("a").certificate
        report = chain(leaf, other_authority().certificate, anchors=[authority().certificate])
        assert problems(report) == [
            "the chain does not lead to a CA that is trusted: CN=Other Root CA is not among them"
        ]

    def test_expired_or_weak_ca_in_the_chain_is_a_problem(self) -> None:
        """A good leaf under a bad CA does not verify."""
        old = make_root("Old", NOW - 9 * DAY, NOW - DAY)
        [problem] = problems(chain(old.issue("a").certificate, old.certificate))
        assert problem.startswith("certificate 2 of the chain, CN=Old, is valid ")

    def test_leaf_as_issuer_is_a_problem(self) -> None:
        """Whoever signs with a server certificate gets no trust for it."""
        middle = self_signed("mid")
        forged = Authority(middle.certificate, middle.key).issue("a").certificate
        assert problems(chain(forged, middle.certificate)) == [
            "certificate 2 of the chain, CN=mid, is no CA certificate"
        ]

    def test_root_and_strangers_in_the_chain_are_notes(self) -> None:
        """They cost bytes and nothing else."""
        leaf = authority().issue("a").certificate
        assert "the root is in the chain" in notes(chain(leaf, authority().certificate))[0]
        [note] = notes(chain(leaf, other_authority().certificate, anchors=[authority().certificate]))
        assert note == "certificate 2, CN=Other Root CA, does not belong to the chain"

    def test_self_signed_server_is_a_note(self) -> None:
        """It works for whoever has been given it."""
        assert "it is self-signed" in notes(chain(self_signed("a", purposes=SERVER).certificate))[0]

    def test_bundle_of_cas_is_no_chain(self) -> None:
        """Anchors need not sign each other."""
        report = chain(authority().certificate, other_authority().certificate)
        assert report.findings == ()
        assert report.facts[-1] == ("also", "CN=Other Root CA (365 days left)")

    def test_thousands_of_names_are_cut(self) -> None:
        """A hostile server cannot flood the terminal."""
        leaf = authority().issue(*(f"n{number}.example" for number in range(1_000))).certificate
        assert dict(chain(leaf).facts)["names"].endswith("DNS:n19.example, and 980 more")


def _without_names() -> Issued:
    key = ecdsa_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(authority().certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + 90 * DAY)
    return Issued(builder.sign(authority().key, hashes.SHA256()), key)


class TestExamine:
    def test_key_beside_it_fits_or_not(self, tmp_path: Path) -> None:
        """The other common mistake: a new certificate with the old key."""
        leaf, other = authority().issue("a"), authority().issue("a")
        contents = examine.read(write(tmp_path, leaf.cert_pem))
        anchors = [authority().certificate]
        for key_pem, problem_count in ((leaf.key_pem, 0), (other.key_pem, 1)):
            [key] = examine.read(write(tmp_path, key_pem, "k")).keys
            [report] = examine.examine(contents, NOW, key=key, key_place="k", anchors=anchors)
            assert len(problems(report)) == problem_count
            assert dict(report.facts)["private key"] == ("k does NOT fit" if problem_count else "k fits")

    def test_encrypted_key_beside_it_is_left_open(self, tmp_path: Path) -> None:
        """Whether it fits cannot be known; that is no problem."""
        leaf = authority().issue("a")
        [key] = examine.read(write(tmp_path, leaf.encrypted_key_pem(), "k")).keys
        contents = examine.read(write(tmp_path, leaf.cert_pem))
        [report] = examine.examine(contents, NOW, key=key, key_place="k", anchors=[authority().certificate])
        assert "k is encrypted" in dict(report.facts)["private key"]
        assert report.findings == ()

    def test_key_within_the_file_goes_first(self, tmp_path: Path) -> None:
        """A file of both is one thing."""
        leaf = authority().issue("a")
        file = write(tmp_path, leaf.key_pem + leaf.cert_pem)
        [report] = examine.examine(examine.read(file), NOW)
        assert dict(report.facts)["private key"] == f"{file} fits"

    @pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o640, 1), (0o604, 1)])
    def test_key_that_others_may_read_is_a_note(self, tmp_path: Path, mode: int, count: int) -> None:
        """The note is the command that mends it."""
        file = write(tmp_path, authority().key_pem)
        file.chmod(mode)
        [report] = examine.examine(examine.read(file), NOW)
        assert report.title == f"{file}: private key"
        assert len(notes(report)) == count

    def test_request_is_described(self, tmp_path: Path) -> None:
        """Whoever signs it should see what it is for."""
        file = write(tmp_path, request().public_bytes(Encoding.PEM))
        [report] = examine.examine(examine.read(file), NOW)
        assert report.facts == (("subject", "CN=a.example"), ("names", "(none)"), ("key", "ECDSA P-256"))
        assert report.findings == ()

    def test_request_that_was_tampered_with_is_a_problem(self, tmp_path: Path) -> None:
        """Its signature shows that whoever asks has the key."""
        file = write(tmp_path, request().public_bytes(Encoding.DER).replace(b"a.example", b"b.example"))
        [report] = examine.examine(examine.read(file), NOW)
        assert "its signature is not valid" in problems(report)[0]

    def test_crl_is_described(self, tmp_path: Path) -> None:
        """How many, which, and until when it is good."""
        file = write(tmp_path, revocations(25).public_bytes(Encoding.PEM))
        [report] = examine.examine(examine.read(file), NOW)
        facts = dict(report.facts)
        assert facts["number"] == "3"
        assert facts["revoked"].startswith("25: 1, 2, 3")
        assert facts["revoked"].endswith("and 5 more")
        assert report.findings == ()

    def test_overdue_crl_is_a_problem(self, tmp_path: Path) -> None:
        """Peers that check it refuse everybody then, which is a bad way to learn of it."""
        contents = examine.read(write(tmp_path, revocations().public_bytes(Encoding.PEM)))
        [report] = examine.examine(contents, NOW + 7 * DAY + timedelta(seconds=1))
        assert "a newer list was due" in problems(report)[0]

    def test_file_of_nothing_to_show_is_refused(self, tmp_path: Path) -> None:
        """A public key says nothing that anybody asks here."""
        text = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
        with pytest.raises(MaterialError, match="holds nothing that can be shown"):
            examine.examine(examine.read(write(tmp_path, text)), NOW)

    def test_odd_key_is_described_too(self, tmp_path: Path) -> None:
        """What the proxy would not take can still be looked at."""
        key = x25519.X25519PrivateKey.generate()
        file = write(tmp_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        [report] = examine.examine(examine.read(file), NOW)
        assert dict(report.facts)["key"] == "X25519"
