"""The README says what the program does."""

from pathlib import Path

from sidecar.config.names import SETTINGS
from sidecar.config.show import markdown_table
from sidecar.proxy.replies import REPLIES
from sidecar.wire.h2limits import Kind

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


class TestReadme:
    def test_settings_table_is_the_programs(self) -> None:
        """The table of settings is the one that the program prints of itself."""
        assert markdown_table() in README

    def test_every_reply_is_explained(self) -> None:
        """Each answer of our own that the table of replies knows stands in the README with its status."""
        rows = [line for line in README.splitlines() if line.startswith("| ")]
        for reason, (status, _) in REPLIES.items():
            assert any(f"`{reason}`" in row and str(status) in row for row in rows), reason

    def test_every_limit_of_http2_has_its_reason_and_its_setting(self) -> None:
        """Who reads a reason in the log finds what to raise, and each setting says what it is for."""
        section = README.partition("\n## HTTP/2 and gRPC\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        for kind in Kind:
            assert any(row.startswith(f"| `{kind.value}` |") and "`SIDECAR_HTTP2_MAX_" in row for row in rows), kind
        for setting in SETTINGS.values():
            if setting.path[0] == "http2":
                assert f"`{setting.variable}" in section, setting.name
