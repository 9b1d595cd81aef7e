"""Every value that the environment may change, and the only place that reads it."""

import re
import sys
import zlib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NoReturn
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ROOT / ".env"
EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state
DEVELOPMENT_KEY = "insecure-development-key"
SECRET_KEY_LENGTH = 32
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./-]*)?")
HOST = re.compile(r"\*|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:]+")
WORDS = {  # ours, for the faults that pydantic describes in a programmer's words
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "literal_error": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
}


class Settings(BaseSettings):
    """One field for each line of .env.example; a test holds both in step."""

    model_config = SettingsConfigDict(env_file=ENV_FILE, env_ignore_empty=True, extra="ignore")

    environment: Literal["development", "production"] = "development"
    secret_key: SecretStr = SecretStr(DEVELOPMENT_KEY)
    site_name: str = Field("Oppkit", min_length=1, max_length=40)
    allowed_hosts: Annotated[list[str], NoDecode] = []
    allow_signup: bool = True
    show_docs: bool | None = None
    trusted_proxy_hops: int = Field(0, ge=0, le=10)

    setup_token: SecretStr = SecretStr("")
    recovery_token: SecretStr = SecretStr("")

    ssl_redirect: bool = False
    hsts_seconds: int = Field(0, ge=0)
    hsts_include_subdomains: bool = False
    hsts_preload: bool = False
    silenced_checks: Annotated[list[str], NoDecode] = []

    database_url: SecretStr = SecretStr("sqlite:///db.sqlite3")
    database_pool_size: int = Field(5, ge=1, le=100)
    migrate_on_start: bool = False

    uploads: str = ""
    s3_endpoint: str = ""
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")

    llm_base_url: str = ""
    llm_api_key: SecretStr = SecretStr("")
    llm_model: str = ""
    openrouter_api_key: SecretStr = SecretStr("")
    openai_api_key: SecretStr = SecretStr("")
    llm_system_prompt: str = "You are a helpful assistant. Answer briefly and clearly, in Markdown."
    llm_context_tokens: int = Field(8000, ge=100)
    llm_max_tokens: int = Field(2000, ge=1)
    llm_connect_timeout: float = Field(5, gt=0)
    llm_first_token_timeout: float = Field(60, gt=0)
    llm_token_timeout: float = Field(30, gt=0)
    llm_answer_timeout: float = Field(1800, gt=0)

    local_llm: Literal["auto", "on", "off"] = "auto"
    local_llm_gguf: str = ""
    local_llm_url: str = ""
    local_llm_key: SecretStr = SecretStr("")

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def docs_are_shown(self) -> bool:
        return not self.is_production if self.show_docs is None else self.show_docs

    @property
    def hsts_header(self) -> str:
        """Strict-Transport-Security; empty where HTTPS is not promised."""
        more = {"includeSubDomains": self.hsts_include_subdomains, "preload": self.hsts_preload}
        words = [f"max-age={self.hsts_seconds}", *(word for word, is_wanted in more.items() if is_wanted)]
        return "; ".join(words) if self.hsts_seconds else ""

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def split_hosts(cls, value: object) -> object:
        """Hosts are written with commas between them: «example.org, .example.net»."""
        return [host.strip().lower() for host in value.split(",") if host.strip()] if isinstance(value, str) else value

    @field_validator("silenced_checks", mode="before")
    @classmethod
    def split_names(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("llm_base_url", "local_llm_url", "s3_endpoint")
    @classmethod
    def check_address(cls, value: str, field: ValidationInfo) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        try:
            parts = urlsplit(value)
            is_whole = bool(parts.hostname) and parts.port != 0  # a port that is none raises
        except ValueError:
            is_whole = False
        if value and not is_whole:
            example = "https://s3.example.org" if field.field_name == "s3_endpoint" else "http://localhost:11434/v1"
            raise ValueError(f"is no whole address. Write it like {example}")
        return value.rstrip("/")

    @field_validator("uploads")
    @classmethod
    def check_uploads(cls, value: str) -> str:
        if "://" in value and not BUCKET.fullmatch(value):
            raise ValueError("must be a folder, a bucket such as s3://name or s3://name/folder, or off")
        return value

    @field_validator("environment", "local_llm", mode="before")
    @classmethod
    def lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def check_hosts(cls, value: list[str]) -> list[str]:
        if wrong := next((host for host in value if not HOST.fullmatch(host)), None):
            raise ValueError(
                f"{wrong!r} is no host name. Write names alone, like example.org, without http:// or a port"
            )
        return value

    @model_validator(mode="after")
    def check_secret_key(self) -> "Settings":
        if self.is_production and (fault := find_key_fault(self.secret_key.get_secret_value())):
            raise ValueError(f"SECRET_KEY {fault}. Make one: python oppman.py generate_secret_key")
        return self

    @model_validator(mode="after")
    def check_tokens(self) -> "Settings":
        """What opens /setup or /recover for anybody who knows it is as secret as the key, and is not the key."""
        others = {self.secret_key.get_secret_value(): "SECRET_KEY"}
        for name, token in (("SETUP_TOKEN", self.setup_token), ("RECOVERY_TOKEN", self.recovery_token)):
            text = token.get_secret_value()
            if text and (fault := find_key_fault(text)):
                raise ValueError(f"{name} {fault}. Make one: python oppman.py secrets")
            if text in others:
                raise ValueError(f"{name} is the same as {others[text]}. Make another: python oppman.py secrets")
            if text:
                others[text] = name
        return self

    @model_validator(mode="after")
    def check_bucket_keys(self) -> "Settings":
        if self.uploads.startswith("s3://") and not (self.s3_access_key and self.s3_secret_key):
            raise ValueError(
                "UPLOADS names a bucket, which opens with a key. Set S3_ACCESS_KEY and S3_SECRET_KEY, too."
            )
        return self


def find_key_fault(key: str) -> str | None:
    """Say what makes a secret key guessable; None for a good one."""
    if not key or key == DEVELOPMENT_KEY:
        return "is missing, and production needs one of its own"
    if any(word in key.lower() for word in ("insecure", "change", "your-", "your_", "example")):
        return "is a placeholder, and anybody can know it"
    if len(key) < SECRET_KEY_LENGTH:
        return f"is too short ({len(key)} characters; at least {SECRET_KEY_LENGTH} are needed)"
    if is_low_entropy(key):
        return "is too regular to be secret"
    return None


def is_low_entropy(key: str) -> bool:
    """Few letters, repeats or runs such as «abcd» make a key that can be guessed; random text has none of them."""
    steps = [ord(second) - ord(first) for first, second in pairwise(key)]
    has_runs = sum(abs(step) <= 1 for step in steps) > len(steps) / 2
    has_repeats = len(zlib.compress(key.encode(), 9)) < 2 * len(key) / 3
    return len(set(key)) < 10 or has_runs or has_repeats


@lru_cache
def load_settings() -> Settings:
    """Read the environment and .env once; a value that cannot work ends the program with one sentence."""
    try:
        return Settings()
    except ValidationError as error:
        refuse(describe(error))
    except UnicodeDecodeError:
        refuse(".env cannot be read. Save it as UTF-8, not as UTF-16 or the like.")


def describe(error: ValidationError) -> str:
    """Put the first fault into a sentence. The value is not shown: it may be a secret."""
    fault = error.errors(include_input=False, include_url=False)[0]
    words = WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, ")).format_map(fault.get("ctx", {}))
    if not fault["loc"]:
        return words
    return f"{str(fault['loc'][0]).upper()}: {words}. Set it in the environment or in .env (.env.example explains it)."


def refuse(sentence: str) -> NoReturn:
    """Stop the start-up: one sentence for the person who can mend it, no traceback."""
    print(sentence, file=sys.stderr)
    raise SystemExit(EX_CONFIG)
