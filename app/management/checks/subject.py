"""What is looked at, and the register of those who look: each says which ids it may report, and under which tag."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from app.management.checks.database import DatabaseFacts, People, count_people, inspect_database
from app.management.checks.issues import Issue
from app.management.checks.model import ModelFacts, inspect_model
from app.management.checks.platforms import Platform
from app.management.checks.site import Address, SiteFacts, inspect_site
from app.settings import Settings


@dataclass
class Subject:
    """What needs a network is asked once, and only when a check or the report wants it."""

    settings: Settings
    platform: Platform | None = None
    address: Address | None = None
    workers: int = 1

    @cached_property
    def database(self) -> DatabaseFacts | None:
        return inspect_database(self.settings)

    @cached_property
    def people(self) -> People | None:
        return count_people() if self.database else None

    @cached_property
    def model(self) -> ModelFacts | None:
        return inspect_model(self.settings)

    @cached_property
    def site(self) -> SiteFacts | None:
        return inspect_site(self.address) if self.address else None


Look = Callable[[Subject], Iterator[Issue]]


class Check(NamedTuple):
    look: Look
    tag: str
    ids: tuple[str, ...]
    is_for_deployment: bool


CHECKS: list[Check] = []


def reports(*ids: str, tag: str, deploy: bool = True) -> Callable[[Look], Look]:
    """Put a check into the register. Nobody can silence an id that no check names here."""

    def register(look: Look) -> Look:
        CHECKS.append(Check(look, tag, ids, deploy))
        return look

    return register


def list_checks(tags: Collection[str], *, deploy: bool) -> list[Check]:
    return [check for check in CHECKS if (deploy or not check.is_for_deployment) and (not tags or check.tag in tags)]


def list_names() -> set[str]:
    return {f"oppman.{name}" for check in CHECKS for name in check.ids}
