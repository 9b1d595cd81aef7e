"""Whether an answer's cost grows in a straight line: short and long ones, of all that models write.

    uv run benchmarks/long_answers.py          about three minutes

A token is a chunk of four characters. All answers come at the same rate, so a frame has the same number of tokens in a
short answer and in a long one. Counted is what the app spends on a whole answer, from the question to its end, for
one reader of the chat page; a bare app that only passes chunks on is the measure. The command fails where a token of
the longest answer costs over a fifth more than one of the shortest, in bytes or in processor time.
"""

from pathlib import Path
from typing import NamedTuple

from answer_bytes import Question, Reader, check, listen, read_bare, read_page
from servers import (
    describe_machine,
    environment,
    laboratory,
    prepare_site,
    print_table,
    serve_app,
    serve_bare,
    serve_model,
    sign_in,
)
from texts import CHUNK_LENGTH

COUNTS = (500, 2_000, 8_000, 32_000)
REPEATS = (5, 2, 1, 1)  # of each count: the lowest counts, as what else the machine does only adds
RATE = 2_000
LIMIT = 1.2
SECONDS = 900  # after which something is broken
KINDS = {
    "prose": "prose",
    "markdown": "headings, lists, code and tables",
    "code": "one open block of code",
    "data": "one open block of JSON",
    "list": "one endless list",
    "table": "one endless table",
    "paragraph": "one endless paragraph",
}
BARE = "the bare app, prose"


class Cost(NamedTuple):
    """Of a token."""

    cpu: float  # microseconds
    size: float  # bytes for one of text


def main(folder: Path) -> None:
    print(describe_machine())
    with serve_model(folder) as (_, llm):
        env = environment(folder, **llm)
        prepare_site(env)
        with serve_app(env, "--noreload") as app, serve_bare(folder, llm) as bare:
            page, least = read_page(app, sign_in(app)), read_bare(bare)
            for read in (page, least):  # what only the first question pays is not the subject
                read(Question("markdown", 500, RATE))
            costs = {name: measure(page, kind) for kind, name in KINDS.items()}
            costs[BARE] = measure(least, "prose")
    show(costs)


def measure(read: Reader, kind: str) -> list[Cost]:
    costs = []
    for count, repeats in zip(COUNTS, REPEATS, strict=True):
        responses = [listen(read, Question(kind, count, RATE)) for _ in range(repeats)]
        size = len(responses[0].received) / count / CHUNK_LENGTH
        costs.append(Cost(1_000_000 * min(one.cpu[-1][1] for one in responses) / count, size))
    return costs


def show(costs: dict[str, list[Cost]]) -> None:
    bare = costs[BARE][-1]
    rows = []
    for name, of_lengths in costs.items():
        first, last = of_lengths[0], of_lengths[-1]
        cpu = [f"{one.cpu:.0f}" for one in of_lengths]
        sizes = [f"{one.size:.1f}" for one in of_lengths]
        ratios = [f"{last.cpu / first.cpu:.2f}", f"{last.cpu / bare.cpu:.2f}", f"{last.size / first.size:.2f}"]
        rows.append([name, *cpu, *ratios[:2], *sizes, ratios[2]])
    first_count, *others = (f"{count:,}" for count in COUNTS)
    headings = [f"µs a token of {first_count}", *others, "longest / shortest", "longest / bare"]
    print_table(["answer", *headings, f"bytes / text of {first_count}", *others, "longest / shortest"], rows)
    for name, (first, *_, last) in costs.items():
        growth = max(last.cpu / first.cpu, last.size / first.size)
        check(growth <= LIMIT, f"A token of a long answer costs {growth:.2f} times one of a short answer: {name}.")


if __name__ == "__main__":
    with laboratory(SECONDS) as place:
        main(place)
