"""The README says what the program does."""

from pathlib import Path

from sidecar.config.show import markdown_table
from sidecar.proxy.replies import REPLIES

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
