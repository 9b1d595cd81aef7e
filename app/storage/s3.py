"""Files in a bucket of any server that speaks S3: AWS, R2, MinIO, a host's own object storage.

The bucket stays private: its addresses are given to nobody. The client is imported at the first file.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from app.storage import StorageError

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

log = logging.getLogger(__name__)

SECONDS = 15  # for one request, its repetitions included, or for one piece of a file
RETRIES = 2
PIECE_LENGTH = 64 * 1024
AWAY = "The place where this site keeps files does not answer as it should. Nothing is lost: try again in a moment."


class S3Storage:
    fault: str | None = None

    def __init__(
        self, bucket: str, folder: str, *, endpoint: str, region: str, access_key: str, secret_key: str
    ) -> None:
        self.bucket = bucket
        self.folder = folder
        self.endpoint = endpoint
        self.region = region
        self.credential: S3Credential = {
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "token": None,
            "expires_at": None,
        }

    @cached_property
    def store(self) -> "S3Store":
        from obstore.store import S3Store

        return S3Store(
            self.bucket,
            prefix=self.folder or None,
            endpoint=self.endpoint or f"https://s3.{self.region}.amazonaws.com",
            region=self.region,
            virtual_hosted_style_request=False,
            # What is not said here the client takes from AWS_..., which some hosts fill for themselves.
            skip_signature=False,
            credential_provider=lambda: self.credential,
            client_options={
                "allow_http": self.endpoint.startswith("http://"),
                "connect_timeout": "3s",
                "read_timeout": f"{SECONDS}s",
                "timeout": "10m",  # of a whole file: a reader may be slow
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=SECONDS)},
        )

    async def save(self, key: UUID, content: bytes) -> None:
        import obstore

        try:
            async with speak_plainly():
                await obstore.put_async(self.store, str(key), content, use_multipart=False)
        except FileNotFoundError as error:  # no such bucket
            log.error("The bucket %s is not there (UPLOADS)", self.bucket)
            raise StorageError(AWAY) from error

    async def read(self, key: UUID) -> AsyncGenerator[bytes, None]:
        import obstore

        async with speak_plainly():
            found = await obstore.get_async(self.store, str(key))
        pieces = found.stream(PIECE_LENGTH)
        while True:
            async with speak_plainly():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield bytes(piece)

    async def delete(self, key: UUID) -> None:
        import obstore

        async with speak_plainly():
            with suppress(FileNotFoundError):
                await obstore.delete_async(self.store, str(key))

    async def exists(self, key: UUID) -> bool:
        import obstore

        async with speak_plainly():
            try:
                await obstore.head_async(self.store, str(key))
            except FileNotFoundError:
                return False
        return True


@asynccontextmanager
async def speak_plainly() -> AsyncIterator[None]:
    """Whatever goes wrong out there is one sentence here, and soon. The log gets the client's own words."""
    from obstore.exceptions import BaseError

    try:
        async with asyncio.timeout(SECONDS):
            yield
    except (BaseError, TimeoutError) as error:
        first_line = str(error).partition("\n")[0]
        log.error("The bucket does not answer as it should: %s: %s", type(error).__name__, first_line)
        raise StorageError(AWAY) from error
