"""Takes the body of an answer apart: server-sent events, or one JSON document from servers that do not stream."""

from collections.abc import Iterator
from typing import Protocol

LONGEST_EVENT = 1_000_000  # bytes; nothing that a model says in one breath comes near it


class UnreadableBodyError(Exception):
    """What came is not the answer of a language model."""

    def __init__(self, words: str, is_web_page: bool = False) -> None:
        super().__init__(words)
        self.is_web_page = is_web_page


class BodyParser(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> Iterator[bytes]: ...


def choose_parser(first_bytes: bytes) -> BodyParser:
    """Look at how the body begins: its Content-Type is wrong too often to be asked."""
    match first_bytes.lstrip()[:1]:
        case b"<":
            raise UnreadableBodyError("a web page", is_web_page=True)
        case b"{":
            return WholeDocument()
        case _:
            return EventParser()


class EventParser:
    """Splits a stream of server-sent events into the data of each, whatever pieces it arrives in."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._data_size = 0
        self._is_first_line = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        if end := _end_of_last_line(data):
            self._rest += data[:end]
            lines, self._rest = bytes(self._rest).splitlines(), bytearray()
            yield from self._read(lines)
        self._rest += data[end:]
        if len(self._rest) + self._data_size > LONGEST_EVENT:
            raise UnreadableBodyError("an event without end")

    def finish(self) -> Iterator[bytes]:
        """Some servers forget the empty line after the last event."""
        yield from self._read([*bytes(self._rest).splitlines(), b""])

    def _read(self, lines: list[bytes]) -> Iterator[bytes]:
        if self._is_first_line:
            self._is_first_line = False
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._data_size += len(line)
            elif not line and self._data:
                data = b"\n".join(self._data)
                self._data, self._data_size = [], 0
                yield data


def _end_of_last_line(data: bytes) -> int:
    """A carriage return at the very end may be half of CRLF, so it has to wait for its other half."""
    return max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1


class WholeDocument:
    """Collects the answer of a server that was asked to stream and sent everything at once instead."""

    def __init__(self) -> None:
        self._document = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._document += data
        if len(self._document) > LONGEST_EVENT:
            raise UnreadableBodyError("a document without end")
        yield from ()

    def finish(self) -> Iterator[bytes]:
        yield bytes(self._document)
