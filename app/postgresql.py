"""How we talk to PostgreSQL, so that neither a pooler in front of it nor a server that falls silent can hurt."""

import asyncio
import socket
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.abc import RV, PQGen
from sqlalchemy import Engine, event


def connect_options(seconds: int) -> dict[str, Any]:
    """What every connection of ours asks for, in psycopg's and libpq's words."""
    return {
        # A pooler in front of PostgreSQL mixes up server-side prepared statements: None switches them off.
        "prepare_threshold": None,
        "connect_timeout": seconds,
        # Whose machine is gone is noticed, though nothing says so.
        "tcp_user_timeout": 20_000,
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def is_pooled(connection: Connection[Any]) -> bool:
    """Whether a pooler stands in between: it makes up the process number that it names to its clients."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid


class PatientConnection(AsyncConnection[Any]):
    """Waits so long for an answer, and hangs up then.

    PostgreSQL ends statements that take too long. But one that is frozen, or a pooler that has lost it, keeps the
    connection alive and never answers.
    """

    patience = 5.0

    async def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
        # The timer runs on while a cancelled statement is waited for, too.
        timer = asyncio.get_running_loop().call_later(self.patience, self.hang_up)
        try:
            return await super().wait(gen, *arguments, **options)
        finally:
            timer.cancel()

    def hang_up(self) -> None:
        """Close the line below libpq, which then reports a lost connection as it would any other."""
        with socket.socket(fileno=self.pgconn.socket) as line:
            try:
                line.shutdown(socket.SHUT_RDWR)
            finally:
                line.detach()


def limit_patience(engine: Engine, idle: float, busy: float) -> None:
    """Be less patient with a connection from the pool that is only asked whether it lives."""

    def be_patient(connection: Any, *_: object) -> None:
        connection.driver_connection.patience = busy

    def be_impatient(connection: Any, *_: object) -> None:
        if connection:  # None where it was lost
            connection.driver_connection.patience = idle

    event.listen(engine, "checkout", be_patient)
    event.listen(engine, "checkin", be_impatient)
