"""Responses as RFC 9110 and RFC 9112 define them: every row of the table, in every way that its bytes can arrive."""

from __future__ import annotations

import pytest

from tests.support.cases import RESPONSES, WAYS, ResponseCase, check_response


@pytest.mark.parametrize("way", WAYS)
class TestEveryResponse:
    @pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.id)
    def test_response_is_read_the_same_however_it_arrives(self, case: ResponseCase, way: str) -> None:
        """A response gives the same events or the same refusal in whatever pieces it comes; what follows it is lost."""
        check_response(case, way)


class TestTable:
    def test_ids_are_unique(self) -> None:
        """A row is found by its id."""
        ids = [case.id for case in RESPONSES]
        assert len(ids) == len(set(ids))
