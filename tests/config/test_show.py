"""`sidecar.config.show`: settings as text."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from sidecar.config.load import load
from sidecar.config.names import SETTINGS, registry
from sidecar.config.show import effective, markdown_table
from sidecar.settings import ByteCount, setting


@attrs.frozen
class Fake:
    """A settings class of this test."""

    pin: ByteCount = setting("pin", ByteCount(0), "a secret number", secret=True)  # noqa: RUF009
    limit: ByteCount = setting("limit", ByteCount(0), "another number")  # noqa: RUF009


class TestEffective:
    def test_secret_is_masked(self) -> None:
        """A secret setting shows its source but not its value."""
        lines = effective(Fake(ByteCount(1234), ByteCount(5678)), {"pin": "flag", "limit": "default"}, registry(Fake))

        assert lines == ['pin: "***"   # flag', "limit: 5678  # default"]

    @pytest.mark.parametrize(
        "flags",
        [
            {},
            {"listen": "[::]:443", "upstream": "unix:/run/a b #c: {d}.sock", "admin": "off"},
            {"tls_names": "*.example,::1,localhost", "upstream_timeout": "0", "max_header_bytes": "1025"},
            {"tls_cert": "./none", "tls_key": "~", "client_ca": "null"},
            {"tls_cert": "'", "tls_key": "a:", "client_ca": "\udcff\u2028ü"},
            {"tls_cert": '"\\', "tls_key": "-", "client_ca": "!x"},
        ],
    )
    def test_output_is_a_file_with_the_same_meaning(self, flags: dict[str, str], tmp_path: Path) -> None:
        """What is printed, fed back as the file, gives the same settings."""
        loaded = load(flags, {})
        file = tmp_path / "config.yaml"

        file.write_text("\n".join(effective(loaded.settings, loaded.sources)))

        assert load({"config": str(file)}, {}).settings == loaded.settings

    def test_every_setting_shows_its_source(self) -> None:
        """There is one line per setting, sources in one column."""
        loaded = load({"admin": "off"}, {"SIDECAR_LISTEN": ":1"})

        lines = effective(loaded.settings, loaded.sources)

        assert len(lines) == len(SETTINGS)
        assert lines[0].split() == ["listen:", "0.0.0.0:1", "#", "environment"]
        assert lines[2].split() == ["admin:", "off", "#", "flag"]
        assert len({line.rindex("# ") for line in lines}) == 1


class TestMarkdownTable:
    def test_every_setting_has_a_row(self) -> None:
        """The table has variable, default and help of each setting, and the file."""
        table = markdown_table()
        rows = table.splitlines()

        assert len(rows) == 2 + len(SETTINGS) + 1
        assert "| `SIDECAR_LISTEN` | 0.0.0.0:443 | TLS listener, HOST:PORT |" in rows
        assert rows[-1].startswith("| `SIDECAR_CONFIG` | none |")
        assert all(row.count("|") == 4 for row in rows)
