"""The protocol as an OpenRPC document, made from its own models."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rlmd import __version__
from rlmd.events import FACT, Delta
from rlmd.wire.methods import METHODS, RunGap

_REF = "#/components/schemas/{model}"


@cache
def openrpc() -> dict[str, Any]:
    """The whole document; the same for every daemon of this version."""
    schemas = _schemas()
    return {
        "openrpc": "1.3.2",
        "info": {"title": "rlmd", "version": __version__},
        "methods": [
            {
                "name": method.name,
                "summary": method.summary,
                "paramStructure": "by-name",
                "params": _parameters(schemas[method.params.__name__]),
                "result": {"name": method.result.__name__, "schema": _ref(method.result)},
            }
            for method in METHODS.values()
        ],
        "components": {"schemas": schemas},
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = set(schema.get("required", ()))
    found = [
        {"name": name, "required": name in required, "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]
    return sorted(found, key=lambda parameter: not parameter["required"])


def _schemas() -> dict[str, Any]:
    """JSON schemas of everything that travels: parameters as they are read, the rest as it is written."""
    params = {method.params for method in METHODS.values()}
    results = {method.result for method in METHODS.values()} | {Delta, RunGap}
    modes: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in _by_name(params)]
    modes += [(model, "serialization") for model in _by_name(results)]
    _, top = models_json_schema(modes, ref_template=_REF)
    facts = FACT.json_schema(mode="serialization", ref_template=_REF)
    schemas = {**facts.pop("$defs"), **top["$defs"], "Fact": facts}
    return {name: schemas[name] for name in sorted(schemas)}


def _by_name(models: set[type[Any]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)
