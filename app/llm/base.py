"""What a language model is to the rest of the app: turns go in, pieces of text come out."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Literal, NamedTuple, Protocol

Pace = Callable[[], Awaitable[object]]


class Turn(NamedTuple):
    role: Literal["system", "user", "assistant"]
    text: str


class Usage(NamedTuple):
    prompt_tokens: int
    completion_tokens: int


class Finish(NamedTuple):
    """The model has ended its answer by itself; «length» means that it ran into the limit of an answer."""

    reason: str


class LLMError(Exception):
    """An answer that failed. The message is a sentence for a person: what happened, and what to do."""

    def __init__(self, message: str, code: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry_after = retry_after


class LanguageModel(Protocol):
    name: str  # what the provider calls it
    label: str  # what a person reads under an answer, and what is stored with it
    context_tokens: int  # how many tokens of history and question may be sent

    def stream(self, turns: Sequence[Turn], pace: Pace | None = None) -> AsyncGenerator[str | Usage | Finish, None]:
        """Yield text as it comes (a piece may hold many tokens), at most one Usage, and at last a Finish.

        After the first words the model may wait for `pace` before it reads on, so that more comes at once. Any other
        end is an LLMError. Closing the generator stops the model; do it with `aclosing`.
        """
        ...

    async def aclose(self) -> None: ...
