"""`sidecar.doctor.listening`: the kernel's tables of TCP sockets."""

from __future__ import annotations

import pytest

from sidecar.doctor.listening import Listening, listening, takes

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, state: str = "0A") -> str:
    return f"   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 502 1 0 100\n"


@pytest.fixture(autouse=True)
def little_endian(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows here are of such a machine."""
    monkeypatch.setattr("sys.byteorder", "little")


class TestListening:
    @pytest.mark.parametrize(
        ("local", "address"),
        [
            ("0100007F:1F90", "127.0.0.1:8080"),
            ("00000000:01BB", "0.0.0.0:443"),
            ("00000000000000000000000000000000:1F90", "[::]:8080"),
            ("00000000000000000000000001000000:1F90", "[::1]:8080"),
            ("B80D0120000000000000000001000000:1F90", "[2001:db8::1]:8080"),
            ("0000000000000000FFFF00000100007F:1F90", "127.0.0.1:8080"),
        ],
    )
    def test_address_is_read(self, local: str, address: str) -> None:
        """Each 32 bits are a number of the machine; Java's mapped addresses are those of IPv4."""
        assert [str(each) for each in listening(HEADER + row(local))] == [address]

    def test_only_listeners_count(self) -> None:
        """Connections, and those that were, are not listened on."""
        assert listening(HEADER + row("0100007F:1F90", "01") + row("0100007F:1F91", "06"), "") == ()

    @pytest.mark.parametrize("line", ["", "0: zz:1 x 0A", row("0100:1F90"), row("0100007F:"), row("0100007F")])
    def test_line_that_is_none_is_left_out(self, line: str) -> None:
        """Whatever a kernel may write."""
        assert listening(HEADER + line) == ()

    def test_big_endian_machine_is_read_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As s390x writes it."""
        monkeypatch.setattr("sys.byteorder", "big")
        assert listening(HEADER + row("7F000001:1F90")) == (Listening("127.0.0.1", 8080),)


class TestTakes:
    @pytest.mark.parametrize(
        ("listener", "host", "port", "expected"),
        [
            pytest.param("0.0.0.0", "127.0.0.1", 80, True, id="all-takes-loopback"),
            pytest.param("::", "127.0.0.1", 80, True, id="all-of-both-kinds"),
            pytest.param("127.0.0.1", "localhost", 80, True, id="localhost"),
            pytest.param("0.0.0.0", "0.0.0.0", 80, True, id="itself"),
            pytest.param("10.0.0.1", "127.0.0.1", 80, False, id="another-address"),
            pytest.param("127.0.0.1", "127.0.0.1", 81, False, id="another-port"),
        ],
    )
    def test_connection_ends_at_a_listener(self, listener: str, host: str, port: int, expected: bool) -> None:
        """A wildcard has the loopback addresses too."""
        assert takes([Listening(listener, 80)], host, port) is expected
