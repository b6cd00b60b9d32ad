"""Frames that are cut out of a byte stream."""

from __future__ import annotations

import pytest

from shared.sse import FrameReader

FRAME = b"id: 1\nevent: x\ndata: " + b"y" * 50 + b"\n\n"


def test_a_frame_that_does_not_end_is_held_up_to_the_bound_and_no_further() -> None:
    reader = FrameReader(max_bytes=len(FRAME))
    for byte in FRAME[:-1]:
        assert reader.feed(bytes([byte])) == []
    assert [frame.data for frame in reader.feed(FRAME[-1:])] == [b"y" * 50]
    reader.feed(FRAME[:-2] + b"y" * 2)
    with pytest.raises(ValueError, match=f"longer than {len(FRAME)} bytes"):
        reader.feed(b"y")


def test_whole_frames_are_no_matter_of_the_bound() -> None:
    assert len(FrameReader(max_bytes=len(FRAME)).feed(FRAME * 100 + FRAME[:-2])) == 100
