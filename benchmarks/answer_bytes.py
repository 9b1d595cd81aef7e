"""What an answer costs on its way to a reader: bytes, as a multiple of the text's, and the app's processor time.

    uv run benchmarks/answer_bytes.py          less than two minutes

A scripted model says its text in chunks of four characters, 500 in a second, each in an event of its own, as OpenAI
does. The app is a real `oppman.py runserver` with its own SQLite file; the reader is signed in and reads the events
of the chat page, or of the JSON API. All bytes of the response count, its headers and chunk sizes, too.

Each event says in its id how much of the answer is there, so one answer of 4,000 chunks shows how the costs grow.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from servers import (
    FORM,
    Response,
    Server,
    ask,
    describe_machine,
    environment,
    laboratory,
    note,
    prepare_site,
    print_table,
    serve_app,
    serve_bare,
    serve_model,
    sign_in,
)
from texts import CHUNK_LENGTH, make_text

COUNTS = (500, 1000, 2000, 4000)
RATE = 500
SLOW_RATE, SLOW_COUNT = 50, 500
LIMIT = 12  # what we promise: so many bytes for one of text, at most
REPEATS = 2  # the lowest of so many counts: what else the machine does only adds
SECONDS = 240  # after which something is broken
EVENTS = {"Accept": "text/event-stream"}
KINDS = {
    "prose": "prose",
    "markdown": "headings, lists, code and tables",
    "paragraph": "one endless paragraph",
    "code": "one endless block of code",
    "data": "one endless block of JSON",
    "table": "one endless table",
}


class Question(NamedTuple):
    kind: str
    chunks: int = COUNTS[-1]
    rate: int = RATE

    def __str__(self) -> str:
        return "SCRIPT: text " + json.dumps({"kind": self.kind, "count": self.chunks, "rate": self.rate})

    @property
    def text(self) -> str:
        return make_text(self.kind, self.chunks * CHUNK_LENGTH)


class Cost(NamedTuple):
    """Of an answer, or of its beginning."""

    chunks: float
    size: int
    cpu: float

    @property
    def ratio(self) -> str:
        return f"{self.size / self.chunks / CHUNK_LENGTH:.1f}"

    @property
    def cpu_per_chunk(self) -> str:
        return f"{1_000_000 * self.cpu / self.chunks:.0f}"


Reader = Callable[[Question], Response]


def main(folder: Path) -> None:
    print(describe_machine())
    with serve_model(folder) as (_, llm):
        env = environment(folder, **llm)
        prepare_site(env)
        with serve_app(env, "--noreload") as app, serve_bare(folder, llm) as bare:
            cookie = sign_in(app)
            page, api, least = read_page(app, cookie), read_api(app, cookie), read_bare(bare)
            for read in (page, api, least):  # what only the first question pays is not the subject
                read(Question("markdown", 100))
            highest = compare_texts(page)
            compare_readers({"HTML, as the page reads": page, "JSON, as programs read": api, "the bare app": least})
    check(highest <= LIMIT, f"We promise {LIMIT} bytes for one of text at most, and here were {highest}.")


def compare_texts(read: Reader) -> float:
    """Show how bytes and processor time grow with the answer, whatever it is made of; give the highest ratio."""
    rows, highest = [], 0.0
    for kind, name in KINDS.items():
        response = listen(read, Question(kind))
        costs = [read_costs(response, count) for count in COUNTS]
        highest = max(highest, float(costs[-1].ratio))
        cpu = [f"{cost.cpu:.2f}" for cost in costs[1:]]
        rows.append([name, *(cost.ratio for cost in costs), *cpu, costs[-1].cpu_per_chunk])
    slow = read_costs(listen(read, Question("prose", SLOW_COUNT, SLOW_RATE)), SLOW_COUNT)
    rows.append([f"prose, {SLOW_RATE} chunks a second", slow.ratio, "", "", "", "", "", "", slow.cpu_per_chunk])
    first, *others = (f"{count:,}" for count in COUNTS)
    headings = [f"bytes / text at {first} chunks", *others, f"CPU s at {others[0]}", *others[1:], "µs a chunk"]
    print_table(["the page's answer", *headings], rows)
    return highest


def compare_readers(readers: dict[str, Reader]) -> None:
    """The same answer in our two forms, and passed on by an app that does nothing else."""
    question = Question("prose")
    best: dict[str, Cost] = {}
    events = {}
    for _ in range(REPEATS):
        for name, read in readers.items():
            response = listen(read, question)
            cost = read_costs(response, question.chunks)
            best[name] = min(cost, best.get(name, cost), key=lambda one: one.cpu)
            events[name] = response.body.count(b"\n\n")
    bare = list(best.values())[-1]
    rows = [
        [name, cost.ratio, events[name], f"{cost.cpu:.2f}", cost.cpu_per_chunk, f"{cost.cpu / bare.cpu:.2f}"]
        for name, cost in best.items()
    ]
    count = f"{question.chunks:,} chunks of prose"
    print_table([count, "bytes / text", "events", "CPU s", "µs a chunk", "CPU / bare app"], rows)


def listen(read: Reader, question: Question) -> Response:
    start = time.monotonic()
    response = read(question)
    note(f"{question}: {time.monotonic() - start:.1f} s")
    return response


def read_costs(response: Response, count: int) -> Cost:
    """Give what the answer had cost when the reader had so many chunks of it."""
    for event in re.finditer(rb"id: (\d+)\nevent: (patch|piece)\n.+\n\n", response.received):
        if int(event[1]) >= count * CHUNK_LENGTH and count < COUNTS[-1]:
            cpu = next(seconds for size, seconds in response.cpu if size >= event.end())
            return Cost(int(event[1]) / CHUNK_LENGTH, event.end(), cpu)
    return Cost(count, *response.cpu[-1])


def read_page(server: Server, cookie: str) -> Reader:
    """Asks as the chat page does, and gets HTML."""

    def read(question: Question) -> Response:
        form = urlencode({"text": str(question)}).encode()
        response = ask(server, "POST", "/chat", form, {"Cookie": cookie, "Content-Type": FORM, **EVENTS})
        check(b'"status":"done"' in response.body, "The page's answer did not end well.")
        return response

    return read


def read_api(server: Server, cookie: str) -> Reader:
    """Asks as a program does, and gets pieces of text."""
    headers = {"Cookie": cookie, "Content-Type": "application/json"}

    def read(question: Question) -> Response:
        conversation = json.loads(ask(server, "POST", "/api/v1/conversations", b"{}", headers).body)["id"]
        body = json.dumps({"content": str(question)}).encode()
        path = f"/api/v1/conversations/{conversation}/messages"
        response = ask(server, "POST", path, body, headers | EVENTS)
        datas = [json.loads(line[6:]) for line in response.body.splitlines() if line.startswith(b"data: ")]
        check("".join(data.get("text", "") for data in datas) == question.text, "The API's pieces are not the text.")
        return response

    return read


def read_bare(server: Server) -> Reader:
    return lambda question: ask(server, "POST", "/", str(question).encode())


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(otherwise)


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place)
