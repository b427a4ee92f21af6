"""`sidecar.inject.documents`: the form of the input is that of the output."""

from __future__ import annotations

import pytest

from sidecar.inject.documents import LARGEST_INPUT, Documents, Form, read, write
from sidecar.inject.tree import InjectError, Plain


class TestForm:
    @pytest.mark.parametrize(
        ("data", "form"),
        [
            pytest.param(b'{"a": 1}', Form.JSON, id="json"),
            pytest.param(b' \n{\n  "a": 1}', Form.JSON, id="json-after-blanks"),
            pytest.param(b'\xef\xbb\xbf{"a": 1}', Form.JSON, id="json-with-a-byte-order-mark"),
            pytest.param(b"{a: 1}", Form.YAML, id="yaml-in-flow-style"),
            pytest.param(b"a: 1", Form.YAML, id="yaml"),
        ],
    )
    def test_it_is_told_by_how_it_begins(self, data: bytes, form: Form) -> None:
        """Nobody says which it is; both make the same tree."""
        assert read(data) == Documents(form, [{"a": Plain("1")}])

    def test_output_has_the_form_of_the_input(self) -> None:
        """JSON stays JSON, YAML YAML."""
        assert write(read(b'{"a": 1}{"b": 2}')) == '{\n    "a": 1\n}\n{\n    "b": 2\n}\n'
        assert write(read(b"a: 1\n---\nb: 2")) == "a: 1\n---\nb: 2\n"


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            pytest.param(b"", "there is no document in it", id="nothing"),
            pytest.param(b"# only\n---\n", "there is no document in it", id="comments"),
            pytest.param(b"a: 1\n---\nhello", "there is a document that is no mapping", id="text"),
            pytest.param(b"- a", "there is a document that is no mapping", id="list"),
            pytest.param(b"a: 1\nb: \xff", "line 2: it is not UTF-8", id="bytes"),
            pytest.param("a: 1".encode("utf-16"), "line 1: it is not UTF-8", id="utf-16"),
        ],
    )
    def test_what_is_no_mapping_is_refused(self, data: bytes, message: str) -> None:
        """The fact comes with what to pipe in instead."""
        with pytest.raises(InjectError) as caught:
            read(data)
        assert message in str(caught.value)

    def test_size_is_bounded(self) -> None:
        """The limit is taken, a byte more is not."""
        data = b"a: " + b"x" * (LARGEST_INPUT - 3)
        assert len(read(data).roots) == 1
        with pytest.raises(InjectError, match="larger than 8 MiB"):
            read(data + b"x")
