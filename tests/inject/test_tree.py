"""`sidecar.inject.tree`: looking into what somebody else wrote."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.inject.tree import (
    NULL,
    Branch,
    InjectError,
    Plain,
    Tree,
    branch_at,
    branches_at,
    is_set,
    needed_branch,
    number_at,
    text_at,
)


class TestTexts:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            pytest.param("web", "web", id="text"),
            pytest.param(Plain("8080"), "8080", id="number"),
            pytest.param(NULL, "", id="null"),
            pytest.param([], "", id="list"),
            pytest.param({}, "", id="mapping"),
        ],
    )
    def test_only_scalars_have_a_text(self, value: Tree, text: str) -> None:
        """What is no single value has no text, and is no error here."""
        assert text_at({"key": value}, "key") == text

    def test_what_is_not_there_has_no_text(self) -> None:
        """An absent key is as good as null."""
        assert text_at({}, "key") == ""
        assert not is_set({"key": NULL}, "key")


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "number"),
        [
            pytest.param(Plain("8080"), 8080, id="plain"),
            pytest.param("512", 512, id="quoted"),
            pytest.param(Plain("0"), 0, id="zero"),
            pytest.param(Plain("0644"), None, id="octal-to-some"),
            pytest.param(Plain("1e3"), None, id="float-to-some"),
            pytest.param(Plain("-1"), None, id="negative"),
            pytest.param(Plain("9" * 11), None, id="long"),
            pytest.param("٣", None, id="other-digits"),
            pytest.param(NULL, None, id="null"),
        ],
    )
    def test_only_what_every_reader_takes_for_the_same_number_is_one(self, value: Tree, number: int | None) -> None:
        """A number that is written in a doubtful form counts as none."""
        assert number_at({"key": value}, "key") == number


class TestShapes:
    @pytest.mark.parametrize(
        ("look", "value", "fact"),
        [
            pytest.param(branch_at, "x", "key is a single value, not a mapping", id="text-for-mapping"),
            pytest.param(branch_at, [], "key is a list, not a mapping", id="list-for-mapping"),
            pytest.param(branches_at, {}, "key is a mapping, not a list", id="mapping-for-list"),
            pytest.param(branches_at, [{}, "x"], "key has an entry that is no mapping", id="text-in-list"),
            pytest.param(needed_branch, NULL, "there is no key", id="null-for-mapping"),
        ],
    )
    def test_wrong_shape_is_refused(self, look: Callable[[Branch, str], object], value: Tree, fact: str) -> None:
        """The error names the key and what stands there."""
        with pytest.raises(InjectError) as caught:
            look({"key": value}, "key")
        assert caught.value.fact == fact

    @pytest.mark.parametrize("parent", [{}, {"key": NULL}], ids=["absent", "null"])
    def test_nothing_is_no_error(self, parent: Branch) -> None:
        """An absent list is empty, an absent mapping None."""
        assert branch_at(parent, "key") is None
        assert branches_at(parent, "key") == []


class TestInjectError:
    def test_place_that_is_known_stays(self) -> None:
        """The innermost place counts: it is the most exact."""
        error = InjectError("fact", "fix", "line 3").within("Deployment web")
        assert str(error) == "line 3: fact; fix"
        assert str(InjectError("fact", "fix").within("Deployment web")) == "Deployment web: fact; fix"
