"""Requests as RFC 9110 and RFC 9112 define them: every row of the table, in every way that its bytes can arrive."""

from __future__ import annotations

import pytest

from tests.support.cases import REQUESTS, WAYS, RequestCase, check_request


@pytest.mark.parametrize("way", WAYS)
class TestEveryRequest:
    @pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.id)
    def test_request_is_read_the_same_however_it_arrives(self, case: RequestCase, way: str) -> None:
        """A request gives the same events or the same refusal in whatever pieces it comes and whatever follows it."""
        check_request(case, way)


class TestTable:
    def test_ids_are_unique(self) -> None:
        """A row is found by its id, here and in the comparison with other proxies."""
        ids = [case.id for case in REQUESTS]
        assert len(ids) == len(set(ids))
