"""`sidecar.config.check`: rules between settings."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.config.check import check, material_warnings, warnings
from sidecar.config.load import gather, load
from sidecar.config.names import SETTINGS
from sidecar.errors import MaterialError, Problem
from sidecar.settings import ClientSettings, Password, TlsSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeMaterial:
    """Stands for `sidecar.certs.material`: records what it was asked for, and refuses what it was told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refuse: dict[str, MaterialError] = {}

    def server(self, tls: TlsSettings, now: datetime, anchors: object = ()) -> tuple[object, list[Any]]:
        self.calls.append((tls.cert, tls.key, now))
        return self._troubles("tls_cert", "tls_key", "tls_key_password")

    def client(self, client: ClientSettings, now: datetime, password: object = None) -> tuple[object, list[Any]]:
        self.calls.append((client.ca, client.crl, now))
        return self._troubles("client_ca", "client_crl")

    def upstream(self, *given: object) -> tuple[object, list[Any]]:
        self.calls.append(given)
        found = [
            SimpleNamespace(setting=part, error=self.refuse[part])
            for part in ("ca", "cert", "key", "tls_key_password")
            if part in self.refuse
        ]
        return SimpleNamespace(warnings=(("cert", "it is old"),)), found

    def _troubles(self, *names: str) -> tuple[object, list[Any]]:
        found = [SimpleNamespace(setting=name, error=self.refuse[name]) for name in names if name in self.refuse]
        return SimpleNamespace(warnings=(("tls_cert", "it is old"),), anchors=()), found


@pytest.fixture(autouse=True)
def material(monkeypatch: pytest.MonkeyPatch) -> FakeMaterial:
    fake = FakeMaterial()
    module = SimpleNamespace(
        load_server_material=fake.server, load_client_material=fake.client, load_upstream_material=fake.upstream
    )
    monkeypatch.setitem(sys.modules, "sidecar.certs.material", module)  # type: ignore[arg-type]
    return fake


def check_flags(**flags: str) -> list[Problem]:
    return check(load(flags, {}), NOW)


class TestCheck:
    def test_defaults_have_no_problem(self) -> None:
        """The defaults work together."""
        assert check_flags() == []

    def test_all_rules_report_in_one_round(self, material: FakeMaterial) -> None:
        """One broken rule does not hide another."""
        material.refuse["tls_cert"] = MaterialError("cert", "it has expired", "renew it")

        problems = check_flags(tls_cert="/c", tls_names="a.example", client_cert="required", admin=":443")

        assert [problem.setting for problem in problems] == ["--tls-cert", "--tls-names", "--client-ca", "--admin"]

    def test_refused_value_is_not_judged_again(self) -> None:
        """A rule stays silent where one of its values is unknown, so one mistake is one problem."""
        loaded, problems = gather({"client_cert": "requierd", "client_ca": "/ca", "admin": "443x"}, {})

        assert len(problems) == 2
        assert check(loaded, NOW) == []


class TestServerCertificate:
    def test_files_are_loaded_for_the_given_moment(self, material: FakeMaterial) -> None:
        """Certificate, key and moment reach the loader."""
        assert check_flags(tls_cert="/c", tls_key="/k") == []
        assert material.calls == [((Path("/c"),), (Path("/k"),), NOW)]

    @pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_key_password"])
    def test_unusable_material_names_its_setting(self, material: FakeMaterial, name: str) -> None:
        """What is wrong is said of the setting that is to be mended."""
        material.refuse[name] = MaterialError("cert", "it is broken", "replace it")
        flags = {"tls_cert": "/c", "tls_key": "/k", "tls_key_password": "/p"}

        problem = Problem(SETTINGS[name].flag, "flag", "it is broken", "replace it")
        assert check_flags(**flags) == [problem]

    def test_password_that_is_missing_is_named_as_the_certificate_was(self, material: FakeMaterial) -> None:
        """A setting that was not given is named in the style of the one beside it."""
        material.refuse["tls_key_password"] = MaterialError("passphrase", "it is encrypted", "give its password")

        assert [problem.setting for problem in check_flags(tls_cert="/c")] == ["--tls-key-password"]

    def test_key_without_certificate_is_a_problem(self, material: FakeMaterial) -> None:
        """A key alone would be silently ignored."""
        problems = check(load({}, {"SIDECAR_TLS_KEY": "/k"}), NOW)

        assert [str(problem) for problem in problems] == [
            "SIDECAR_TLS_KEY (environment): there is a key but no certificate; set SIDECAR_TLS_CERT too, or remove this"
        ]
        assert material.calls == []

    def test_names_beside_a_certificate_are_a_problem(self) -> None:
        """Names are for the certificate made at start and would be silently ignored beside another."""
        problems = check(load({"tls_cert": "/c"}, {"SIDECAR_TLS_NAMES": "a.example"}), NOW)

        assert [(problem.setting, problem.source) for problem in problems] == [("SIDECAR_TLS_NAMES", "environment")]
        assert "--tls-cert" in problems[0].fact


