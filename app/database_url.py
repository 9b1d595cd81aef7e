"""Database URLs, from what hosts print and people paste to what the driver needs.

Nothing but the standard library is imported: the first lines of a start read them, too.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote, unquote

from app.settings import ROOT

MASK = "********"
EXAMPLE = "postgresql://user:password@host:5432/name"

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Node, Prisma, asyncpg and Go have words of their own for it.
OTHER_MODES = {
    **dict.fromkeys(("true", "1", "on", "yes", "no-verify", "accept_invalid_certs"), "require"),
    **dict.fromkeys(("false", "0", "off", "no"), "disable"),
    "verify_ca": "verify-ca",
    "verify_full": "verify-full",
    "strict": "verify-full",
}
VALUES = {
    "sslmode": MODES,
    "channel_binding": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "primary"),
    "gssencmode": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
    "load_balance_hosts": ("disable", "random"),
}
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
PLACES = ("user", "password", "host", "port", "dbname")  # libpq takes them behind the question mark, too
PASSED_ON = {*VALUES, *FILES, "application_name", "fallback_application_name", "hostaddr", "require_auth", "sslsni"}
SEARCH_PATHS = {"schema", "currentschema", "search_path"}
OF_OTHERS = {  # Prisma, asyncpg, JDBC, Go and Symfony mean something by them
    *("pgbouncer", "connection_limit", "pool_timeout", "pool_size", "max_conns", "supa", "workaround", "pooler_mode"),
    *("prepared_statements", "prepared_statement_cache_size", "statement_cache_size", "prepare_threshold"),
    *("preparethreshold", "binary_parameters", "default_query_exec_mode", "uselibpqcompat", "socket_timeout"),
    *("serverversion", "charset", "encoding", "client_encoding"),
}
OUR_OWN = {
    *("connect_timeout", "tcp_user_timeout"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
}
KNOWN = {*PASSED_ON, *PLACES, *SEARCH_PATHS, *OF_OTHERS, *OUR_OWN, "ssl", "sslaccept", "options"}

SCHEME = re.compile(r"(?:jdbc:)?[a-z][a-z0-9]*(?:\+[a-z0-9_]+)?", re.IGNORECASE)
TAIL = re.compile(r"(?P<hosts>[^/?@]*)(?:/(?P<name>[^?@]*))?(?:\?(?P<query>.*))?", re.DOTALL)
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
HOST = re.compile(
    rf"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<socket>%2[Ff][^:]*)|(?P<named>(?!.{{254}}){LABEL}(?:\.{LABEL})*\.?)?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
# «psql 'postgres://…'», «export DATABASE_URL="…"» and «DATABASE_URL: …»
BEFORE = re.compile(
    r"(?!jdbc:)(?:(?:export|set|psql)\s+)?(?:[\"']?[A-Za-z_]\w*[\"']?\s*[=:]\s*)?"
    r"(?=[\"'“‘`<]?(?:jdbc:)?[A-Za-z][A-Za-z0-9+_]*://)"
)
PLACEHOLDER = re.compile(r"\[?<?your[-_ ]?password>?\]?|<password>|\[password\]|[*•]{4,}", re.IGNORECASE)
ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")

OTHER_DATABASES = {
    "cockroachdb": "CockroachDB is not promised to work: its locks let two migrations run at once. Use PostgreSQL",
    "jdbc": f"that is how Java writes it. Take «jdbc:» away, and write it like {EXAMPLE}",
    "http": f"that is the address of a page. Take the one that begins like {EXAMPLE}",
    "prisma": "only Prisma speaks to that. Take the direct address of the database, which begins with postgres://",
}


class DatabaseURLError(ValueError):
    """One sentence for the person who can mend it. It never holds the password."""


@dataclass(frozen=True)
class DatabaseURL:
    """What a URL says, with nothing escaped."""

    backend: str  # postgresql or sqlite
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None  # several with commas between them, or the folder of a socket
    port: str | None = None  # as many
    database: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was left out or understood, and why

    @property
    def keywords(self) -> dict[str, Any]:
        """What psycopg.connect() takes."""
        values = {"user": self.user, "password": self.password, "host": self.host, "port": self.port}
        return {name: value for name, value in (values | {"dbname": self.database}).items() if value} | self.options


class Parts(NamedTuple):
    """A URL that is cut, with everything still as it was written."""

    scheme: str
    user: str | None  # with the password
    hosts: str
    name: str
    query: str


def read_database_url(raw: str) -> DatabaseURL:
    """Understand a pasted URL. What cannot work raises a DatabaseURLError."""
    text = tidy(raw)
    parts = cut(text)
    if parts is None:
        raise DatabaseURLError(f"DATABASE_URL cannot be read. Write it like {EXAMPLE}.")
    base = parts.scheme.lower().partition("+")[0]
    if base in ("sqlite", "sqlite3"):
        return read_sqlite(text)
    if not is_postgres(parts):
        refuse_scheme(text, base)
    return read_postgres(text, parts)


def mask(url: DatabaseURL | str) -> str:
    """Show a URL without its password, even one that makes no sense. What might be a part of it is not shown either."""
    if isinstance(url, DatabaseURL):
        return mask_read(url)
    text = tidy(url)
    parts = cut(text)
    if parts is None:
        return "…"
    if parts.scheme.lower().startswith("sqlite"):
        return printable(text)
    shown = f"{parts.scheme}://"
    if parts.user is not None:
        user, colon, _ = parts.user.partition(":")
        if not is_name(user):
            return f"{shown}…"
        shown += f"{user}{f':{MASK}' if colon else ''}@"
    if not all(HOST.fullmatch(host) for host in parts.hosts.split(",")):
        return printable(f"{shown}…")
    if not is_postgres(parts):
        return printable(f"{shown}{parts.hosts}/…")
    shown += parts.hosts + (f"/{parts.name}" if parts.name else "")
    return printable(shown + ("?" + "&".join(mask_pairs(parts.query)) if parts.query else ""))


def mask_read(url: DatabaseURL) -> str:
    if url.backend == "sqlite":
        return printable(f"sqlite:///{url.database}")
    user = quote(url.user or "", safe="") + (f":{MASK}" if url.password else "")
    hosts = (url.host or "").split(",")
    socket = hosts[0].startswith("/")
    ports = (url.port or "").split(",") * (1 if url.port and "," in url.port else len(hosts))
    places = ",".join(
        (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=False)
    )
    query = {**({"host": hosts[0]} if socket else {}), **url.options}
    shown = f"postgresql://{user}{'@' if user else ''}{'' if socket else places}/{quote(url.database or '')}"
    return printable(shown + ("?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else ""))


def is_postgres(parts: Parts) -> bool:
    return parts.scheme.lower().partition("+")[0] in ("postgres", "postgresql", "pgsql")


def is_name(user: str) -> bool:
    return not any(letter in "/?#" for letter in user)


def mask_pairs(query: str) -> Iterator[str]:
    """Show of what follows the question mark only words that everybody knows."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        is_plain = value in OTHER_MODES or any(value in values for values in VALUES.values())
        yield f"{name}={value if is_plain else '…'}" if name.lower() in KNOWN else "…"


def printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def tidy(raw: str) -> str:
    """Take away what comes along when a URL is copied: the setting's name, quotes, a command, line breaks."""
    text = re.sub("[\u200b\u200e\u2060\ufeff\0]", "", raw).strip()
    if text.startswith("{"):
        text = find_in_json(text)
    text = re.sub(r"\s*[\r\n\t]+\s*", "", text)
    if found := BEFORE.match(text):
        text = text[found.end() :]
    return text.rstrip(";, ").strip("\"'`“”‘’<> ").rstrip(";, ")


def find_in_json(text: str) -> str:
    try:
        values = [value for value in json.loads(text).values() if isinstance(value, str) and "://" in value]
    except ValueError:
        return text
    return str(values[0]) if len(values) == 1 else ""


def cut(text: str) -> Parts | None:
    scheme, found, rest = text.partition("://")
    if not found or not SCHEME.fullmatch(scheme):
        return None
    user, tail = cut_user(rest)
    match = TAIL.fullmatch(tail)
    if match is None:  # cannot be: a tail without an @ always matches
        return None
    return Parts(scheme, user, match["hosts"], match["name"] or "", match["query"] or "")


def cut_user(rest: str) -> tuple[str | None, str]:
    """Find the @ that ends the password, which may hold some itself, and / and ? as well.

    It is the first behind which everything looks as it should; where that is true of none, it is the last.
    """
    if is_tail(rest) or "@" not in rest:
        return None, rest
    places = [place for place, letter in enumerate(rest) if letter == "@"]
    end = next((place for place in places if is_tail(rest[place + 1 :])), places[-1])
    return rest[:end], rest[end + 1 :]


