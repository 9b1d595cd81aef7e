"""What a test needs from outside Python. Without it the test is skipped and says why; in CI that is a failure."""

import os
from typing import NoReturn

import pytest


def miss(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI skips nothing: {reason}")
    pytest.skip(reason)
