"""The description of the JSON API: shown where it may be, and true."""

import re

import pytest

from tests.conftest import MakeSite, Person, Site

pytestmark = pytest.mark.anyio
SECRET = "k3Jx9-vLq2Zr7_Tn5WbYc8Hd4Fs6GmPa1Ue0"


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({}, 200),
        ({"show_docs": False}, 404),
        ({"environment": "production", "secret_key": SECRET}, 404),
        ({"environment": "production", "secret_key": SECRET, "show_docs": True}, 200),
    ],
)
async def test_docs_are_hidden_in_production_unless_asked_for(
    make_site: MakeSite, settings: dict[str, object], status: int
) -> None:
    visitor = await (await make_site(**settings)).visitor()
    for path in ("/docs", "/openapi.json"):
        assert (await visitor.get(path)).status_code == status
    assert (await visitor.get("/redoc")).status_code == 404


async def test_the_page_loads_nothing_from_elsewhere(site: Site) -> None:
    visitor = await site.visitor()
    page = (await visitor.get("/docs")).text
    assert not re.findall(r"https?://", page)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)", page)
    addresses = re.findall(r'(?:src|href|data-schema)="(/[^"#]*)"', page)
    assert {"/openapi.json", "/login?next=/docs"} <= set(addresses)
    for address in addresses:
        assert (await visitor.get(address, follow_redirects=True)).status_code == 200


async def test_the_page_says_in_whose_name_things_are_tried(ada: Person) -> None:
    assert "ada@example.org" in (await ada.get("/docs")).text


async def test_the_description_names_everything_well(site: Site) -> None:
    schema = (await (await site.visitor()).get("/openapi.json")).json()
    assert schema["info"]["title"] == "Oppkit API"
    schemes = schema["components"]["securitySchemes"]
    assert set(schemes) == {"cookie", "bearer"}
    assert (schemes["cookie"]["in"], schemes["cookie"]["name"]) == ("cookie", "session")
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    operations = {
        (method.upper(), path): operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert all(path.startswith("/api/v1/") for _, path in operations)
    for operation in operations.values():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", operation["operationId"])
        assert operation["security"] == [{"cookie": []}, {"bearer": []}]
        assert operation["tags"] == ["chat"] and operation["summary"]
        assert "401" in operation["responses"]
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    assert ("POST", "/api/v1/conversations/{conversation_id}/messages") in operations


async def test_the_description_names_the_cookie_of_production(make_site: MakeSite) -> None:
    site = await make_site(environment="production", secret_key=SECRET, show_docs=True)
    schema = (await (await site.visitor()).get("/openapi.json")).json()
    assert schema["components"]["securitySchemes"]["cookie"]["name"] == "__Host-session"


async def test_every_reference_in_the_description_leads_somewhere(site: Site) -> None:
    response = await (await site.visitor()).get("/openapi.json")
    for reference in set(re.findall(r'"\$ref":\s*"#/([^"]+)"', response.text)):
        found = response.json()
        for step in reference.split("/"):
            found = found[step]
