"""What every method's parameters and results are made of, and the row of a method in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, SerializationInfo
from pydantic_core import CoreSchema

from rlmd.events import Model
from rlmd.wire.methods.exact import exact

#: 2: runs may be ``asking`` and ``waiting``, hosts ``asleep`` and ``waking``.
PROTOCOL = 2

State = TypeVar("State", bound=str)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What results are written for: the protocol that the client speaks. Protocol 1 has fewer states."""

    protocol: int = PROTOCOL


def state_for(state: State, info: SerializationInfo, older: Mapping[State, State]) -> State:
    """A state as the client knows it: ``older`` names those that protocol 1 lacks, and what it says instead."""
    spoken = info.context
    return older.get(state, state) if isinstance(spoken, Spoken) and spoken.protocol < 2 else state


class Params(BaseModel):
    """Base of all parameters: unknown fields are refused, so that a typing error is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = exact(handler(source))
        return schema


class Nothing(Params):
    """No parameters."""


class NameParams(Params):
    name: str


class Result(Model):
    """Base of all results: clients ignore fields that they do not know."""


class Done(Result):
    done: bool = True


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    params: type[Params]
    result: type[Result]
    summary: str
