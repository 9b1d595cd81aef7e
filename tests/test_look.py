"""What can be said of the looks without a browser: contrast, vendored files, the security policy, icons."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "static"
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
STYLE_SHEETS = sorted(STATIC.glob("*.css"))
SCRIPTS = sorted(STATIC.glob("*.js"))
TOKEN = re.compile(r"--([\w-]+):\s*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)")

# Each colour that stands on another one, and the contrast it needs: 4.5 for text, 3 for what must be seen.
SURFACES = ("bg", "surface", "surface-2", "side")
CODE = ("keyword", "string", "number", "name", "builtin", "comment")
PAIRS = [
    *(("text", surface, 4.5) for surface in SURFACES),
    *(("muted", surface, 4.5) for surface in SURFACES),
    *((f"code-{name}", "code", 4.5) for name in CODE),
    ("text", "code", 4.5),
    ("muted", "code", 4.5),
    *(("accent", surface, 4.5) for surface in ("bg", "surface", "surface-2", "accent-soft")),
    *((state, f"{state}-soft", 4.5) for state in ("success", "warning", "danger")),
    *(("text", f"{state}-soft", 4.5) for state in ("accent", "success", "warning", "danger")),
    ("accent-hover", "bg", 4.5),
    ("on-accent", "accent", 4.5),
    ("on-accent", "accent-hover", 4.5),
    ("danger", "surface", 4.5),
    ("danger", "bg", 4.5),
    ("success", "surface", 4.5),
    ("on-danger", "danger", 4.5),
    ("on-danger", "danger-hover", 4.5),
    ("bg", "text", 4.5),
    ("bg", "muted", 4.5),
    ("border-strong", "surface", 3),
    ("border-strong", "bg", 3),
]


def read_tokens() -> dict[str, tuple[str, str]]:
    found = TOKEN.findall((STATIC / "theme.css").read_text())
    return {name: (light, dark) for name, light, dark in found}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(("front", "back", "needed"), PAIRS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_that_meet_can_be_told_apart(theme: str, front: str, back: str, needed: float) -> None:
    tokens = read_tokens()
    which = 0 if theme == "light" else 1
    assert contrast(tokens[front][which], tokens[back][which]) >= needed


def test_only_the_theme_names_colours() -> None:
    colour = re.compile(r"#[0-9a-f]{3,8}\b|\b(?:rgb|hsl|oklch)\(", re.IGNORECASE)
    for sheet in STYLE_SHEETS:
        if sheet.name != "theme.css":
            assert colour.findall(without_comments(sheet)) == [], sheet.name


def test_style_sheets_use_only_variables_that_exist() -> None:
    text = "".join(without_comments(sheet) for sheet in STYLE_SHEETS)
    defined = set(re.findall(r"(--[\w-]+):", text))
    used = set(re.findall(r"var\((--[\w-]+)", text))
    assert used <= defined


def without_comments(sheet: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.DOTALL)


def test_vendored_files_are_the_ones_that_were_looked_at() -> None:
    record = (STATIC / "VENDOR.md").read_text()
    folders = (STATIC / "fonts", STATIC / "vendor")
    vendored = [STATIC / "icons.svg", *(file for folder in folders for file in folder.rglob("*") if file.is_file())]
    for file in vendored:
        assert file.name in record
        assert hashlib.sha256(file.read_bytes()).hexdigest() in record, file.name


# The security policy would refuse these, some of them without a word.
FORBIDDEN = {
    "inline style": r"<style\b|\sstyle\s*=",
    "inline script": r"<script(?![^>]*\ssrc=)",
    "event handler": r"\son[a-z]+\s*=",
    "htmx that needs eval": r"\shx-on|hx-vals=.js:|hx-trigger=\"[^\"]*\[",
    "address on another host": r"\b(?:src|href|action|formaction)\s*=\s*[\"']?(?:https?:)?//",
    "javascript address": r"javascript:",
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_templates_keep_to_the_security_policy(kind: str) -> None:
    assert TEMPLATES
    for template in TEMPLATES:
        assert re.findall(FORBIDDEN[kind], template.read_text(), re.IGNORECASE) == [], template.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_stand_alone_and_evaluate_nothing(script: Path) -> None:
    """An import would name a file without the hash that its address has."""
    imports = re.compile(r"^\s*(?:import|export)\b|\bimport\(", re.MULTILINE)
    evaluates = re.compile(r"\beval\(|new Function|document\.write|\.style\.cssText|setAttribute\(\"style")
    assert not imports.search(script.read_text())
    assert not evaluates.search(script.read_text())


def list_icons_in_use() -> Iterator[str]:
    call = re.compile(r"\bicon\(([^)]*)\)")
    not_a_name = re.compile(r",\s*'[^']*'|==\s*'[^']*'")  # a class, or a value that a condition asks for
    for template in TEMPLATES:
        for arguments in call.findall(template.read_text()):
            yield from re.findall(r"'([a-z0-9-]+)'", not_a_name.sub("", arguments))


def list_icons_in_sprite() -> list[str]:
    return re.findall(r'<symbol id="([\w-]+)"', (STATIC / "icons.svg").read_text())


def test_every_icon_of_a_template_is_in_the_sprite() -> None:
    assert set(list_icons_in_use()) <= set(list_icons_in_sprite())


def test_every_icon_of_the_sprite_is_in_the_style_guide() -> None:
    """Where names are kept in lists, as on the home page, this shows that none is missing or left over."""
    guide = (ROOT / "templates/pages/styleguide.html").read_text()
    shown = re.findall(r"'([\w-]+)'", guide[guide.index('class="icon-list"') :])
    assert sorted(shown) == sorted(list_icons_in_sprite())


def test_no_icon_is_carried_for_nothing() -> None:
    guide = ROOT / "templates/pages/styleguide.html"
    text = "".join(template.read_text() for template in TEMPLATES if template != guide)
    text += guide.read_text().partition('class="icon-list"')[0]
    assert [name for name in list_icons_in_sprite() if f"'{name}'" not in text] == []


def test_templates_ask_for_static_files_that_exist() -> None:
    call = re.compile(r"static\('([^']+)'\)")
    asked = {name for template in TEMPLATES for name in call.findall(template.read_text())}
    assert asked
    assert [name for name in sorted(asked) if not (STATIC / name).is_file()] == []