def is_tail(text: str) -> bool:
    match = TAIL.fullmatch(text)
    if match is None:
        return False
    return all(pair.partition("=")[0].lower() in KNOWN for pair in (match["query"] or "").split("&") if pair)


def refuse_url(text: str, why: str) -> NoReturn:
    raise DatabaseURLError(f"DATABASE_URL is {mask(text)}, and {why}.")


def refuse_scheme(text: str, base: str) -> NoReturn:
    known = next((why for name, why in OTHER_DATABASES.items() if base.startswith(name[:6])), None)
    refuse_url(text, known or f"Oppkit does not speak {base!r}. Use sqlite:///… or postgresql://…")


def read_sqlite(text: str) -> DatabaseURL:
    """A relative path is seen from the project's folder, wherever a command was typed."""
    path, _, query = text.partition("://")[2].partition("?")
    if not path.startswith("/") or path in ("/", "/:memory:"):
        refuse_url(text, "it names no SQLite file. Write it like sqlite:///db.sqlite3")
    options = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
    return DatabaseURL("sqlite", database=str(ROOT / path[1:]), options=options)


def read_postgres(text: str, parts: Parts) -> DatabaseURL:
    user, password = read_user(text, parts.user)
    given = {name: decode(text, value) for name, value in read_query(text, parts.query)}
    host, port = read_hosts(text, given.pop("host", "") or parts.hosts, given.pop("port", ""))
    database = decode(text, parts.name).rstrip("/") or given.get("dbname")
    given.pop("dbname", None)
    if "cockroachlabs" in (host or "") or port == "26257":
        refuse_scheme(text, "cockroachdb")
    user, password = given.pop("user", "") or user, given.pop("password", "") or password
    refuse_session_state(text, given, user, host)
    options, notes = read_options(text, given)
    return DatabaseURL("postgresql", user, password, host, port, database, options, tuple(notes))


def read_query(text: str, query: str) -> Iterator[tuple[str, str]]:
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name and name.lower() not in KNOWN:
            # Behind a bare password it might be the rest of it.
            named = "what is shown as …" if "password=" in query.lower() else repr(printable(name))
            refuse_url(text, f"PostgreSQL knows nothing of {named} in it. Take that away")
        if name:
            yield name.lower(), value


def read_user(text: str, user: str | None) -> tuple[str | None, str | None]:
    name, _, password = (user or "").partition(":")
    if not is_name(name):
        refuse_url(text, f"its parts do not stand as they should. Write it like {EXAMPLE}")
    if PLACEHOLDER.fullmatch(password) or PLACEHOLDER.fullmatch(unquote(password)):
        refuse_url(text, "it has a placeholder where the password belongs. Put your own there")
    return decode(text, name) or None, decode_password(text, password) or None


def decode_password(text: str, password: str) -> str:
    """Take a password as it is if it holds what an escaped one never would."""
    is_bare = any(letter in "@/?#[]" for letter in password) or "%" in ESCAPE.sub("", password)
    if is_bare and ESCAPE.search(password):
        refuse_url(
            text, "its password could be read in two ways. Write each special character escaped: @ as %40, % as %25"
        )
    return password if is_bare else decode(text, password)


