"""`sidecar.doctor.confinement`: what a process may do beyond what it needs."""

from __future__ import annotations

import pytest

from sidecar.doctor.confinement import confinement, fields_of
from sidecar.doctor.findings import Severity
from sidecar.doctor.mounts import parse
from sidecar.doctor.platforms import Platform
from tests.doctor.settled import severities

READ_ONLY = parse("1 0 0:1 / / ro - overlay overlay rw\n")
GOOD = {"Uid": "65532\t65532\t65532\t65532", "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}


def found(*, platform: Platform = Platform.DOCKER, low: bool = False, **fields: str) -> list[tuple[str, str]]:
    """What is not ok."""
    judged = confinement({**GOOD, **fields}, READ_ONLY, platform, has_low_port=low)
    return [pair for pair in severities(judged) if pair[1] != "ok"]


class TestConfinement:
    def test_what_the_image_is_made_for_is_ok(self) -> None:
        """Non-root, without capabilities and privileges, read-only."""
        judged = list(confinement(GOOD, READ_ONLY, Platform.DOCKER, has_low_port=False))
        assert {each.severity for each in judged} == {Severity.OK}
        assert len(judged) == 3

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            pytest.param({"Uid": "0\t0\t0\t0"}, [("user", "warning")], id="root"),
            pytest.param({"Uid": "65532\t0\t0\t0"}, [("user", "warning")], id="effectively-root"),
            pytest.param({"CapEff": "00000000a80425fb"}, [("capabilities", "warning")], id="held"),
            pytest.param({"CapBnd": "00000000a80425fb"}, [("capabilities", "note")], id="may-be-held"),
            pytest.param({"CapBnd": "0000000000000400"}, [], id="may-bind"),
            pytest.param({"CapEff": "0000000000000400"}, [("capabilities", "warning")], id="binds-needlessly"),
            pytest.param({"CapEff": "nonsense"}, [], id="unreadable"),
            pytest.param({"NoNewPrivs": "0"}, [("no-new-privileges", "note")], id="privileges"),
            pytest.param({"Seccomp": "0"}, [("seccomp", "note")], id="system-calls"),
        ],
    )
    def test_each_surplus_is_named(self, fields: dict[str, str], expected: list[tuple[str, str]]) -> None:
        """One finding for each, and none for what cannot be read."""
        assert found(**fields) == expected

    def test_capability_to_bind_is_needed_for_low_ports(self) -> None:
        """That one, and no other."""
        assert found(CapEff="0000000000000400", low=True) == []
        assert found(CapEff="0000000000000401", low=True) == [("capabilities", "warning")]

    def test_what_a_task_cannot_say_is_not_asked_for(self) -> None:
        """A Fargate task definition has no words for these two."""
        assert found(platform=Platform.ECS, NoNewPrivs="0", Seccomp="0") == []

    def test_writable_root_is_a_note(self) -> None:
        """Nothing needs it."""
        writable = parse("1 0 0:1 / / rw - overlay overlay rw\n")
        assert ("root-filesystem", "note") in severities(
            confinement(GOOD, writable, Platform.DOCKER, has_low_port=False)
        )

    def test_nothing_readable_is_nothing_to_say(self) -> None:
        """Where /proc is hidden."""
        assert list(confinement({}, (), Platform.DOCKER, has_low_port=False)) == []

    def test_capabilities_are_named_in_part(self) -> None:
        """All of them would fill the screen; one without a name here has its number."""
        status = {**GOOD, "CapEff": "000001ffffffffff"}
        texts = [each.fact for each in confinement(status, (), Platform.DOCKER, has_low_port=False)]
        assert any("SYS_ADMIN, MKNOD and 38 more" in text for text in texts)
        odd = confinement({**GOOD, "CapEff": "0000008000000000"}, (), Platform.DOCKER, has_low_port=False)
        assert any("number 39" in each.fact for each in odd)


class TestFieldsOf:
    def test_fields_are_read_by_name(self) -> None:
        """Values may have colons and tabs."""
        assert fields_of("Name:\tx:y\nUid:\t0\t1\t2\t3\n") == {"Name": "x:y", "Uid": "0\t1\t2\t3"}
