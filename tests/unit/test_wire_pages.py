"""What is generated is fresh and complete: the OpenRPC document, docs/protocol.md, docs/configuration.md."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from rlmd.config import Settings
from rlmd.errors import RlmdError
from rlmd.events import FACT
from rlmd.tomltext import toml_of
from rlmd.wire.methods import METHODS
from rlmd.wire.openrpc import openrpc
from rlmd.wire.page import protocol_page
from rlmd.wire.settings_page import settings_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_protocol_page_is_fresh() -> None:
    assert (DOCS / "protocol.md").read_text() == protocol_page(), (
        "python -m rlmd.wire.discover --markdown >docs/protocol.md"
    )


def test_the_configuration_page_is_fresh() -> None:
    assert (DOCS / "configuration.md").read_text() == settings_page(), (
        "python -m rlmd.wire.discover --configuration >docs/configuration.md"
    )


def test_the_page_names_every_method_fact_and_error() -> None:
    page = protocol_page()
    assert not [name for name in METHODS if f"### `{name}`" not in page]
    mapping: dict[str, str] = FACT.json_schema()["discriminator"]["mapping"]
    assert not [name for name in mapping if f'`"{name}"`' not in page]
    kinds = {leaf.kind for leaf in leaves(RlmdError) if leaf.__module__ == "rlmd.errors"}
    assert not [kind for kind in kinds if f"| `{kind}` |" not in page]


def leaves(error: type[RlmdError]) -> list[type[RlmdError]]:
    below = [one for one in error.__subclasses__() if one.__module__ == "rlmd.errors"]
    return [leaf for one in below for leaf in leaves(one)] if below else [error]


def test_no_two_errors_share_a_code_or_kind() -> None:
    found = leaves(RlmdError)
    assert len({one.code for one in found}) == len({one.kind for one in found}) == len(found)


def test_every_link_of_the_page_leads_somewhere() -> None:
    page = protocol_page()
    headings = {line[4:].lower() for line in page.splitlines() if line.startswith("### ")}
    targets = {piece.split(")")[0] for piece in page.split("](#")[1:]}
    assert not targets - headings - {"done"}


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = openrpc()
    schemas = document["components"]["schemas"]
    wanted = set(references(document))
    assert wanted
    assert not wanted - {f"#/components/schemas/{name}" for name in schemas}
    assert [method["name"] for method in document["methods"]] == list(METHODS)


def references(value: Any) -> list[str]:
    match value:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [found for inner in value.values() for found in references(inner)]
        case list():
            return [found for inner in value for found in references(inner)]
    return []


def test_the_example_of_the_configuration_is_valid() -> None:
    example = settings_page().split("```toml\n")[1].split("```")[0]
    settings = Settings.model_validate(tomllib.loads(example))
    assert settings.hosts["m40"].slots == 2


def test_what_is_written_as_toml_is_read_as_it_was() -> None:
    table = {
        "plain": 1,
        "hosts": {
            "a.b": {"url": 'http://x/"quoted"\\', "slots": 2, "on": True, "share": 0.5, "none": None},
            "c": {"models": {"qwen2.5-coder:32b": {"window": 8192}, "ü\n\x7f": {}}, "list": ["x", "y"]},
        },
    }
    read = tomllib.loads(toml_of(table))
    del table["hosts"]["a.b"]["none"]  # type: ignore[index]
    assert json.dumps(read, sort_keys=True) == json.dumps(table, sort_keys=True)