class TestClientCertificates:
    @pytest.mark.parametrize("mode", ["optional", "required"])
    @pytest.mark.parametrize(
        ("source", "setting"), [("flag", "--client-ca"), ("environment", "SIDECAR_CLIENT_CA"), ("file", "client_ca")]
    )
    def test_mode_without_ca_is_a_problem(self, mode: str, source: str, setting: str, tmp_path: Path) -> None:
        """Client certificates need a CA; the missing setting is named as the mode was written."""
        file = tmp_path / "config.yaml"
        file.write_text(f"client_cert: {mode}" if source == "file" else "")
        flags = {"config": str(file)} | ({"client_cert": mode} if source == "flag" else {})
        environ = {"SIDECAR_CLIENT_CERT": mode} if source == "environment" else {}

        problems = check(load(flags, environ), NOW)

        assert [problem.setting for problem in problems] == [setting]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("client_ca", "/ca"),
            ("client_crl", "/crl"),
            ("client_cert_exempt", "/healthz"),
            ("client_allow", "cn=a"),
            ("client_deny", "cn=b"),
        ],
    )
    def test_setting_without_mode_is_a_problem(self, name: str, value: str) -> None:
        """What no client certificate is checked with would be silently ignored."""
        problems = check_flags(**{name: value})

        assert [problem.setting for problem in problems] == [SETTINGS[name].flag]
        assert "would be ignored: --client-cert is none" in problems[0].fact

    def test_unusable_ca_names_its_setting(self, material: FakeMaterial) -> None:
        """What is wrong with the CA bundle is a problem of client_ca."""
        material.refuse["client_ca"] = MaterialError("ca", "it is empty", "fill it")

        assert check_flags(client_ca="/ca", client_cert="optional") == [
            Problem("--client-ca", "flag", "it is empty", "fill it")
        ]
        assert material.calls == [(Path("/ca"), None, NOW)]

    def test_rules_alone_need_a_ca(self) -> None:
        """A rule may ask for certificates where nothing else does."""
        rules = '[{"path": "/admin/*", "client_cert": "required"}]'
        problems = check_flags(client_rules=rules)

        assert [problem.setting for problem in problems] == ["--client-ca"]
        assert "--client-rules asks for client certificates" in problems[0].fact
        assert check_flags(client_rules=rules, client_ca="/ca") == []

    def test_every_broken_rule_is_reported(self) -> None:
        """All at once, each with its place."""
        rules = '[{"path": "admin"}, {"allow": "cn="}, {"host": "a.example", "colour": "red"}]'
        problems = check_flags(client_rules=rules, client_ca="/ca", client_cert="required")

        assert [problem.setting for problem in problems] == [
            "client_rules[0].path",
            "client_rules[1].allow",
            "client_rules[2]",
        ]

    @pytest.mark.parametrize(
        "flags", [{"client_cert_exempt": "/healthz"}, {"client_rules": '[{"path": "/a", "client_cert": "none"}]'}]
    )
    def test_refusal_in_the_handshake_cannot_look_at_paths(self, flags: dict[str, str]) -> None:
        """Nobody should believe in an exemption that cannot be."""
        problems = check_flags(client_cert="required", client_ca="/ca", client_refusal="handshake", **flags)

        assert [problem.setting for problem in problems] == ["--client-refusal"]
        assert check_flags(client_cert="required", client_ca="/ca", client_refusal="handshake") == []


class TestSubjects:
    @pytest.mark.parametrize(
        ("text", "warns"),
        [
            ("CN=bob,OU=operations", True),
            ("cn=bob, ou=operations, o=Example", True),
            ("cn=bob, cn=eve", False),
            ("cn=bob", False),
            ("cn=bob, dns=a.example", False),
            ('subject="CN=bob,OU=operations"', False),
            ("all(cn=bob, ou=operations)", False),
        ],
    )
    def test_subject_from_a_log_is_no_list(self, text: str, warns: bool) -> None:
        """A comma means «or», so a whole subject lets in everybody who shares a part of it."""
        loaded = load({"client_cert": "required", "client_ca": "/ca", "client_allow": text}, {})
        assert any("any one of these terms" in line for line in warnings(loaded)) is warns


