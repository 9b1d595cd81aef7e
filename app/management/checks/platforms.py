"""What each host demands, as far as a check can see it. A further host is a line in the table."""

from typing import Literal, NamedTuple


class Demand(NamedTuple):
    """A value in the host's own file; of a number, the least."""

    path: str  # with dots between tables
    value: str | bool | int
    reason: str


class Platform(NamedTuple):
    title: str
    sqlite: Literal["nowhere", "on a volume", "anywhere"] = "on a volume"
    needs_tls: bool = False  # its PostgreSQL refuses connections without
    pool_limit: int | None = None
    environment_limit: int | None = None  # bytes
    is_read_only: bool = False  # so the build must have compiled everything
    proxy_hops: int | None = 1  # proxies of its own between the visitor and the app; None: as you build it
    worker_limit: int | None = None
    file: str = ""
    demands: tuple[Demand, ...] = ()
    mounts: str = ""  # where the file names the volumes, each with its destination


FLY = (
    Demand("kill_signal", "SIGTERM", "by itself Fly sends SIGINT"),
    Demand("kill_timeout", 30, "answers that are being written are saved within 20 seconds"),
    Demand("http_service.force_https", True, "sign-in works over HTTPS only"),
)
RAILWAY = (
    Demand("deploy.healthcheckPath", "/readyz", "a new version takes over once it is healthy"),
    Demand("deploy.drainingSeconds", 30, "answers that are being written are saved within 20 seconds"),
)

PLATFORMS = {
    "leapcell": Platform(
        "Leapcell",
        sqlite="nowhere",
        needs_tls=True,
        pool_limit=5,
        environment_limit=3072,
        is_read_only=True,
        worker_limit=1,
    ),
    "fly": Platform("Fly.io", file="fly.toml", demands=FLY, mounts="mounts"),
    "railway": Platform("Railway", file="railway.json", demands=RAILWAY),
    "render": Platform("Render", worker_limit=1),
    "digitalocean": Platform("DigitalOcean", sqlite="nowhere", needs_tls=True),
    "docker": Platform("Docker", proxy_hops=None),
    "server": Platform("A server of your own", sqlite="anywhere", proxy_hops=None),
}
