import pytest

from app.llm.sse import LONGEST_EVENT, BodyParser, EventParser, UnreadableBodyError, WholeDocument, choose_parser

STREAM = 'data: {"a": "é😀"}\r\n\r\n: comment\r\n\r\ndata:no space\n\ndata: two\rdata: lines\r\revent: x\nid: 1\n\n'
EVENTS = ['{"a": "é😀"}', "no space", "two\nlines"]


def read(pieces: list[bytes]) -> list[str]:
    parser = EventParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [event.decode() for event in (*events, *parser.finish())]


def test_events_do_not_depend_on_where_the_network_cuts_them() -> None:
    body = STREAM.encode()
    for size in range(1, len(body)):
        assert read([body[start : start + size] for start in range(0, len(body), size)]) == EVENTS
        assert read([body[:size], body[size:]]) == EVENTS


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert read([b"\xef\xbb\xbfdata: first\n\n"]) == ["first"]


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert read([b"data: first\n\ndata: [DONE]"]) == ["first", "[DONE]"]


def test_only_one_space_belongs_to_the_format() -> None:
    assert read([b"data:  indented\n\n"]) == [" indented"]


@pytest.mark.parametrize("piece", [b"x" * 10_000, b"data: x\n" * 1_000, b"data: " + b"x" * 10_000])
def test_an_endless_event_is_refused_before_it_fills_the_memory(piece: bytes) -> None:
    with pytest.raises(UnreadableBodyError):
        feed_without_end(EventParser(), piece)


def test_an_endless_document_is_refused_too() -> None:
    with pytest.raises(UnreadableBodyError):
        feed_without_end(WholeDocument(), b"x" * 10_000)


def feed_without_end(parser: BodyParser, piece: bytes) -> None:
    for _ in range(2 * LONGEST_EVENT // len(piece)):
        assert not list(parser.feed(piece))


def test_the_first_bytes_tell_what_a_body_is() -> None:
    assert isinstance(choose_parser(b"data: {}"), EventParser)
    assert isinstance(choose_parser(b": comment"), EventParser)
    assert isinstance(choose_parser(b' {"choices": []}'), WholeDocument)
    with pytest.raises(UnreadableBodyError) as error:
        choose_parser(b"\n<!doctype html>")
    assert error.value.is_web_page
