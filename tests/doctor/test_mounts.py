"""`sidecar.doctor.mounts`: how key material comes into a container, and who else gets at it."""

from __future__ import annotations

import attrs
import pytest

from sidecar.doctor.findings import Check, Severity
from sidecar.doctor.mounts import File, Mount, mount_of, mounted, parse, permissions
from tests.doctor.settled import only, severities

ROOT_LINE = "520 400 0:52 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/l\n"
TABLE = parse(
    ROOT_LINE
    + "530 520 0:60 / /certs ro,relatime - tmpfs tmpfs rw,size=64k\n"
    + "531 520 0:61 /..2026_11_23_12_00_00.123456789/tls.crt /one/tls.crt ro - tmpfs tmpfs rw\n"
    + "532 520 8:1 /var/lib/kubelet/pods/u/volume-subpaths/v/c/0 /dir ro - ext4 /dev/sda1 rw\n"
    + "533 520 8:1 /home/me/tls.key /run/tls.key rw,relatime shared:7 master:9 - ext4 /dev/sda1 rw\n"
    + "534 520 8:1 /data/a\\040b /with\\040blank rw - ext4 /dev/sda1 ro\n"
)


def file(path: str, **others: bool) -> File:
    return attrs.evolve(File(path=path, real=path, is_file=True), **others)


class TestParse:
    def test_fields_are_read(self) -> None:
        """Optional fields vary in number; blanks are written in octal; either may make it read-only."""
        assert TABLE[0] == Mount("/", "/", "overlay", is_read_only=True)
        assert TABLE[4] == Mount("/run/tls.key", "/home/me/tls.key", "ext4", is_read_only=False)
        assert TABLE[5] == Mount("/with blank", "/data/a b", "ext4", is_read_only=True)

    @pytest.mark.parametrize("line", ["", "garbage", "1 2 3 / / rw", "1 2 3 / / rw - ext4"])
    def test_line_that_is_none_is_left_out(self, line: str) -> None:
        """Whatever stands there."""
        assert parse(line) == ()


class TestMountOf:
    @pytest.mark.parametrize(
        ("path", "point"),
        [("/certs", "/certs"), ("/certs/x", "/certs"), ("/certsx", "/"), ("/", "/"), ("/one/tls.crt", "/one/tls.crt")],
    )
    def test_nearest_above_counts(self, path: str, point: str) -> None:
        """By whole names."""
        found = mount_of(path, TABLE)
        assert found is not None
        assert found.point == point

    def test_later_mount_hides_the_earlier(self) -> None:
        """Both are in the table."""
        twice = parse(ROOT_LINE + "9 520 0:9 / / rw - tmpfs tmpfs rw\n")
        assert mount_of("/x", twice) == twice[1]


class TestMounted:
    @pytest.mark.parametrize(
        ("named", "expected"),
        [
            pytest.param(file("/one/tls.crt"), [("mount", "warning")], id="subpath-of-a-file"),
            pytest.param(file("/one/tls.crt", is_named=False), [("mount", "warning")], id="within-a-directory"),
            pytest.param(file("/dir", is_file=False), [("mount", "warning")], id="subpath-of-a-directory"),
            pytest.param(file("/dir/tls.crt", is_named=False), [], id="said-of-its-directory"),
            pytest.param(file("/run/tls.key"), [("mount", "note")], id="single-file"),
            pytest.param(file("/certs", is_file=False, is_swapped=True), [("mount", "ok")], id="swapped"),
            pytest.param(file("/certs/tls.crt"), [], id="directory"),
            pytest.param(file("/etc/tls.crt"), [], id="in-the-image"),
            pytest.param(file("/etc/tls.key", has_key=True), [("key-file", "warning")], id="key-in-the-image"),
            pytest.param(file("/certs/tls.key", has_key=True), [], id="key-read-only"),
            pytest.param(
                file("/run/tls.key", has_key=True), [("mount", "note"), ("key-file", "note")], id="key-writable"
            ),
        ],
    )
    def test_renewals_must_come_and_keys_must_not_be_in_images(
        self, named: File, expected: list[tuple[str, str]]
    ) -> None:
        """A public certificate may be in an image."""
        assert severities(mounted(named, TABLE)) == expected

    def test_unknown_mounts_are_nothing_to_say(self) -> None:
        """Where the table cannot be read."""
        assert list(mounted(file("/certs/tls.key", has_key=True), ())) == []


class TestPermissions:
    @pytest.mark.parametrize(
        ("mode", "in_container", "severity"),
        [
            pytest.param(0o600, False, Severity.OK, id="owner"),
            pytest.param(0o440, True, Severity.OK, id="group"),
            pytest.param(0o644, True, Severity.NOTE, id="kubernetes-default"),
            pytest.param(0o644, False, Severity.WARNING, id="everybody"),
            pytest.param(0o666, True, Severity.WARNING, id="writable"),
        ],
    )
    def test_key_is_for_its_user(self, mode: int, in_container: bool, severity: Severity) -> None:
        """The group is how fsGroup gives it to the program."""
        key = attrs.evolve(file("/certs/tls.key", has_key=True), mode=mode)
        only(permissions(key, in_container=in_container), severity, Check.KEY_FILE)
