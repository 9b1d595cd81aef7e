"""The servers of the tests are as strict as those of hosts: else the suites behind them would prove little."""

from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.postgres import show


@pytest.fixture
def strict_url(request: pytest.FixtureRequest, new_database: Callable[[], str]) -> str:
    if request.config.getoption("--database") not in ("postgresql", "pgbouncer"):
        pytest.skip("This is about the servers of --database postgresql and pgbouncer")
    return new_database()


def test_they_refuse_whoever_comes_without_tls(strict_url: str) -> None:
    plain = show(make_url(strict_url).update_query_dict({"sslmode": "disable"}))
    with pytest.raises(psycopg.OperationalError, match=r"SSL required|no encryption"):
        psycopg.connect(plain)


def test_they_refuse_a_wrong_password(strict_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(show(make_url(strict_url).set(password="p+/w")))


def test_a_pooler_lends_connections_by_transaction(request: pytest.FixtureRequest, strict_url: str) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(psycopg.connect(strict_url, autocommit=True)) for _ in range(2)]
        for client in clients:
            client.execute("BEGIN")  # both at once, so a pooler needs two
        for client in clients:
            client.execute("COMMIT")
        backends = {clients[0].execute("SELECT pg_backend_pid()").fetchone() for _ in range(4)}
    assert len(backends) == (2 if request.config.getoption("--database") == "pgbouncer" else 1)
