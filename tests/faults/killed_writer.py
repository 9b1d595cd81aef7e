"""Asks and answers on one SQLite file, in one process after the other; each is killed in the midst of it.

    python -m tests.faults.killed_writer db.sqlite3 200

The last line says as JSON what the killed ones had been sure of: the text of each question by its id, and how many
characters of its answer were shown. Forking a process that has imported the app takes no second each time.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time

from pydantic import SecretStr
from sqlmodel import select

from app.auth.models import User
from app.chat import service
from app.chat.answers import Answers
from app.chat.running import Part
from app.database import Database
from app.llm.scripted import ScriptedModel
from app.settings import Settings

AT_ONCE = 3
WORDS = [f"{number:03d} " for number in range(20)]
LONGEST_LIFE = 0.1  # seconds after its first question


def main(path: str, count: int) -> None:
    chance = random.Random(23)
    asked: dict[str, str] = {}
    shown: dict[str, int] = {}
    for number in range(count):
        for line in run_until_killed(path, f"{number}", chance.uniform(0, LONGEST_LIFE)):
            question_id, length, text = line.split(" ", 2)
            asked[question_id] = text
            shown[question_id] = int(length)
    print(json.dumps([asked, shown]))


def run_until_killed(path: str, name: str, seconds: float) -> list[str]:
    """Give the lines that the child wrote before it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        asyncio.run(write(path, name, writing))
    os.close(writing)
    with os.fdopen(reading) as lines:
        said = [lines.readline()]
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said += lines.readlines()
    return [line.rstrip("\n") for line in said]


async def write(path: str, name: str, output: int) -> None:
    database = Database(Settings(database_url=SecretStr(f"sqlite:///{path}")))
    answers = Answers(database, ScriptedModel(*WORDS, delay=0.001), "", 60)
    async with database.session(reading=True) as session:
        owner = (await session.exec(select(User))).one()

    async def ask(number: int) -> None:
        text = f"{name} {number}"
        async with database.session() as session:
            asked = await service.ask(session, owner, None, text, text, **answers.take_on())
        length = 0
        os.write(output, f"{asked.question.id} {length} {text}\n".encode())
        answers.start(asked)
        async for part in answers.read(asked.answer.id):
            if isinstance(part, Part):
                os.write(output, f"{asked.question.id} {part.sequence} {text}\n".encode())

    async def keep_asking(first: int) -> None:
        for number in range(first, 1_000_000, AT_ONCE):
            await ask(number)

    await asyncio.gather(*(keep_asking(first) for first in range(AT_ONCE)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
