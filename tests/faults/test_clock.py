"""A worker whose clock is wrong, or jumps: leases go by the database's clock, and pauses by one that never jumps."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.conftest import API, Client, StartWorker, begin, script
from tests.faults.test_workers import follow, start_answer
from tests.services import miss

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: LD_PRELOAD")]

HOUR = 3600


@pytest.fixture
def clock() -> dict[str, str]:
    """The environment of a process with a wrong clock, but for how wrong it is."""
    import libfaketime

    library = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
    # Pauses and time limits go by the monotonic clock. No setting of a machine's time changes that one.
    environment = {"LD_PRELOAD": str(library), "DONT_FAKE_MONOTONIC": "1", "FAKETIME_CACHE_DURATION": "1"}
    if abs(read_clock(environment, FAKETIME=f"+{HOUR}") - time.time() - HOUR) > 60:
        miss(f"libfaketime does not work on this machine ({os.uname().machine}); its wheel is for x86_64 and glibc.")
    return environment


def read_clock(environment: dict[str, str], **more: str) -> float:
    command = [sys.executable, "-c", "import time; print(time.time())"]
    return float(subprocess.run(command, env=environment | more, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("hour", ["+3600", "-3600"])
async def test_f30_workers_whose_clocks_differ_leave_each_others_answers_alone(
    ada_anywhere: Client, start_worker: StartWorker, clock: dict[str, str], database_url: str, hour: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has no clock but its process's; workers on several machines share a PostgreSQL")
    right, wrong = start_worker(), start_worker(FAKETIME=hour, **clock)
    asked = [await start_answer(ada_anywhere, worker, count=200, rate=25) for worker in (right, wrong)]
    others = [await ada_anywhere.at(worker) for worker in (wrong, right)]
    following = [
        asyncio.create_task(follow(ada_anywhere, worker, answer))
        for worker, (answer, _) in zip((wrong, right), asked, strict=True)
    ]
    while not all(one.done() for one in following):
        for client in others:  # whoever asks for anything ends what he takes for abandoned
            assert (await client.get(f"{API}/conversations")).status_code == 200
        await asyncio.sleep(0.2)
    for one in following:
        end = one.result()[-1].data
        assert end["status"] == "done" and len(end["message"]["text"]) == 800


@pytest.mark.parametrize("hour", ["+3600", "-3600"])
async def test_f30_a_clock_that_jumps_in_mid_answer_ends_nothing(
    ada_anywhere: Client, start_worker: StartWorker, clock: dict[str, str], tmp_path: Path, hour: str
) -> None:
    """On SQLite the process's clock is the database's, too: leases seem to be over, but their owner is alive."""
    setting = tmp_path / "clock"
    setting.write_text("+0")
    worker = start_worker(FAKETIME_TIMESTAMP_FILE=str(setting), **clock)
    client = await ada_anywhere.at(worker)
    answer, _ = await start_answer(ada_anywhere, worker, count=200, rate=25)
    following = asyncio.create_task(follow(ada_anywhere, worker, answer))
    await asyncio.sleep(1)
    setting.write_text(hour)
    while not following.done():
        assert (await client.get(f"{API}/conversations")).status_code == 200
        await asyncio.sleep(0.2)
    end = following.result()[-1].data
    assert end["status"] == "done" and len(end["message"]["text"]) == 800
    path = await begin(client)
    assert (await client.post(path, json=script(count=1))).json()["status"] == "done"
    created_at = (await client.get(path)).json()["items"][0]["created_at"]
    assert abs(datetime.fromisoformat(created_at).timestamp() - time.time() - int(hour)) < 60
