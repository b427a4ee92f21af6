"""`certs.files`: what settings name, and whether it has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.certs.files import fingerprint, missing, named, watched
from sidecar.settings import ClientSettings, Inline, Password, Settings, TlsSettings


def settings(
    *cert: Path | Inline, key: Path | None = None, password: Path | None = None, ca: Path | None = None
) -> Settings:
    return Settings(
        tls=TlsSettings(
            cert=cert,
            key=() if key is None else (key,),
            key_password=None if password is None else Password(password),
        ),
        client=ClientSettings(ca=ca),
    )


class TestNamed:
    def test_every_file_is_named_once(self) -> None:
        """Certificates, keys, the password and CAs; values are no files."""
        found = named(settings(Path("/c"), key=Path("/k"), password=Path("/p"), ca=Path("/c")))
        assert found == (Path("/c"), Path("/k"), Path("/p"))
        assert named(settings(Inline("-----BEGIN"))) == ()

    def test_keys_beside_certificates_are_watched(self) -> None:
        """A key that is looked for counts too, unless another one is given."""
        assert watched(settings(Path("/a/c.pem"))) == (Path("/a/c.pem"), Path("/a/c.key"))
        assert watched(settings(Path("/a/c.pem"), key=Path("/k"))) == (Path("/a/c.pem"), Path("/k"))


class TestMissing:
    def test_what_is_not_there_is_missing(self, tmp_path: Path) -> None:
        """Files, directories, and directories that are not filled yet."""
        (tmp_path / "empty").mkdir()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        found = missing(settings(tmp_path / "none", tmp_path / "empty", tmp_path / "full", tmp_path / "full" / "x"))
        assert found == (tmp_path / "none", tmp_path / "empty")

    READ_ONLY = os.statvfs_result((0,) * 8 + (os.ST_RDONLY, 255))

    def missing_with(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, *points: Path, root: os.statvfs_result = READ_ONLY
    ) -> bool:
        """Whether *path* is waited for, where volumes are mounted on *points*."""
        mounts = points[0].parent / "mountinfo"
        quoted = [str(point).replace(" ", r"\040") for point in (Path("/"), *points)]
        mounts.write_text("".join(f"36 35 98:0 / {point} ro - overlay overlay ro\n" for point in quoted))
        monkeypatch.setattr("sidecar.certs.files._MOUNTS", mounts)
        monkeypatch.setattr(os, "statvfs", lambda path: root)
        return missing(settings(path)) == (path,)

    @pytest.mark.parametrize("name", ["none", "none/deeper", "empty"])
    def test_what_nobody_can_put_there_is_not_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """On a read-only root file system nothing appears where no volume is mounted."""
        (tmp_path / "empty").mkdir()
        (tmp_path / "other").mkdir()
        assert not self.missing_with(tmp_path / name, monkeypatch, tmp_path / "other", tmp_path / "emp")

    @pytest.mark.parametrize("name", ["none", "none/deeper", "empty"])
    def test_what_may_come_is_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """In a volume, whatever its name and whatever it lies on; and anywhere if the root can be written to."""
        volume = tmp_path / "a volume"
        (volume / "empty").mkdir(parents=True)
        assert self.missing_with(volume / name, monkeypatch, volume)
        writable = os.statvfs_result((0,) * 8 + (0, 255))
        assert self.missing_with(volume / name, monkeypatch, tmp_path / "other", root=writable)

    def test_link_is_looked_at_by_where_it_leads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An image may have links into volumes that are still empty."""
        (tmp_path / "volume").mkdir()
        (tmp_path / "tls.crt").symlink_to(tmp_path / "volume" / "tls.crt")
        assert self.missing_with(tmp_path / "tls.crt", monkeypatch, tmp_path / "volume")

    def test_nobody_knows_what_is_mounted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then it may come."""
        monkeypatch.setattr("sidecar.certs.files._MOUNTS", tmp_path / "none")
        monkeypatch.setattr(os, "statvfs", lambda path: self.READ_ONLY)
        assert missing(settings(tmp_path / "x")) == (tmp_path / "x",)


def in_place(directory: Path, content: str) -> None:
    (directory / "tls.crt").write_text(content)


def by_rename(directory: Path, content: str) -> None:
    (directory / "new").write_text(content)
    (directory / "new").rename(directory / "tls.crt")


def by_link(directory: Path, content: str) -> None:
    """As Kubernetes does it: the files are links through ``..data``, which is swapped."""
    version = directory / f"..{content}"
    shutil.rmtree(version, ignore_errors=True)
    version.mkdir()
    (version / "tls.crt").write_text(content)
    os.symlink(version.name, directory / "..tmp")
    os.rename(directory / "..tmp", directory / "..data")
    if not (directory / "tls.crt").is_symlink():
        (directory / "tls.crt").unlink(missing_ok=True)
        os.symlink("..data/tls.crt", directory / "tls.crt")


class TestFingerprint:
    @pytest.mark.parametrize("name", ["", "tls.crt"], ids=["directory", "file"])
    @pytest.mark.parametrize("write", [in_place, by_rename, by_link])
    def test_content_counts(self, tmp_path: Path, write: Callable[[Path, str], None], name: str) -> None:
        """Whatever the way in which it is replaced, also if size and times stay the same."""
        write(tmp_path, "one")
        seen = fingerprint((tmp_path / name,))
        assert fingerprint((tmp_path / name,)) == seen
        times = os.stat(tmp_path / "tls.crt")
        write(tmp_path, "two")
        os.utime(tmp_path / "tls.crt", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert fingerprint((tmp_path / name,)) != seen
        write(tmp_path, "one")
        assert fingerprint((tmp_path / name,)) == seen

    def test_coming_and_going_counts(self, tmp_path: Path) -> None:
        """A file that is not there is another state than an empty one."""
        file = tmp_path / "f"
        states = {fingerprint((file,))}
        file.touch()
        states.add(fingerprint((file,)))
        file.unlink()
        file.mkdir()
        states.add(fingerprint((file,)))
        assert len(states) == 3

    def test_pipe_is_left_alone(self, tmp_path: Path) -> None:
        """To open one without a writer would never return, and what is read from it is gone."""
        os.mkfifo(tmp_path / "tls.crt")
        before = fingerprint((tmp_path,))
        (tmp_path / "tls.crt").unlink()
        assert fingerprint((tmp_path,)) != before

    def test_files_cannot_be_mistaken_for_each_other(self, tmp_path: Path) -> None:
        """The same contents in other files are something else."""
        for name, content in (("a", "1"), ("b", "2")):
            (tmp_path / name).write_text(content)
        seen = fingerprint((tmp_path,))
        (tmp_path / "a").write_text("2")
        (tmp_path / "b").write_text("1")
        assert fingerprint((tmp_path,)) != seen

    @pytest.mark.parametrize("path", ["/dev/null/x", "/", "a\0b"])
    def test_odd_paths_raise_nothing(self, path: str) -> None:
        """What cannot be read is a state like any other."""
        assert fingerprint((Path(path),)) == fingerprint((Path(path),))
