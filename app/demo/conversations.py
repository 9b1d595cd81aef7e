"""Ada's conversations, written by hand: they show what Markdown looks like, and are worth reading."""

from typing import NamedTuple


class Example(NamedTuple):
    title: str
    exchanges: tuple[tuple[str, str], ...]  # question and answer


WELCOME = Example(
    "What can I do here?",
    (
        (
            "What can I do here?",
            """\
This is a chat that keeps its word: **an answer belongs to the database, not to the page**. Try it:

1. Ask something long, and close the tab while the answer is being written.
2. Open the conversation again. The answer went on without you.
3. Press *Stop*. What has been written stays.

| You want to | Do this |
| --- | --- |
| send a message | `Enter` |
| begin a new line | `Shift` + `Enter` |
| stop an answer | `Escape`, or the Stop button |
| see another answer to the same question | the arrow under the last answer |
| keep a block of code | the Copy button at its corner |

Titles come from your first question. You can rename or delete a conversation in its menu.

> This text was written by hand, as the line below it says. What you ask goes to a real language model.
""",
        ),
        (
            "Which model answers me?",
            """\
Its name stands under each answer. Without any setting it is a **small demo model** that runs on this machine: quick, \
private, and unreliable on facts.

For a better one put two or three lines into `.env`, and restart:

```ini
# OpenRouter: one key, many models
OPENROUTER_API_KEY=sk-or-...
LLM_MODEL=openrouter/auto

# or any server that speaks OpenAI's chat completions, such as Ollama
LLM_BASE_URL=http://localhost:11434/v1
LLM_MODEL=llama3.2
```

Only one of the two is needed. The key stays on the server; it is never sent to the browser.
""",
        ),
    ),
)

FEATURE = Example(
    "Adding a feature of my own",
    (
        (
            "I want to add notes to this project. Where does each part go?",
            """\
One word names a feature everywhere. For notes:

| File | Holds |
| --- | --- |
| `app/notes/models.py` | the table |
| `app/notes/service.py` | what the app does with notes |
| `app/notes/routes.py` | what the browser may ask |
| `templates/notes/` | the pages |
| `tests/notes/` | the tests |

Begin with the table, because everything else speaks of it:

```python
from uuid import UUID, uuid4

from sqlmodel import Field, SQLModel


class Note(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: UUID = Field(foreign_key="person.id", ondelete="CASCADE", index=True)
    text: str = Field(max_length=2000)
```

Import it in `app/models.py`, then let the project write the migration:

```bash
python oppman.py makemigrations
python oppman.py migrate
```
""",
        ),
        (
            "And how do I make sure that nobody sees the notes of others?",
            """\
Let **every query start from its owner**. Then there is no second step that could be forgotten:

```python
async def get_note(session: AsyncSession, owner: User, note_id: UUID) -> Note | None:
    mine = select(Note).where(Note.owner_id == owner.id)
    return (await session.exec(mine.where(Note.id == note_id))).first()
```

- The route turns `None` into **404**, so a stranger cannot even learn that the note exists.
- Write the test first: *Ada owns the note, Bob must not see it.*
- A list works the same way: begin with `mine`, then filter and sort.
""",
        ),
    ),
)

SQL = Example(
    "Counting messages per day in SQL",
    (
        (
            "How do I count the messages of the last seven days, per day, with zero for days without any?",
            """\
`GROUP BY` alone leaves out empty days, so make the days first and join the messages to them. In PostgreSQL:

```sql
SELECT day::date, count(message.id) AS messages
FROM generate_series(current_date - 6, current_date, interval '1 day') AS day
LEFT JOIN message
       ON message.created_at >= day
      AND message.created_at <  day + interval '1 day'
GROUP BY day
ORDER BY day;
```

Three things make it right:

1. **`LEFT JOIN`** keeps the days that have no message.
2. **`count(message.id)`** counts only rows that exist; `count(*)` would say 1 for an empty day.
3. **A half-open range** (`>=` and `<`) counts a message at midnight once, and can use an index on `created_at`.

| day | messages |
| --- | ---: |
| 2026-03-02 | 14 |
| 2026-03-03 | 0 |
| 2026-03-04 | 9 |

Days begin at midnight in the session's time zone. For another one: `SET TIME ZONE 'Europe/London';`
""",
        ),
    ),
)

BREAD = Example(
    "A simple bread for tomorrow",
    (
        (
            "I have flour, salt, water and dry yeast. Can I have bread for breakfast without kneading?",
            """\
Yes: time does the kneading. Mix it tonight, bake it tomorrow.

| Ingredient | Weight | Share of the flour |
| --- | ---: | ---: |
| Flour | 500 g | 100 % |
| Water, cool | 375 g | 75 % |
| Salt | 10 g | 2 % |
| Dry yeast | 1 g (¼ teaspoon) | 0.2 % |

**Tonight, five minutes**

1. Stir everything until no dry flour is left.
2. Cover the bowl and leave it at room temperature for 12 hours.

**Tomorrow, an hour and a half**

1. Fold the dough over itself a few times on a floured board. Let it rest for 30 minutes.
2. Heat the oven to 240 °C with a lidded iron pot inside.
3. Bake for 30 minutes with the lid on, then 15 minutes without it.
4. Let it cool for half an hour. It is still setting inside.

> *No pot?* Bake on a hot tray, and put a dish of boiling water underneath for the first 15 minutes.
""",
        ),
    ),
)

CONVERSATIONS = (WELCOME, FEATURE, SQL, BREAD)  # the latest one first