def decode(text: str, value: str) -> str:
    try:
        decoded = unquote(value, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        refuse_url(text, "something in it is escaped that is no text. Write a % as %25")
    return decoded


def read_hosts(text: str, hosts: str, port: str) -> tuple[str | None, str | None]:
    """Give the hosts and their ports; several have commas between them. A folder is that of a socket."""
    if hosts.startswith("/"):
        return hosts, port or None
    found = [HOST.fullmatch(host) for host in hosts.split(",")]
    if not all(match and 0 < int(match["port"] or port.split(",")[0] or 1) <= 65535 for match in found):
        refuse_url(text, f"it names no host and port that can be. Write it like {EXAMPLE}")
    names = [unquote(match["socket"] or "") or match["six"] or match["named"] or "" for match in found if match]
    ports = [match["port"] or "" for match in found if match]
    return ",".join(names) or None, (",".join(ports) if any(ports) else port) or None


def refuse_session_state(text: str, given: dict[str, str], user: str | None, host: str | None) -> None:
    """What belongs to a session does not pass a pooler, or stays with the next who gets the connection."""
    role = printable(user or "user")
    for name in SEARCH_PATHS & given.keys():
        if (schema := given.pop(name)) != "public":
            order = f"ALTER ROLE {role} SET search_path TO {printable(schema)}"
            refuse_url(text, f"{name}= cannot pass a pooler. Take it away, and say once in the database: {order}")
    options = given.pop("options", "")
    # Neon's endpoint is for clients that do not name the host when TLS begins. Ours does.
    if options and not re.fullmatch(r"(?:-c\s*)?(?:endpoint|project)=[\w-]+", options.strip()):
        order = f"ALTER ROLE {role} SET name TO value"
        refuse_url(text, f"options= cannot pass a pooler. Take it away, and say once in the database: {order}")


def read_options(text: str, given: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Give what the driver needs, and sentences on what became of the rest."""
    notes = []
    for name in ("ssl", "sslaccept"):
        if (value := given.pop(name, None)) is not None:
            given.setdefault("sslmode", value)
            notes.append(f"{name}={printable(value)} is written sslmode here")
    if "sslmode" in given:
        given["sslmode"] = OTHER_MODES.get(given["sslmode"].lower(), given["sslmode"].lower())
    notes += [f"{name} is left out: it is meant for another program" for name in sorted(OF_OTHERS & given.keys())]
    notes += [f"{name} is left out: Oppkit sets its own" for name in sorted(OUR_OWN & given.keys())]
    options = {name: value for name, value in given.items() if name in PASSED_ON and value}
    for name, values in VALUES.items():
        if name in options and options[name] not in values:
            refuse_url(text, f"{name} can only be {', '.join(values[:-1])} or {values[-1]}")
    return find_files(text, options), notes


def find_files(text: str, options: dict[str, str]) -> dict[str, str]:
    """Certificates must be there. «system» is looked up here: the driver looks where its builder had them."""
    found = dict(options)
    mode, root = options.get("sslmode"), options.get("sslrootcert")
    if (root == "system" and mode not in (None, "verify-full")) or (root is None and mode == "verify-ca"):
        why = "anybody can have a certificate of the authorities that this machine trusts"
        refuse_url(text, f"{why}, so it needs sslmode=verify-full, or the file of another authority in sslrootcert")
    if root == "system" or (root is None and mode == "verify-full"):
        found |= {"sslmode": "verify-full", "sslrootcert": find_authorities(text)}
    for name in FILES:
        if name in found:
            found[name] = str(ROOT / Path(found[name]).expanduser())
            if not Path(found[name]).is_file():
                refuse_url(text, f"there is no file {printable(found[name])}, which {name} names")
    return found


def find_authorities(text: str) -> str:
    """Give the file with the certificates of the authorities that this machine trusts."""
    import ssl

    paths = ssl.get_default_verify_paths()
    usual = (
        paths.cafile,
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    )
    found = next((path for path in usual if path and Path(path).is_file()), None)
    if found is None:
        refuse_url(text, "no certificates of authorities are installed here. Name their file with sslrootcert")
    return found
