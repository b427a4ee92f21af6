"""`sidecar.config.envoy`: Envoy's bootstrap files."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no annotations

from sidecar.config import yamlfile
from sidecar.config.envoy import given, import_bootstrap, to_yaml
from sidecar.config.load import load
from sidecar.config.names import SETTINGS, Given
from sidecar.config.topology import topology_of
from sidecar.errors import ConfigError
from tests.config.bootstraps import CERTIFICATE, address, bootstrap, chain, http, left_out, listener, read, refusals

FILES = sorted(Path(__file__).parent.joinpath("envoy").glob("*.yaml"))
KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIB\n-----END PRIVATE KEY-----\n"

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def text_of(name: str) -> str:
    return next(file for file in FILES if file.stem == name).read_text()


class TestFrontProxy:
    """The file that tutorials for v2 show."""

    def test_all_of_it_is_carried_over(self) -> None:
        """A front proxy of the v2 tutorials needs no word of ours beside what it says."""
        got = import_bootstrap(text_of("v2_front_proxy"), "envoy.yaml", strict=True)

        assert got.left_out == ()
        assert got.values == {
            "listeners": [
                {
                    "name": "listener_0",
                    "address": "0.0.0.0:443",
                    "virtual_hosts": [
                        {
                            "name": "service",
                            "domains": ["*"],
                            "routes": [{"cluster": "local_service", "timeout": "15s"}],
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "local_service",
                    "endpoints": ["127.0.0.1:8080"],
                    "discovery": "strict_dns",
                    "connect_timeout": "500ms",
                    "outlier_detection": "off",
                    "limits": {"connections": "1024", "pending_requests": "1024", "requests": "1024"},
                }
            ],
            "tls_cert": "/etc/ssl/envoy.pem",
            "tls_key": "/etc/ssl/envoy_key.pem",
            "http2": "off",
            "admin": "0.0.0.0:8081",
            "access_log": "off",
        }

    @pytest.mark.parametrize("path", ["/dev/null", "/tmp/admin_access.log"])
    def test_log_of_the_admin_listener_is_nothing_lost(self, path: str) -> None:
        """Nobody misses the access log of an admin listener, but is told if there was one."""
        got = import_bootstrap(text_of("v2_front_proxy").replace("/dev/null", path), "envoy.yaml")

        assert got.left_out == ()
        assert ("requests to the admin listener are not logged" in got.notes) == (path != "/dev/null")

    def test_open_admin_listener_is_noted(self) -> None:
        """An admin listener that others can reach is carried over, and said to be one."""
        assert any("0.0.0.0:8081 can be reached" in note for note in read_text("v2_front_proxy").notes)


def read_text(name: str) -> Any:
    return import_bootstrap(text_of(name), f"{name}.yaml")


class TestFiles:
    @every_file
    def test_result_can_be_used(self, file: Path, tmp_path: Path) -> None:
        """What is made of a file is accepted as settings."""
        path = tmp_path / "sidecar.yaml"
        path.write_text(to_yaml(import_bootstrap(file.read_text(), file.name)))

        topology = topology_of(load({"config": str(path)}, {}))

        assert len(topology.listeners) == 1

    @every_file
    def test_yaml_and_given_are_the_same(self, file: Path, tmp_path: Path) -> None:
        """The printed file gives the same texts as the import in its place."""
        got = import_bootstrap(file.read_text(), file.name)
        path = tmp_path / "sidecar.yaml"
        path.write_text(to_yaml(got))

        printed, problems = yamlfile.read(Given(str(path), "--config", "flag"))

        assert problems == []
        assert {name: each.text for name, each in printed.items()} == {
            name: each.text for name, each in given(got, file.name).items()
        }

    @every_file
    def test_json_reads_as_yaml_does(self, file: Path) -> None:
        """The same file as JSON, indented with tabs, means the same."""
        as_json = json.dumps(yaml.safe_load(file.read_text()), indent="\t")

        assert import_bootstrap(as_json, "x").values == import_bootstrap(file.read_text(), "x").values

    def test_only_what_is_known_to_be_lost_is_left_out(self) -> None:
        """Of the examples, one says something that there is not here."""
        lost = {file.stem: [item.path for item in read_text(file.stem).left_out] for file in FILES}

        assert {name: paths for name, paths in lost.items() if paths} == {
            "v2_redirect": ["staticResources.clusters[0].dnsLookupFamily"]
        }


Path_ = tuple[str | int, ...]


def spots(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The way to everything in a value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from spots(inner, (*path, key))


def put(root: Any, path: Path_, value: Any) -> Any:
    if not path:
        return value
    root = at = copy.deepcopy(root)
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return root


def at(root: Any, path: Path_) -> Any:
    for key in path:
        root = root[key]
    return root


JUNK: list[Any] = ["x", -1, None, [], {}, [[1]], [{}], {"x": "y"}]

# What is free for their authors to fill, or adds to what we write anyway.
_OPEN = [("json_format",), ("set_current_client_cert_details",)]


class TestNothingIsDropped:
    @every_file
    def test_unknown_field_is_reported_wherever_it_stands(self, file: Path) -> None:
        """A field that nobody reads is left out aloud, or refused."""
        root = yaml.safe_load(file.read_text())
        silent = []
        for path in spots(root):
            if not isinstance(at(root, path), dict) or path[-1:] in _OPEN:
                continue
            content = json.dumps(put(root, path, at(root, path) | {"surprise": "1"}))
            try:
                told = " ".join(item.path for item in import_bootstrap(content, "x").left_out)
            except ConfigError as error:
                told = str(error)
            if "surprise" not in told:
                silent.append(path)

        assert silent == []

    @every_file
    @pytest.mark.parametrize("shift", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(JUNK)))])
    def test_wrong_value_anywhere_is_no_crash(self, file: Path, shift: int) -> None:
        """Whatever stands where, the answer is settings or a list of problems."""
        root = yaml.safe_load(file.read_text())
        for index, path in enumerate(spots(root)):
            content = json.dumps(put(root, path, JUNK[(index + shift) % len(JUNK)]))
            with contextlib.suppress(ConfigError):
                to_yaml(import_bootstrap(content, "x"))

    def test_strict_import_refuses_what_is_left_out(self) -> None:
        """With strict, whatever is not carried over is a problem with its path and line."""
        with pytest.raises(ConfigError) as caught:
            import_bootstrap(text_of("v2_redirect"), "envoy.yaml", strict=True)

        (problem,) = caught.value.problems
        assert (problem.setting, problem.source) == ("staticResources.clusters[0].dnsLookupFamily", "envoy.yaml:26")


class TestBootstrap:
    @pytest.mark.parametrize(
        ("values", "path"),
        [
            ({}, "bootstrap"),
            ({"static_resources": {}}, "bootstrap"),
            (bootstrap(dynamic_resources={"lds_config": {}}), "dynamic_resources"),
        ],
        ids=["empty", "no-listeners", "control-plane"],
    )
    def test_file_without_listeners_of_its_own_is_refused(self, values: dict[str, Any], path: str) -> None:
        """What a control plane would say is not in the file."""
        assert path in refusals(values)

    def test_what_has_no_place_here_is_left_out(self) -> None:
        """Statistics and runtime layers have other places here; the name of a node has none."""
        values = bootstrap(node={"id": "x"}, stats_sinks=[{"name": "x"}], layered_runtime={"layers": [{}]})

        assert left_out(values) == ["stats_sinks", "layered_runtime"]

    def test_missing_admin_listener_is_noted(self) -> None:
        """Envoy has no admin listener unless it is told; ours is said to be there."""
        got = read(bootstrap())

        assert "admin" not in got.values
        assert any("127.0.0.1:8081" in note for note in got.notes)

    @pytest.mark.parametrize(("host", "is_open"), [("127.0.0.1", False), ("localhost", False), ("10.0.0.1", True)])
    def test_only_an_open_admin_listener_is_noted(self, host: str, is_open: bool) -> None:
        """On loopback it is nobody else's."""
        notes = read(bootstrap(admin={"address": address(host, 9901)})).notes

        assert any("from other machines" in note for note in notes) == is_open

    def test_admin_socket_is_left_out(self) -> None:
        """The admin listener has a TCP address."""
        assert left_out(bootstrap(admin={"address": {"pipe": {"path": "/run/x"}}})) == ["admin.address"]

    def test_stricter_defaults_are_noted(self) -> None:
        """Where the file says nothing and following Envoy would open a door, the operator is told."""
        config = http(common_http_protocol_options={"idle_timeout": "60s"})
        notes = [note for note in read(bootstrap(listener(chain(config)))).notes if "stricter" in note]

        assert notes == [
            "not in the file, and stricter here than in Envoy: header_timeout is 10s (Envoy: none), "
            "underscore_headers is drop (Envoy: allow)"
        ]


