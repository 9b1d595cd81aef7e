"""Looks for mistakes before people meet them, in the form of Django's `check`. docs/checks.md has all of them."""

import sys
from collections.abc import Sequence

from app.management.checks import deployment, hosting, project  # noqa: F401 (they register their checks)
from app.management.checks.issues import Issue, Level, describe, summarise
from app.management.checks.platforms import PLATFORMS
from app.management.checks.report import write_report
from app.management.checks.site import read_address
from app.management.checks.subject import CHECKS, Check, Subject, list_checks, list_names
from app.management.commands import CommandError, argument, command, flag
from app.management.console import console
from app.settings import load_settings


@command(
    flag("--deploy", help="look at what matters on a public host, too, and report what is there"),
    argument("--platform", choices=list(PLATFORMS), help="the host, with what it demands; means --deploy"),
    argument("--url", default="", help="the site's public address, which is then looked at; means --deploy"),
    argument("--workers", type=int, default=1, help="processes that will answer, as runserver is told"),
    argument(
        "--tag", "-t", dest="tags", action="append", default=[], help="only checks with this tag; may be repeated"
    ),
    flag("--list-tags", help="list the tags that there are"),
    argument(
        "--fail-level",
        type=str.upper,
        choices=[level.name for level in Level],
        default=Level.ERROR.name,
        help="end with 1 from this level on",
    ),
)
def check(
    *,
    deploy: bool = False,
    platform: str | None = None,
    url: str = "",
    workers: int = 1,
    tags: Sequence[str] = (),
    list_tags: bool = False,
    fail_level: str = "ERROR",
) -> None:
    """Look for mistakes in the settings and the database."""
    deploy = deploy or bool(platform or url)
    checks = choose_checks(tags, deploy)
    if list_tags:
        print("\n".join(sorted({check.tag for check in checks})))
        return
    address = read_address(url) if url else None
    subject = Subject(load_settings(), PLATFORMS.get(platform or ""), address, workers)
    refuse_unknown_ids(subject.settings.silenced_checks)
    found = [issue for check in checks for issue in check.look(subject)]
    if deploy and not tags:
        console.say(f"{write_report(subject)}\n")
    finish(found, subject.settings.silenced_checks, Level[fail_level])


def choose_checks(tags: Sequence[str], deploy: bool) -> list[Check]:
    known = {check.tag for check in list_checks((), deploy=deploy)}
    if wrong := next((tag for tag in tags if tag not in known), None):
        elsewhere = wrong in {check.tag for check in CHECKS}
        hint = " without --deploy" if elsewhere else f". There are: {', '.join(sorted(known))}"
        raise CommandError(f'There is no system check with the "{wrong}" tag{hint}.')
    return list_checks(tags, deploy=deploy)


def refuse_unknown_ids(silenced: Sequence[str]) -> None:
    if wrong := next((name for name in silenced if name not in list_names()), None):
        raise CommandError(f"SILENCED_CHECKS names {wrong}, which is no check. docs/checks.md lists them all.")


def finish(found: Sequence[Issue], silenced: Sequence[str], fail_level: Level) -> None:
    """Say what was found, and end with 1 where it is bad enough."""
    issues = [issue for issue in found if issue.name not in silenced]
    hushed = [issue for issue in found if issue.name in silenced]
    if console.verbosity > 1 and hushed:
        console.say("\n".join(["Silenced:", *map(str, hushed), ""]))
    if not issues:
        console.say(summarise(0, len(hushed)))
        return
    is_failure = any(issue.level >= fail_level for issue in issues)
    print(("SystemCheckError: " if is_failure else "") + describe(issues, len(hushed)), file=sys.stderr)
    if is_failure:
        raise SystemExit(1)
