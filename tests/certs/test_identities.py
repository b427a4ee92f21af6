"""`certs.identities`: whom a certificate is for."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from sidecar.certs.identities import Purpose, client_identity, requested_identity, server_identity
from tests.support.certs import ecdsa_key


def request(*extensions: x509.ExtensionType, common_name: str = "") -> x509.CertificateSigningRequest:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Admins"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for wanted in extensions:
        builder = builder.add_extension(wanted, critical=False)
    return builder.sign(ecdsa_key(), hashes.SHA256())


def sans(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


class TestServerIdentity:
    def test_kinds_of_names_are_told_apart(self) -> None:
        """DNS names, addresses and URIs keep their order and appear once, in one spelling."""
        identity = server_identity(
            ["API.example.com", "api.example.com", "*.example.com", "10.0.0.5", "::1", "spiffe://ex.org/api", "my_app"]
        )
        assert identity.names == (
            x509.DNSName("api.example.com"),
            x509.DNSName("*.example.com"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.5")),
            x509.IPAddress(ipaddress.ip_address("::1")),
            x509.UniformResourceIdentifier("spiffe://ex.org/api"),
            x509.DNSName("my_app"),
        )
        assert identity.subject.rfc4514_string() == "CN=api.example.com"

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            pytest.param([], "at least one name", id="none"),
            pytest.param(["*.com"], "whole top-level domain", id="wildcard-of-top-level"),
            pytest.param(["alice@example.com"], "which no server has", id="email"),
            pytest.param(["fe80::1%eth0"], "a zone", id="zone"),
            pytest.param(["http://a b"], "not a URI", id="blank-in-uri"),
            pytest.param(["https:///path"], "not a URI", id="uri-without-host"),
            pytest.param(["x://" + "a" * 2045], "not a URI", id="long-uri"),
            pytest.param([f"n{number}.example" for number in range(101)], "101 names", id="too-many"),
        ],
    )
    def test_bad_list_is_refused(self, names: list[str], message: str) -> None:
        """Each refusal says what to do."""
        with pytest.raises(ValueError, match=rf"{message}.*; "):
            server_identity(names)

    def test_names_at_the_limit_are_taken(self) -> None:
        """The limit itself is allowed, also for a name of 253 characters and a URI of 2,048."""
        long = ".".join(["a" * 63] * 3 + ["b" * 61])
        uri = "x://" + "a" * 2044
        assert len(server_identity([long, uri, *(f"n{number}" for number in range(98))]).names) == 100

    def test_long_first_name_leaves_the_subject_empty(self) -> None:
        """A common name has at most 64 characters; clients look at the alternative names anyway."""
        assert server_identity(["a." * 32 + "example"]).subject.rdns == []


class TestClientIdentity:
    @pytest.mark.parametrize(
        ("names", "subject", "alternatives"),
        [
            pytest.param(["ci"], "CN=ci", (), id="plain"),
            pytest.param(["Zoë O. Example"], "CN=Zoë O. Example", (), id="person"),
            pytest.param(["a@ex.org"], "CN=a@ex.org", (x509.RFC822Name("a@ex.org"),), id="email"),
            pytest.param(
                ["spiffe://ex.org/a"],
                "CN=spiffe://ex.org/a",
                (x509.UniformResourceIdentifier("spiffe://ex.org/a"),),
                id="spiffe",
            ),
            pytest.param(["job.ex.org", "Job"], "CN=Job", (x509.DNSName("job.ex.org"),), id="dns-and-plain"),
            pytest.param(
                ["10.0.0.7"], "CN=10.0.0.7", (x509.IPAddress(ipaddress.ip_address("10.0.0.7")),), id="address"
            ),
        ],
    )
    def test_names_go_where_they_belong(
        self, names: list[str], subject: str, alternatives: tuple[x509.GeneralName, ...]
    ) -> None:
        """A plain name is the common name; everything else is an alternative name."""
        identity = client_identity(names)
        assert (identity.subject.rfc4514_string(), identity.names) == (subject, alternatives)

    def test_organization_and_unit_are_in_the_subject(self) -> None:
        """They come before the common name."""
        subject = client_identity(["ci"], "Example Ltd", "Build").subject
        assert subject.rfc4514_string() == "CN=ci,OU=Build,O=Example Ltd"

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            pytest.param([], "needs a name", id="none"),
            pytest.param([""], "an empty name", id="empty"),
            pytest.param([" "], "blanks at an end", id="blank"),
            pytest.param(["ci\x1b[2Jx"], "control characters", id="control"),
            pytest.param(["a\u202eb"], "control characters", id="direction"),
            pytest.param(["a" * 65], "65 characters, the limit is 64", id="long"),
            pytest.param(["alice", "bob"], "both plain names", id="two"),
            pytest.param(["*.example.com"], "wildcard", id="wildcard"),
            pytest.param(["alice@"], "neither a DNS name", id="email-without-domain"),
            pytest.param(["al..ice@example.com"], "not an e-mail address", id="email-dots"),
            pytest.param(["a..b"], "neither a DNS name", id="typo-is-no-plain-name"),
            pytest.param(["spiffe://EX.org/a"], "not a SPIFFE ID", id="spiffe-upper"),
            pytest.param(["spiffe://ex.org"], "not a SPIFFE ID", id="spiffe-without-path"),
            pytest.param(["spiffe://ex.org/a/"], "not a SPIFFE ID", id="spiffe-slash"),
            pytest.param(["spiffe://ex.org/../a"], "not a SPIFFE ID", id="spiffe-dots"),
            pytest.param(["SPIFFE://ex.org/a"], "not a SPIFFE ID", id="spiffe-scheme"),
            pytest.param(["spiffe://ex.org:1/a"], "not a SPIFFE ID", id="spiffe-port"),
            pytest.param(["spiffe://ex.org/a?b"], "not a SPIFFE ID", id="spiffe-query"),
            pytest.param(["spiffe://ex.org/a", "spiffe://ex.org/b"], "two SPIFFE IDs", id="two-spiffe"),
        ],
    )
    def test_bad_name_is_refused(self, names: list[str], message: str) -> None:
        """A name that is nearly right is an error, not a common name."""
        with pytest.raises(ValueError, match=message):
            client_identity(names)


class TestRequestedIdentity:
    def test_server_names_come_from_the_alternative_names(self) -> None:
        """The common name counts only if there are none, as with clients."""
        wanted = request(sans(x509.DNSName("a.example")), common_name="b.example")
        assert requested_identity(wanted, Purpose.SERVER).names == (x509.DNSName("a.example"),)
        assert requested_identity(request(common_name="B.example"), Purpose.SERVER).names == (
            x509.DNSName("b.example"),
        )

    def test_organization_of_the_request_is_not_taken(self) -> None:
        """Whoever makes a request must not choose a group that rules may go by."""
        identity = requested_identity(request(common_name="ci"), Purpose.CLIENT, "Builders")
        assert identity.subject.rfc4514_string() == "CN=ci,O=Builders"

    @pytest.mark.parametrize(
        "name",
        [
            pytest.param(x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a"), id="upn"),
            pytest.param(x509.DirectoryName(x509.Name([])), id="directory"),
            pytest.param(x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), id="registered"),
            pytest.param(x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")), id="network"),
            pytest.param(x509.DNSName("a\x00.example"), id="nul"),
            pytest.param(x509.DNSName("*.com"), id="top-level"),
            pytest.param(x509.DNSName("10.0.0.1"), id="address-as-dns"),
            pytest.param(x509.RFC822Name("a.example"), id="dns-as-email"),
            pytest.param(x509.UniformResourceIdentifier("a.example"), id="dns-as-uri"),
        ],
    )
    def test_name_that_is_not_issued_here_is_refused(self, name: x509.GeneralName) -> None:
        """Nothing gets into a certificate that could not be asked for on the command line."""
        with pytest.raises(ValueError, match=r"; "):
            requested_identity(request(sans(x509.DNSName("a.example"), name)), Purpose.SERVER)

    def test_client_names_keep_their_kinds(self) -> None:
        """A DNS name of one label is none for the subject, and a technical common name adds nothing."""
        wanted = request(sans(x509.DNSName("ci"), x509.RFC822Name("ci@ex.org")), common_name="admin.example")
        identity = requested_identity(wanted, Purpose.CLIENT)
        assert identity.names == (x509.DNSName("ci"), x509.RFC822Name("ci@ex.org"))
        assert identity.subject.rfc4514_string() == "CN=ci"

    def test_plain_common_name_goes_with_the_alternative_names(self) -> None:
        """A person has both."""
        wanted = request(sans(x509.RFC822Name("alice@ex.org")), common_name="Alice Example")
        identity = requested_identity(wanted, Purpose.CLIENT)
        assert identity.subject.rfc4514_string() == "CN=Alice Example"
        assert identity.names == (x509.RFC822Name("alice@ex.org"),)

    def test_request_without_names_is_refused(self) -> None:
        """There is nobody to issue it to."""
        for purpose in Purpose:
            with pytest.raises(ValueError, match="needs a"):
                requested_identity(request(), purpose)