class TestGiven:
    def test_settings_have_the_lines_of_what_they_were_made_from(self) -> None:
        """A problem found later points into Envoy's file."""
        settings = given(read_text("v2_front_proxy"), "envoy.yaml")

        assert settings["admin"].source == "envoy.yaml:46"
        assert settings["clusters"].places["clusters[0]"] == "envoy.yaml:36"
        assert settings["listeners"].places["listeners[0].virtual_hosts[0].routes[0]"] == "envoy.yaml:28"

    def test_every_text_is_of_its_setting(self) -> None:
        """What is given can be parsed, lists included."""
        for file in FILES:
            for name, each in given(read_text(file.stem), file.name).items():
                SETTINGS[name].parse(each.text)


class TestToYaml:
    def test_what_was_left_out_stands_at_the_top(self) -> None:
        """Who reads the file sees with path and line what it does not say."""
        lines = to_yaml(read_text("v2_redirect")).splitlines()

        expected = "# - staticResources.clusters[0].dnsLookupFamily (line 26): 'V4_ONLY': IPv4 and IPv6 addresses are"
        assert lines[3].startswith(expected)

    def test_keys_are_not_printed(self) -> None:
        """A key that was given as a value is in the settings, but neither in the printed file nor in any repr."""
        certificate = CERTIFICATE | {"private_key": {"inline_string": KEY}, "password": {"inline_string": "hunter2"}}
        tls = {"common_tls_context": {"tls_certificates": [certificate]}}

        got = read(bootstrap(listener(chain(tls=tls))))

        assert (got.values["tls_key"], got.values["tls_key_password"]) == (KEY, "hunter2")
        for text in (to_yaml(got), repr(got)):
            assert "PRIVATE" not in text
            assert "hunter2" not in text
        assert "# - tls_key\n# - tls_key_password\n" in to_yaml(got)

    def test_password_that_is_left_out_is_not_shown(self) -> None:
        """What is said about a field that may be secret does not show its value."""
        got = read(bootstrap(stats_sinks=[{}], listener_token="hunter2"))

        assert "hunter2" not in to_yaml(got)

    def test_text_cannot_leave_its_place(self) -> None:
        """Names from the file end no comment and no value, so that they cannot become settings."""
        route = {"match": {"prefix": '/\n"\nadmin: x'}, "route": {"cluster": "app\nlisten: x"}}
        values = bootstrap(clusters=[{"name": "app\nlisten: x", "load_assignment": assignment()}])
        values["static_resources"]["listeners"] = [
            listener(chain(http(route_config={"virtual_hosts": [{"domains": ["*"], "routes": [route]}]})))
        ]
        values["static_resources"]["surprise\nadmin"] = "x\nadmin: 0.0.0.0:1"

        read_back = yaml.safe_load(to_yaml(read(values)))

        assert set(read_back) == {"listeners", "clusters", "access_log"}
        assert read_back["listeners"][0]["virtual_hosts"][0]["routes"][0]["match"]["prefix"] == '/\n"\nadmin: x'

    @pytest.mark.parametrize(
        "text", ["#", "a: b", "- x", "'", '"', "\\", "\x85\u2028", "😀", "null", "~", "{", "a\tb", ""]
    )
    def test_any_text_is_read_back_as_it_was(self, text: str) -> None:
        """Bodies of direct responses may be anything."""
        route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}
        got = read(
            bootstrap(listener(chain(http(route_config={"virtual_hosts": [{"domains": ["*"], "routes": [route]}]}))))
        )

        read_back = yaml.load(to_yaml(got), Loader=yaml.BaseLoader)  # which takes every scalar for a text

        assert read_back["listeners"][0]["virtual_hosts"][0]["routes"][0]["direct_response"]["body"] == text


def assignment() -> dict[str, Any]:
    return {"endpoints": [{"lb_endpoints": [{"endpoint": {"address": address()}}]}]}


class TestSlips:
    @pytest.mark.parametrize(
        ("file", "right", "wrong"),
        [
            ("v2_front_proxy", "tls_context:", "tls_contxt:"),
            ("v3_mutual_tls", "require_client_certificate:", "require_client_certificat:"),
            ("v3_mutual_tls", "common_tls_context:", "common_tls_contxt:"),
        ],
    )
    def test_what_keeps_somebody_out_cannot_be_misspelt(self, file: str, right: str, wrong: str) -> None:
        """Envoy would not start with it; without it we would, and let everybody in."""
        content = text_of(file)
        assert right in content
        with pytest.raises(ConfigError) as caught:
            import_bootstrap(content.replace(right, wrong), "envoy.yaml")
        assert any(problem.setting.endswith(wrong.rstrip(":")) for problem in caught.value.problems)
