"""What is remembered of streams that are over."""

from __future__ import annotations

from sidecar.wire.h2streams import MAX_ENDED, EndedStreams, HowEnded


class TestEndedStreams:
    def test_oldest_end_is_forgotten(self) -> None:
        """However many streams end, only the latest are remembered."""
        ended = EndedStreams()
        for stream_id in range(1, 2 * MAX_ENDED + 3, 2):
            ended.add(stream_id, HowEnded.BY_US)
        assert ended.how(1) is None
        assert ended.how(3) is HowEnded.BY_US
        assert ended.how(2 * MAX_ENDED + 1) is HowEnded.BY_US
