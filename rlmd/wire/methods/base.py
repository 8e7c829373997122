"""What every method's parameters and results are made of, and the row of a method in the table."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from rlmd.events import Model

PROTOCOL = 1


class Params(BaseModel):
    """Base of all parameters: unknown fields are refused, so that a typing error is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
