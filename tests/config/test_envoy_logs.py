"""`sidecar.config.envoy_logs`: access logs."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.envoy_logs import ENVOYS_FORMAT
from tests.config.bootstraps import FILE_LOG, Json, bootstrap, chain, extension, http, left_out, listener, read


def logging(*logs: Json) -> Json:
    return bootstrap(listener(chain(http(access_log=list(logs)))))


def file(path: str = "/dev/stdout", **fields: Any) -> Json:
    return extension(FILE_LOG, path=path, **fields)


def settings(values: Json) -> tuple[str | None, str | None]:
    got = read(values).values
    return got.get("access_log"), got.get("access_log_format")


class TestAccessLog:
    @pytest.mark.parametrize("logs", [[], [file("/dev/null")]], ids=["none", "null"])
    def test_without_a_log_there_is_none(self, logs: list[Json]) -> None:
        """Envoy logs nothing unless it is told."""
        assert settings(logging(*logs)) == ("off", None)

    @pytest.mark.parametrize(
        ("log", "text"),
        [
            (file(), ENVOYS_FORMAT),
            (file(format="%REQ(:PATH)%\n"), "%REQ(:PATH)%"),
            (file(log_format={"text_format": "%DURATION%"}), "%DURATION%"),
            (file(log_format={"text_format_source": {"inline_string": "%DURATION%\n"}}), "%DURATION%"),
            (file(json_format={"a b": "%REQ(:PATH)%"}), '{"a b": "%REQ(:PATH)%"}'),
            (file(log_format={"json_format": {"a": {"b": "x"}}}), '{"a": {"b": "x"}}'),
            ({"name": "envoy.file_access_log", "config": {"path": "/dev/stdout"}}, ENVOYS_FORMAT),
        ],
    )
    def test_format_is_kept(self, log: Json, text: str) -> None:
        """Programs that read the log go on reading it."""
        assert settings(logging(log)) == ("text", text)
        assert left_out(logging(log)) == []

    @pytest.mark.parametrize(
        ("fields", "log", "path"),
        [
            ({"format": "%COOKIE(x)%"}, "text", "format"),
            ({"json_format": {"a": "%REQ(AUTHORIZATION)%"}}, "json", "json_format"),
        ],
    )
    def test_format_that_is_none_here_is_left_out(self, fields: Json, log: str, path: str) -> None:
        """An operator that there is not, or must not be, costs the format, not the log."""
        values = logging(file(**fields))

        assert settings(values) == (log, None)
        assert left_out(values) == [f"access_log[0].typed_config.{path}"]

    def test_other_file_is_left_out(self) -> None:
        """The format stays, the lines go to standard output."""
        values = logging(file("/var/log/x", format="%DURATION%"))

        assert settings(values) == ("text", "%DURATION%")
        assert left_out(values) == ["access_log[0].typed_config.path"]

    def test_second_log_is_left_out(self) -> None:
        """There is one; what is thrown away does not count."""
        values = logging(file("/dev/null"), file(format="a"), file(format="b"))

        assert settings(values) == ("text", "a")
        assert left_out(values) == ["access_log[2]"]

    def test_filter_and_remote_log_are_left_out(self) -> None:
        """Everything is logged here, and sent nowhere."""
        remote = extension("t/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig")
        values = logging(remote, file() | {"filter": {"status_code_filter": {}}})

        assert left_out(values) == ["access_log[0]", "access_log[1].filter"]

    def test_standard_error_is_noted(self) -> None:
        """It belongs to the program's own log."""
        assert any("standard error" in note for note in read(logging(file("/dev/stderr"))).notes)
