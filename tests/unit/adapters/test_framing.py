"""Lines of byte streams: on newlines only, at their true place, in bounded memory."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.adapters.base import STDERR, STDOUT
from executor.adapters.framing import HEAD_BYTES, Framed, Line, Lines, LineTooLong

LIMIT = 8


def framed(pieces: list[bytes], limit: int = LIMIT) -> list[Framed]:
    lines = Lines(limit)
    return [line for piece in pieces for line in lines.feed(STDOUT, piece)] + lines.end_of(STDOUT)


def test_a_line_knows_where_its_bytes_stand() -> None:
    assert framed([b"one\ntwo"]) == [Line(STDOUT, b"one", 0, 3), Line(STDOUT, b"two", 4, 7)]


def test_only_a_newline_ends_a_line() -> None:
    text = "a\u2028b\x0bc\rd".encode()
    assert framed([text + b"\n"], limit=99) == [Line(STDOUT, text, 0, len(text))]


def test_a_line_of_exactly_the_bound_is_kept_and_one_byte_more_is_not() -> None:
    assert framed([b"12345678\n123456789\nx\n"]) == [
        Line(STDOUT, b"12345678", 0, 8),
        LineTooLong(STDOUT, 9, 9, 18),
        Line(STDOUT, b"x", 19, 20),
    ]


def test_a_line_too_long_is_reported_once_even_when_the_stream_ends_in_it() -> None:
    assert framed([b"x" * 5, b"x" * 5, b"x" * 5]) == [LineTooLong(STDOUT, 15, 0, 15)]


def test_nothing_beyond_the_bound_is_held() -> None:
    lines = Lines(LIMIT)
    for _ in range(1000):
        assert lines.feed(STDOUT, b"xxxx") == []
    assert sum(map(len, lines._positions[STDOUT].kept)) == HEAD_BYTES
    [lost] = lines.feed(STDOUT, b"\n")
    assert isinstance(lost, LineTooLong)
    assert (lost, lost.head) == (LineTooLong(STDOUT, 4000, 0, 4000), b"x" * HEAD_BYTES)


def test_streams_do_not_mix() -> None:
    lines = Lines()
    assert lines.feed(STDOUT, b"ou") == []
    assert lines.feed(STDERR, b"err\n") == [Line(STDERR, b"err", 0, 3)]
    assert lines.feed(STDOUT, b"t\n") == [Line(STDOUT, b"out", 0, 3)]


def test_a_stream_that_ends_with_a_newline_or_never_began_has_no_last_line() -> None:
    assert framed([b"a\n"]) == [Line(STDOUT, b"a", 0, 1)]
    assert Lines().end_of(STDOUT) == []


@given(st.binary(max_size=60).map(lambda data: data.replace(b"\x00", b"\n")), st.lists(st.integers(0, 60)))
def test_any_split_gives_the_same_lines_and_every_span_is_true(data: bytes, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(borders)]
    whole = framed([data])
    assert framed(pieces) == whole
    for line in whole:
        cut = data[line.byte_from : line.byte_to]
        assert (cut == line.data) if isinstance(line, Line) else (len(cut) == line.length)


@pytest.mark.parametrize("count", [1, 3])
def test_blank_lines_are_lines(count: int) -> None:
    assert [line.byte_from for line in framed([b"\n" * count])] == list(range(count))