class TestOthers:
    @pytest.mark.parametrize(("lame_duck", "where"), [("20s", ["--lame-duck"]), ("19s", []), ("auto", []), ("0", [])])
    def test_lame_duck_leaves_time_to_finish(self, lame_duck: str, where: list[str]) -> None:
        """It is part of the drain."""
        assert [problem.setting for problem in check_flags(lame_duck=lame_duck, drain_timeout="20s")] == where

    @pytest.mark.parametrize(("access_log", "where"), [("json", ["--access-log-format"]), ("text", [])])
    def test_format_is_that_of_the_text_log(self, access_log: str, where: list[str]) -> None:
        """Elsewhere it would be ignored."""
        problems = check_flags(access_log=access_log, access_log_format="%RESPONSE_CODE%")
        assert [problem.setting for problem in problems] == where


class TestMaterialWarnings:
    def test_warning_names_setting_and_source(self) -> None:
        """What works but will not for long is said of its setting."""
        loaded = load({"tls_cert": "/c"}, {})
        assert material_warnings(loaded, NOW) == ["--tls-cert (flag): it is old"] * 2


class TestUpstreamMaterial:
    CLUSTERS = '[{"name": "a", "endpoints": "10.0.0.1:1", "tls": {"ca": "/ca", "cert": "/c", "key": "/k"}}]'
    LISTENERS = '[{"name": "l", "address": ":443", "cluster": "a"}]'

    def test_files_are_loaded_for_the_given_moment(self, material: FakeMaterial) -> None:
        """The password is that of all keys."""
        flags = {"upstream": "https://10.0.0.1", "upstream_ca": "/ca", "upstream_cert": "/c", "upstream_key": "/k"}
        assert check_flags(**flags, tls_key_password="/p") == []
        assert material.calls == [(Path("/ca"), Path("/c"), Path("/k"), NOW, Password(Path("/p")))]

    @pytest.mark.parametrize(
        ("part", "setting"),
        [("ca", "--upstream-ca"), ("cert", "--upstream-cert"), ("key", "--upstream-key")],
    )
    def test_unusable_material_names_its_setting(self, material: FakeMaterial, part: str, setting: str) -> None:
        """What is wrong is said of the setting that is to be mended."""
        material.refuse[part] = MaterialError(part, "it is broken", "replace it")
        flags = {"upstream": "https://10.0.0.1", "upstream_ca": "/ca", "upstream_cert": "/c", "upstream_key": "/k"}
        assert check_flags(**flags) == [Problem(setting, "flag", "it is broken", "replace it")]

    def test_unusable_material_of_a_cluster_names_its_place(self, material: FakeMaterial) -> None:
        """With the line where it is written, if it stands in a file."""
        material.refuse["key"] = MaterialError("key", "it is broken", "replace it")
        material.refuse["tls_key_password"] = MaterialError("passphrase", "it is wrong", "correct it")
        problems = check_flags(clusters=self.CLUSTERS, listeners=self.LISTENERS)
        assert [(problem.setting, problem.source) for problem in problems] == [
            ("clusters[0].tls.key", "flag"),
            ("SIDECAR_TLS_KEY_PASSWORD", "default"),
        ]

    def test_password_that_opens_nothing_is_told_once(self, material: FakeMaterial) -> None:
        """However many keys it is meant for."""
        material.refuse["tls_key_password"] = MaterialError("passphrase", "it is wrong", "correct it")
        flags = {"upstream": "https://10.0.0.1", "upstream_cert": "/c", "tls_cert": "/d", "tls_key_password": "/p"}
        assert [problem.setting for problem in check_flags(**flags)] == ["--tls-key-password"]

    def test_nothing_is_loaded_where_nothing_is_encrypted(self, material: FakeMaterial) -> None:
        """Nor where files are not to be looked at yet."""
        assert check_flags() == []
        check(load({"upstream": "https://a", "upstream_ca": "/ca"}, {}), NOW, with_material=False)
        assert material.calls == []

    @pytest.mark.parametrize(
        ("flags", "word"), [({"upstream_cert": "/c"}, "--upstream-cert"), ({}, "clusters[0].tls.cert")]
    )
    def test_warning_names_setting_or_place(self, flags: dict[str, str], word: str) -> None:
        """What works but will not for long."""
        own = {"upstream": "https://10.0.0.1"} if flags else {"clusters": self.CLUSTERS, "listeners": self.LISTENERS}
        assert f"{word} (flag): it is old" in material_warnings(load(flags | own, {}), NOW)


