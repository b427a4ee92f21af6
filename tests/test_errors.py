"""`errors`: whose fault it is, and what people read."""

from __future__ import annotations

import pytest

from sidecar.errors import (
    EXIT_CONFIG,
    ConfigError,
    ListenError,
    MaterialError,
    Problem,
    ProtocolError,
    RequestError,
    ResponseError,
    SidecarError,
    TlsError,
)


class TestProblem:
    def test_text_names_setting_source_fact_and_fix(self) -> None:
        """One line is enough to mend it."""
        problem = Problem("SIDECAR_TLS_KEY", "environment", "no such file: /k", "give the path of the key")
        assert str(problem) == "SIDECAR_TLS_KEY (environment): no such file: /k; give the path of the key"


class TestConfigError:
    def test_all_problems_are_carried(self) -> None:
        """One round of mending is enough."""
        problems = [Problem(name, "default", "is wrong", "mend it") for name in ("a", "b")]
        error = ConfigError(problems)
        assert error.problems == tuple(problems)
        assert str(error).count("\n") == 1

    def test_exit_status_is_that_of_a_bad_configuration(self) -> None:
        """A supervisor must not restart for ever."""
        assert EXIT_CONFIG == 78


class TestOperatorsFaults:
    def test_fact_and_fix_are_apart(self) -> None:
        """The caller puts them beside the setting that it knows."""
        for error in (MaterialError("key", "it is encrypted", "decrypt it"), ListenError("it is taken", "free it")):
            assert str(error) == f"{error.fact}; {error.fix}"
        assert MaterialError("key", "a", "b").role == "key"


class TestProtocolError:
    @pytest.mark.parametrize(
        ("kind", "status"), [(RequestError, 400), (ResponseError, 502), (ProtocolError, 400)], ids=str
    )
    def test_status_is_on_the_class(self, kind: type[ProtocolError], status: int) -> None:
        """Whose fault it is decides what is answered, unless a rule has its own status."""
        assert kind("reason", "text").status == status
        assert kind("reason", "text", 431).status == 431
        assert kind("reason", "text").status == status

    def test_reason_is_for_programs(self) -> None:
        """Decisions never look at the text."""
        error = RequestError("header_too_large", "head is 2 bytes, limit 1")
        assert (error.reason, str(error)) == ("header_too_large", "head is 2 bytes, limit 1")


class TestTree:
    @pytest.mark.parametrize(
        "kind", [ConfigError, MaterialError, ListenError, ProtocolError, RequestError, ResponseError, TlsError], ids=str
    )
    def test_everything_is_ours(self, kind: type[Exception]) -> None:
        """One base for all that this package raises on purpose."""
        assert issubclass(kind, SidecarError)
