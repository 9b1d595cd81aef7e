"""Commands for the demo of app/demo, and its part of quickstart. The README says how to be rid of them."""

from app.demo.service import Demo, count_demo, load_demo, remove_demo
from app.management.commands import NOINPUT, argument, command, confirm
from app.management.console import console, how_to
from app.management.quickstart import describe_account, tell
from app.management.session import run_with_session
from app.management.users import make_password
from app.settings import load_settings
from app.storage import choose_storage


@command(argument("action", choices=["load", "remove"], help="remove deletes all that the demo people have"), NOINPUT)
def demo(action: str, *, noinput: bool = False) -> None:
    """Load Ada and Bob with some conversations to look at, or remove the two and everything that is theirs."""
    if action == "load":
        loaddemo()
        return
    counts = run_with_session(count_demo)
    if not counts.people:
        console.say("There is no demo here.")
        return
    what = f"{counts.people} demo people and their {counts.conversations} conversations"
    confirm(f"Delete {what}", noinput)
    storage = choose_storage(load_settings())
    run_with_session(lambda session: remove_demo(session, storage))
    console.say(f"Deleted {what}.")


@command()
def loaddemo() -> None:
    """Load Ada and Bob with some conversations to look at. What is there already is kept."""
    loaded = load()
    for person in loaded.people:
        console.say(f"{person.email}  {f'password {person.password}' if person.password else 'kept'}")
    console.say(f"Loaded {loaded.conversation_count} conversations. Sign in as {loaded.people[0].email}.")
    if any(person.password for person in loaded.people):
        console.say(f"Passwords are shown only now. Forgotten? {how_to('changepassword EMAIL')}")


def load() -> Demo:
    return run_with_session(lambda session: load_demo(session, make_password))


def tell_demo() -> bool:
    """Load the demo for quickstart, in its form; say whether there are new passwords to note."""
    loaded = load()
    for index, person in enumerate(loaded.people):
        tell("" if index else "People", describe_account(person.email, person.password))
    tell("Demo", f"{loaded.conversation_count} conversations to look at" if loaded.conversation_count else "kept")
    return any(person.password for person in loaded.people)