class TestRoutes:
    RULE = '[{"routes": [{"match": {"prefix": "/a"}, "cluster": "app", %s}, {"cluster": "app"}]}]'

    def test_route_that_asks_for_certificates_needs_a_ca(self) -> None:
        """Also where nothing else asks for them."""
        hosts = self.RULE % '"allow": "cn=a"'
        problems = check_flags(virtual_hosts=hosts)
        assert [problem.setting for problem in problems] == ["--client-ca"]
        assert "--virtual-hosts asks for client certificates" in problems[0].fact
        assert check_flags(virtual_hosts=hosts, client_ca="/ca") == []

    def test_route_for_everybody_needs_an_answer_by_http(self) -> None:
        """A handshake ends before the path is known."""
        flags = {"client_cert": "required", "client_ca": "/ca", "client_refusal": "handshake"}
        problems = check_flags(**flags, virtual_hosts=self.RULE % '"client_cert": "none"')
        assert [problem.setting for problem in problems] == ["--client-refusal"]

    def test_problems_of_rules_have_their_lines(self, tmp_path: Path) -> None:
        """That of the very key."""
        file = tmp_path / "sidecar.yaml"
        file.write_text(
            "client_cert: required\nclient_ca: /ca\nclient_rules:\n  - path: /a\n    allow: cm=a\n  - pth: /b\n"
        )
        problems = check(load({"config": str(file)}, {}), NOW)
        assert [(problem.setting, problem.source) for problem in problems] == [
            ("client_rules[0].allow", f"{file}:5"),
            ("client_rules[1]", f"{file}:6"),
        ]

    def test_problems_of_the_topology_are_told_beside_others(self) -> None:
        """One round of mending is enough."""
        problems = check_flags(virtual_hosts='[{"routes": [{"cluster": "b"}]}]', tls_cert="/c", tls_names="a.example")
        assert [problem.setting for problem in problems] == ["--tls-names", "virtual_hosts[0].routes[0].cluster"]


class TestListeners:
    @pytest.mark.parametrize(
        ("listen", "admin", "collide"),
        [
            (":443", "127.0.0.1:443", True),
            ("127.0.0.1:443", ":443", True),
            ("127.0.0.1:443", "localhost:443", True),
            ("[::1]:443", "LOCALHOST:443", True),
            ("[::]:443", "127.0.0.1:443", True),
            ("[::]:443", ":443", True),
            ("10.0.0.1:443", "10.0.0.1:443", True),
            ("name:443", "name:443", True),
            (":443", "[::1]:443", False),
            ("10.0.0.1:443", "127.0.0.1:443", False),
            (":443", "127.0.0.1:444", False),
            (":443", "off", False),
        ],
    )
    def test_listeners_on_one_address_collide(self, listen: str, admin: str, collide: bool) -> None:
        """TLS and admin listener need addresses that differ, wildcards counted in."""
        assert [problem.setting for problem in check_flags(listen=listen, admin=admin)] == ["--admin"] * collide

    @pytest.mark.parametrize(
        ("health", "facts"),
        [
            (":8443", [":8443 is taken by the TLS listener, 127.0.0.1:8443"]),
            ("localhost:8081", ["localhost:8081 is taken by the admin listener, 127.0.0.1:8081"]),
            ("[::1]:8081", []),
            (":8082", []),
            ("off", []),
        ],
    )
    def test_health_listener_collides_like_the_admin_listener(self, health: str, facts: list[str]) -> None:
        """Its own setting is named, since it came last, and who has the address."""
        problems = check_flags(listen="127.0.0.1:8443", admin="127.0.0.1:8081", health=health)

        assert [problem.fact.replace("0.0.0.0", "") for problem in problems] == facts
        assert {problem.setting for problem in problems} <= {"--health"}

    def test_one_address_for_all_is_told_of_each_pair(self) -> None:
        """Whoever mends one collision is not surprised by the next."""
        problems = check_flags(listen=":9000", admin="127.0.0.1:9000", health=":9000")

        assert [problem.setting for problem in problems] == ["--admin", "--health", "--health"]

    def test_listener_that_was_refused_hides_no_collision_of_others(self) -> None:
        """What is unknown collides with nothing, not even the default in its place."""
        loaded, _ = gather({"listen": ":8081", "admin": "443x", "health": ":8081"}, {})

        assert [problem.setting for problem in check(loaded, NOW)] == ["--health"]


