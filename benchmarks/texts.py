"""Texts as people get them from models: the same ones each time, as long as they are wanted."""

import random
from itertools import count

CHUNK_LENGTH = 4
STORY = """The river carries what the rain has taken from the hills and lays it down where water slows, so every bend
keeps a record of the floods before it, sand on clay on gravel, until somebody reads it again."""
WORDS = STORY.lower().replace(",", "").replace(".", "").split()


def make_text(kind: str, length: int, variant: int = 0) -> str:
    """Give the same text each time, cut to a length. Variants have other words."""
    parts = []
    chance = random.Random(f"{kind}{variant or ''}")
    for number in count(1):
        parts.append(PARTS[kind](chance, number))
        if sum(map(len, parts)) >= length:
            return "".join(parts)[:length]
    raise AssertionError


def write_sentence(chance: random.Random, number: int) -> str:
    return " ".join(chance.choices(WORDS, k=14)).capitalize() + ". "


def write_paragraph(chance: random.Random, number: int) -> str:
    return "".join(write_sentence(chance, number) for _ in range(5)).rstrip() + "\n\n"


def write_code(chance: random.Random, number: int) -> str:
    first, second = chance.choices(WORDS, k=2)
    opening = "```python\n" if number == 1 else ""
    return f'{opening}def {first}_{number}(depth: int) -> str:\n    return "{second}" * depth if depth < 9 else ""\n\n'


def write_data(chance: random.Random, number: int) -> str:
    """The worst to colour: nearly each character is a word of its own."""
    opening = "```json\n[\n" if number == 1 else ""
    return f'{opening}  {{"a": {number}, "b": [{number}, {chance.randrange(9)}, {chance.randrange(9)}]}},\n'


def write_item(chance: random.Random, number: int) -> str:
    return f"- **{chance.choice(WORDS).capitalize()}**: {write_sentence(chance, number)}\n"


def write_row(chance: random.Random, number: int) -> str:
    opening = "| River | Sand | Clay |\n|---|---|---|\n" if number == 1 else ""
    return f"{opening}| {' | '.join(' '.join(chance.choices(WORDS, k=3)) for _ in range(3))} |\n"


def write_section(chance: random.Random, number: int) -> str:
    """What models like best: a heading, a paragraph, a list, code and a table."""
    items = "".join(write_item(chance, n) for n in range(4))
    code = "".join(write_code(chance, n) for n in range(1, 5))
    rows = "".join(write_row(chance, n) for n in range(1, 5))
    return f"## Bend {number}\n\n{write_paragraph(chance, number)}{items}\n{code}```\n\n{rows}\n"


PARTS = {
    "prose": write_paragraph,
    "markdown": write_section,
    "paragraph": write_sentence,
    "code": write_code,
    "data": write_data,
    "table": write_row,
    "list": write_item,
}
