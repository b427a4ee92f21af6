"""
Beside nginx, haproxy and Envoy: what we forward is what was sent, is nothing that two of them refuse, and every
difference to any of them is explained in `differences.md`.

``python -m tests.conformance`` prints what is compared here.
"""

from __future__ import annotations

import functools
import os
from typing import Final

import pytest

from tests.conformance import differences, matrix, proxies
from tests.conformance.corpus import INPUTS
from tests.conformance.lab import Verdict
from tests.conformance.strict import read_all

TABLE: Final = differences.read(differences.FILE.read_text())

every_input = pytest.mark.parametrize("input_id", INPUTS)


@functools.cache
def peers() -> dict[str, proxies.Installed]:
    """The peers that are here."""
    return {name: installed for name in proxies.PEER_NAMES if (installed := proxies.find(name)) is not None}


def compared() -> list[str]:
    """The peers whose every word is compared: those of the version that the table was made with."""
    return [name for name, peer in peers().items() if peer.version == TABLE.versions[name]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> matrix.Matrix:
    """What each proxy that is here does with every input."""
    programs = {"sidecar": ""} | {name: peer.program for name, peer in peers().items()}
    inputs = {input_id: matrix.whole(data) for input_id, data in INPUTS.items()}
    return matrix.run(programs, inputs, tmp_path_factory.mktemp("proxies"))


@pytest.fixture(scope="module")
def results_in_pieces(tmp_path_factory: pytest.TempPathFactory) -> matrix.Matrix:
    """What we do with every input if its first head comes alone, and is forwarded before the rest is there."""
    inputs = {input_id: matrix.behind_head(data) for input_id, data in INPUTS.items()}
    return matrix.run({"sidecar": ""}, inputs, tmp_path_factory.mktemp("in-pieces"))


@pytest.mark.parametrize("name", proxies.PEER_NAMES)
class TestPeers:
    def test_peer_is_installed(self, name: str) -> None:
        """A comparison without one of its peers says so; where TESTS_REQUIRE_PEERS is set, it fails."""
        if name in peers():
            return
        notice = f"{name} is not installed: nothing is compared with it"
        assert not os.environ.get("TESTS_REQUIRE_PEERS"), notice
        pytest.skip(notice)

    def test_version_is_the_one_of_the_table(self, name: str) -> None:
        """The words of a peer are those of one version; those of another one are not compared."""
        if name in peers() and name not in compared():
            here, there = peers()[name].version, TABLE.versions[name]
            pytest.skip(f"{name} is {here}, differences.md is of {there}: not compared word by word")


class TestForwarding:
    @every_input
    def test_what_is_forwarded_is_what_was_sent(self, results: matrix.Matrix, input_id: str) -> None:
        """The app reads, in our forwarding, the requests that the client framed, in order, and nothing else."""
        _check_forwarded(results["sidecar"][input_id], INPUTS[input_id])

    @every_input
    def test_what_is_forwarded_in_pieces_is_what_was_sent(
        self, results_in_pieces: matrix.Matrix, input_id: str
    ) -> None:
        """So it does where we begin to forward a request whose rest turns out to be malformed."""
        _check_forwarded(results_in_pieces["sidecar"][input_id], INPUTS[input_id])

    @every_input
    def test_forwards_nothing_that_two_peers_refuse(self, results: matrix.Matrix, input_id: str) -> None:
        """What two of three others refuse we refuse too, or differences.md says why not."""
        if len(peers()) < len(proxies.PEER_NAMES):
            pytest.skip("not all peers are installed")
        count = len(results["sidecar"][input_id].seen.requests)
        refusing = [name for name in peers() if _refused_before(results[name][input_id], count)]
        is_excused = any(row.is_alone for row in TABLE.rows_for(input_id))

        assert (len(refusing) > 1) is is_excused, refusing


class TestDifferences:
    @every_input
    def test_every_input_is_treated_as_the_table_says(self, results: matrix.Matrix, input_id: str) -> None:
        """All treat an input alike, or each as the row says that names it; a row that is not true any more fails."""
        words = {name: matrix.word(results[name][input_id], INPUTS[input_id]) for name in ("sidecar", *compared())}
        rows = TABLE.rows_for(input_id)
        expected = rows[0].words if rows else dict.fromkeys(words, (words["sidecar"],))

        assert not [
            f"{name} {word}, not {expected[name]}" for name, word in words.items() if word not in expected[name]
        ]

    def test_every_row_names_inputs_that_there_are(self) -> None:
        """A row names inputs of the corpus, and no input stands in two rows."""
        assert not TABLE.unused_patterns(INPUTS)
        assert not [input_id for input_id in INPUTS if len(TABLE.rows_for(input_id)) > 1]

    def test_every_row_is_a_difference_with_a_reason(self) -> None:
        """A row in which all proxies do the same explains nothing."""
        assert not [row for row in TABLE.rows if len(set(row.words.values())) == 1 or not row.reason]

    def test_versions_of_all_peers_are_recorded(self) -> None:
        """The table says what it was made with."""
        assert set(TABLE.versions) == set(proxies.PEER_NAMES)


def _check_forwarded(ours: Verdict, data: bytes) -> None:
    sent = read_all(data)
    got = ours.seen.requests

    assert not ours.seen.malformed
    assert matrix.is_beginning(got, sent), got
    assert [one.framing for one in got if one.body] == [one.framing for one in sent[: len(got)] if one.body]
    assert ours.next_client_is_well
    assert ours.has_let_go


def _refused_before(verdict: Verdict, count: int) -> bool:
    """Whether a proxy refused, having forwarded fewer than *count* requests."""
    has_refused = any(status >= 400 for status in verdict.statuses) or (verdict.is_closed and not verdict.statuses)
    return has_refused and len(verdict.seen.requests) < count