class TestLoop:
    @pytest.mark.parametrize(
        ("upstream", "listen", "loops"),
        [
            ("127.0.0.1:443", ":443", True),
            ("127.9.9.9:443", ":443", True),
            ("0.0.0.0:443", ":443", True),
            ("0.0.0.0:443", "127.0.0.1:443", True),
            ("localhost:443", "[::]:443", True),
            ("localhost:443", "[::1]:443", True),
            ("[::]:443", "[::1]:443", True),
            ("127.0.0.1:443", "[::]:443", True),
            ("10.0.0.1:443", "10.0.0.1:443", True),
            ("app:443", "app:443", True),
            ("127.0.0.1:444", ":443", False),
            ("127.0.0.2:443", "127.0.0.1:443", False),
            ("[::1]:443", ":443", False),
            ("10.0.0.2:443", ":443", False),
            ("app:443", ":443", False),
            ("unix:/run/app.sock", ":443", False),
        ],
    )
    def test_upstream_at_our_own_listener_is_a_problem(self, upstream: str, listen: str, loops: bool) -> None:
        """An upstream that is surely ourselves is refused; one that may be another machine passes."""
        assert [problem.setting for problem in check_flags(upstream=upstream, listen=listen)] == ["--upstream"] * loops

    def test_upstream_at_the_admin_listener_is_a_problem(self) -> None:
        """The admin listener is no app."""
        problems = check_flags(upstream="localhost:8081")

        assert len(problems) == 1
        assert "SIDECAR_ADMIN is 127.0.0.1:8081" in problems[0].fact.replace("--admin", "SIDECAR_ADMIN")

    def test_upstream_at_the_health_listener_is_a_problem(self) -> None:
        """Nor is the health listener."""
        assert [problem.setting for problem in check_flags(upstream="localhost:8082", health=":8082")] == ["--upstream"]

    def test_default_upstream_is_named_as_the_listener_was_written(self) -> None:
        """A listener moved onto the default upstream is reported in the words of who moved it."""
        problems = check_flags(listen=":8080")

        assert [(problem.setting, problem.source) for problem in problems] == [("--upstream", "default")]


class TestWarnings:
    def test_warning_about_a_place_has_its_line(self, tmp_path: Path) -> None:
        """As problems do."""
        file = tmp_path / "sidecar.yaml"
        file.write_text("clusters:\n  - name: a\n    endpoints: [10.0.0.1:1]\n")
        assert warnings(load({"config": str(file)}, {})) == [f"clusters[0] ({file}:2): nothing leads to this cluster"]

    def test_name_without_an_address_is_a_warning_for_who_starts_all_the_same(self) -> None:
        """It may come with the next look-up."""
        (line,) = warnings(load({"upstream": "app:80"}, {}), resolve=lambda host: False)
        assert line == "--upstream (flag): http://app:80: app has no address; it is asked for again and again"

    def test_defaults_have_no_warning(self) -> None:
        """The defaults are meant."""
        assert warnings(load({}, {})) == []

    @pytest.mark.parametrize(
        ("name", "silent", "warned"),
        [
            ("idle_timeout", "60001ms", "60s"),
            ("drain_timeout", "29s", "30s"),
            ("header_timeout", "60s", "61s"),
            ("handshake_timeout", "60s", "61s"),
            ("admin", "127.0.0.2:8081", ":8081"),
            ("admin", "localhost:8081", "10.0.0.1:8081"),
            ("admin", "[::1]:8081", "name:8081"),
            ("admin", "off", "[::]:8081"),
        ],
    )
    def test_doubtful_value_is_a_warning_from_its_limit_on(self, name: str, silent: str, warned: str) -> None:
        """What works but is probably not meant is one line that names setting, source and value."""
        assert warnings(load({name: silent}, {})) == []
        (line,) = warnings(load({name: warned}, {}))
        assert line.startswith(f"--{name.replace('_', '-')} (flag): ")
        assert warned.removeprefix(":") in line
