"""HTTP/1.1 with limits for those who send or take nothing: each of them would hold a connection for ever."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 20.0  # for a whole request, from its first byte; for a new connection, from its beginning
READER_SECONDS = 30.0  # for a reader to make room again; who reads an answer can come back and go on
BUFFER_LENGTH = 65_536  # bytes that may wait for one reader here, and as many again in the system


class Protocol(HttpToolsProtocol):
    request_limit: asyncio.TimerHandle | None = None
    reader_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(BUFFER_LENGTH)
        self.expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for limit in (self.request_limit, self.reader_limit):
            if limit:
                limit.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.expect_request()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.request_limit:
            self.request_limit.cancel()

    def expect_request(self) -> None:
        if self.request_limit:
            self.request_limit.cancel()
        self.request_limit = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.reader_limit = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.reader_limit:
            self.reader_limit.cancel()
