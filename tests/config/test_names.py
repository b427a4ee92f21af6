"""`sidecar.config.names`: the registry."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from sidecar.config.names import MASK, SETTINGS, registry
from sidecar.config.units import UnitError
from sidecar.settings import ByteCount, ClientCertMode, Settings, setting


@attrs.frozen
class FakeInner:
    """Inner things. More text."""

    pin: ByteCount = setting("vault_pin", ByteCount(0), "a secret number", bounds=(0, 9999), secret=True)  # noqa: RUF009


@attrs.frozen
class Fake:
    """A settings class of this test."""

    file: Path | None = setting("file", None, "a file")  # noqa: RUF009
    inner: FakeInner = FakeInner()


class TestRegistry:
    @pytest.mark.parametrize("name", SETTINGS)
    def test_default_of_every_setting_reads_back(self, name: str) -> None:
        """The canonical text of each default is accepted and means that default."""
        setting_ = SETTINGS[name]
        text = setting_.text(setting_.default)

        assert (setting_.parse(text) if text else ()) == setting_.default

    @pytest.mark.parametrize("name", SETTINGS)
    def test_every_name_is_a_plain_lower_case_word(self, name: str) -> None:
        """Names turn into variables and flags by case and dash alone."""
        assert re.fullmatch(r"[a-z]+[0-9]?(_[a-z]+)*", name)
        assert SETTINGS[name].variable == f"SIDECAR_{name.upper()}"
        assert SETTINGS[name].flag == f"--{name.replace('_', '-')}"
        assert SETTINGS[name].help

    def test_public_names_stay(self) -> None:
        """The names that operators use are all there."""
        promised = (
            "listen upstream tls_cert tls_key tls_names client_cert client_ca tls_policy admin header_timeout "
            "handshake_timeout idle_timeout connect_timeout upstream_timeout drain_timeout max_connections "
            "max_header_bytes max_headers access_log log_level"
        )

        assert set(promised.split()) <= set(SETTINGS)

    def test_nested_class_gives_path_and_group(self) -> None:
        """A setting knows its path from the root and the first sentence of its class."""
        found = registry(Fake)

        assert found["vault_pin"].path == ("inner", "pin")
        assert found["vault_pin"].group == "Inner things"
        assert list(found) == ["file", "vault_pin"]


class TestSetting:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("upstream", "https://a:8443,https+unix:/b"),
            ("upstream", "h2c://a:50051,h2c+unix:/b"),
            ("trusted_proxies", "10.0.0.0/8,::1/128"),
            ("upstream_names", "a.example,spiffe://a/b"),
            ("upstream_sni", "a.example"),
            ("upstream_host", "a.example:80"),
            ("upstream_health_check", "/healthz"),
            ("alpn", "h2,http/1.1"),
            ("http_redirect", "0.0.0.0:80"),
            ("listeners", '[{"name":"a"}]'),
            ("virtual_hosts", "[{}]"),
            ("clusters", "[]"),
        ],
    )
    def test_canonical_text_of_a_value_reads_back(self, name: str, text: str) -> None:
        """Each type has its own form."""
        setting_ = SETTINGS[name]
        assert setting_.text(setting_.parse(text)) == text

    @pytest.mark.parametrize("name", ["client_rules", "listeners", "virtual_hosts", "clusters"])
    def test_lists_of_mappings_are_known(self, name: str) -> None:
        """They are told from lists of single values."""
        assert SETTINGS[name].is_structured
        assert not SETTINGS[name].is_list

    @pytest.mark.parametrize("name", ["upstream", "trusted_proxies", "upstream_names", "alpn"])
    def test_lists_of_values_are_known(self, name: str) -> None:
        """A file may list them."""
        assert SETTINGS[name].is_list

    def test_put_changes_only_its_own_value(self) -> None:
        """A nested value is set in a copy; the rest and the original stay."""
        changed = SETTINGS["client_cert"].put(Settings(), ClientCertMode.REQUIRED)

        assert changed.client.cert is ClientCertMode.REQUIRED
        assert SETTINGS["client_cert"].put(changed, ClientCertMode.NONE) == Settings()

    @pytest.mark.parametrize(
        ("name", "accepted", "refused"),
        [
            ("max_connections", ["1", "1000000"], ["0", "1000001"]),
            ("max_headers", ["1", "10000"], ["0", "10001"]),
            ("max_header_bytes", ["1KiB", "1MiB"], ["1023", "1048577"]),
            ("header_timeout", ["1ms", "24h"], ["0", "0s"]),
            ("drain_timeout", ["1ms"], ["0"]),
            ("upstream_timeout", ["0", "0s", "24h"], ["24.1h"]),
            ("stream_timeout", ["0"], ["25h"]),
            ("http2_max_streams", ["1", "1000"], ["0", "1001"]),
            ("http2_stream_window", ["65535", "2147483647"], ["65534", "2147483648"]),
            ("http2_connection_window", ["65535", "2147483647"], ["65534", "2147483648"]),
            ("http2_max_continuations", ["0", "1000"], ["1001"]),
            ("http2_max_resets", ["1", "1000000"], ["0", "1000001"]),
        ],
    )
    def test_value_at_the_bound_passes_and_beyond_is_refused(
        self, name: str, accepted: list[str], refused: list[str]
    ) -> None:
        """Bounds are inclusive; 0 passes only where it turns something off."""
        for text in accepted:
            SETTINGS[name].parse(text)
        for text in refused:
            with pytest.raises(UnitError):
                SETTINGS[name].parse(text)

    def test_refusal_out_of_bounds_names_both_bounds(self) -> None:
        """The fix shows the bounds in the setting's own unit."""
        with pytest.raises(UnitError) as caught:
            SETTINGS["max_header_bytes"].parse("2MiB")

        assert caught.value.fact == "2MiB is out of bounds"
        assert caught.value.fix == "write a value from 1KiB to 1MiB"

    @pytest.mark.parametrize("text", ["hunter2", "123456"])
    def test_refused_secret_is_not_shown(self, text: str) -> None:
        """Neither a malformed nor an out-of-bounds secret appears in the refusal."""
        with pytest.raises(UnitError) as caught:
            registry(Fake)["vault_pin"].parse(text)

        assert text not in str(caught.value)

    def test_secret_is_masked_unless_it_is_the_default(self) -> None:
        """A secret value shows as a mask; that none was given is no secret."""
        pin = registry(Fake)["vault_pin"]

        assert pin.text(ByteCount(1234)) == MASK
        assert pin.text(pin.default) == "0"

    @pytest.mark.parametrize(
        ("source", "written"),
        [
            ("environment", "SIDECAR_TLS_KEY"),
            ("default", "SIDECAR_TLS_KEY"),
            ("flag", "--tls-key"),
            ("a.yaml:3", "tls_key"),
        ],
    )
    def test_name_is_written_as_its_source_writes_it(self, source: str, written: str) -> None:
        """A problem names the setting as the operator wrote it."""
        assert SETTINGS["tls_key"].written_in(source) == written
