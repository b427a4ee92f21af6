"""`certs.newfiles`: all or none."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from sidecar.certs.newfiles import NewFile, check_free, make_directory, write_files
from sidecar.errors import MaterialError


class TestWriteFiles:
    def files(self, directory: Path) -> list[NewFile]:
        return [NewFile(directory / "k", b"key", is_secret=True), NewFile(directory / "c", b"cert")]

    def names(self, directory: Path) -> list[str]:
        return sorted(path.name for path in directory.iterdir())

    def test_secret_files_are_for_their_owner(self, tmp_path: Path) -> None:
        """Modes do not depend on the umask; nothing else is left behind."""
        before = os.umask(0)
        try:
            write_files(self.files(tmp_path), replace=False)
        finally:
            os.umask(before)
        assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "kc"] == [0o600, 0o644]
        assert [(tmp_path / name).read_bytes() for name in "kc"] == [b"key", b"cert"]
        assert self.names(tmp_path) == ["c", "k"]

    def test_existing_file_is_kept_and_nothing_written(self, tmp_path: Path) -> None:
        """If the second is there, the first does not stay either."""
        (tmp_path / "c").write_bytes(b"old")
        with pytest.raises(MaterialError, match="already there, and not overwritten; choose another place"):
            write_files(self.files(tmp_path), replace=False)
        assert self.names(tmp_path) == ["c"]
        assert (tmp_path / "c").read_bytes() == b"old"

    def test_dangling_link_counts_as_existing(self, tmp_path: Path) -> None:
        """A link that somebody put there does not lead the key elsewhere."""
        (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(MaterialError, match="already there"):
            check_free([tmp_path / "k"], "move it")
        with pytest.raises(MaterialError, match="already there"):
            write_files(self.files(tmp_path), replace=False)
        assert self.names(tmp_path) == ["k"]

    def test_replacing_renews_both(self, tmp_path: Path) -> None:
        """A link is replaced, not followed, and the mode is the new one."""
        (tmp_path / "elsewhere").write_bytes(b"other")
        (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
        write_files(self.files(tmp_path), replace=True)
        assert (tmp_path / "elsewhere").read_bytes() == b"other"
        assert (tmp_path / "k").read_bytes() == b"key"
        assert not (tmp_path / "k").is_symlink()

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_full_disk_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        """Neither half a file nor half a pair, and the sentence names the file and the reason."""
        calls = []
        real = getattr(os, step)

        def full(*args: object) -> object:
            calls.append(args)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        monkeypatch.setattr(os, step, full)
        with pytest.raises(MaterialError, match=r"c cannot be written: No space left on device; name a directory"):
            write_files(self.files(tmp_path), replace=False)
        assert self.names(tmp_path) == []

    def test_directory_is_made_for_its_owner(self, tmp_path: Path) -> None:
        """One that is there keeps its mode."""
        make_directory(tmp_path / "a" / "b")
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
        tmp_path.chmod(0o755)
        make_directory(tmp_path)
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755

    def test_file_in_place_of_the_directory_is_a_sentence(self, tmp_path: Path) -> None:
        """A path that leads through a file cannot be made."""
        (tmp_path / "f").write_bytes(b"")
        with pytest.raises(MaterialError, match="cannot be written: Not a directory"):
            make_directory(tmp_path / "f" / "d")
        with pytest.raises(MaterialError, match="already there"):
            make_directory(tmp_path / "f")


class TestNewFile:
    def test_content_is_not_shown(self) -> None:
        """It may be a key."""
        assert "hush" not in repr(NewFile(Path("k"), b"hush"))
