"""Whether the addresses to listen on can be had, or are ours already."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from sidecar.doctor.findings import Check, Finding, error, ok, unchecked
from sidecar.doctor.listening import Listening, takes
from sidecar.settings import HostPort


class Binding(enum.Enum):
    """What came of an attempt to have an address."""

    FREE = "free"
    TAKEN = "taken"
    FORBIDDEN = "forbidden"
    ABSENT = "absent"  # no address of this machine
    UNKNOWN = "unknown"


class Running(enum.Enum):
    """Whether the program runs here already, by its admin or health page."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # it has neither page


def port(what: str, address: HostPort, running: Running, binding: Binding, table: Sequence[Listening]) -> Finding:
    """
    Judge one address.

    Args:
        what: The setting that names it.
        address: To listen on.
        running: Whether the program has it already, or should.
        binding: What came of the attempt, which is made only if it does not run.
        table: What is listened on here.
    """
    if running is Running.YES:
        if takes(table, address.host, address.port):
            return ok(Check.PORT, f"{what}: the program listens on {address}")
        fact = f"{what}: the program runs, and does not listen on {address}"
        return error(Check.PORT, fact, "its log says why; if it has other settings, give the doctor the same")
    return _judge(what, address, running, binding)


def _judge(what: str, address: HostPort, running: Running, binding: Binding) -> Finding:
    match binding:
        case Binding.FREE:
            return ok(Check.PORT, f"{what}: {address} can be listened on")
        case Binding.FORBIDDEN:
            return error(Check.PORT, f"{what}: this user may not listen on port {address.port}", _ways_out(address))
        case Binding.ABSENT:
            fact = f"{what}: {address.host} is no address of this machine"
            return error(Check.PORT, fact, "name one of its addresses, or 0.0.0.0 for all")
        case Binding.TAKEN if running is Running.NO:
            fact = f"{what}: another program listens on {address}"
            return error(Check.PORT, fact, "stop it (`ss -ltnp` names it), or choose another port")
        case Binding.TAKEN:
            fact = f"{what}: {address} is taken; whether by this program is unknown, as admin and health are both off"
            return unchecked(Check.PORT, fact, "`ss -ltnp` names who listens there")
        case Binding.UNKNOWN:
            return unchecked(Check.PORT, f"{what}: whether {address} can be listened on cannot be found out here")


def _ways_out(address: HostPort) -> str:
    return (
        f"one of three: the sysctl net.ipv4.ip_unprivileged_port_start={address.port} (systemControls on ECS, "
        "securityContext.sysctls of the pod, sysctls in compose.yaml); or port 8443 with 443 mapped to it; or root "
        "with the capability NET_BIND_SERVICE"
    )
