"""Typed answers: an answer that must be JSON of a given schema, and what a model is told when it is not.

Owns reading a model's text as that value and the wording of what is wrong; which turn pays for another try is the
strategy's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rlmd import schema as schemas
from rlmd.errors import InvalidParams

#: Characters of the schema that a prompt shows; the rest is told by what is found wrong.
_SHOWN_CHARS = 2000
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Strings of a value shorter than this are no quotes.
_LEAST_QUOTE = 12


class AnswerType:
    """Args:
    text: A JSON Schema as JSON, checked already.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._schema = json.loads(text)

    @property
    def asked(self) -> str:
        """What a model is told beforehand."""
        shown = self.text if len(self.text) <= _SHOWN_CHARS else self.text[:_SHOWN_CHARS] + " …"
        return f"The answer must be one JSON value, and nothing else, that fits this JSON Schema: {shown}"

    def read(self, answer: str) -> tuple[str, str | None]:
        """The answer as canonical JSON and None, or the answer as it was and what is wrong with it."""
        try:
            value = schemas.value_in(answer)
        except ValueError as error:
            return answer, f"The answer is no JSON: {error}. {self.asked}"
        if found := schemas.problems(self._schema, value):
            return answer, f"The answer does not fit its schema: {'; '.join(found)}."
        return schemas.canonical(value), None

    def read_within(self, reply: str) -> tuple[str, str | None]:
        """As ``read``, but the value may stand among other words, in a fence or not, as small models write it."""
        whole, wrong = self.read(reply)
        if wrong is None:
            return whole, None
        for part in _parts(reply):
            value, mismatch = self.read(part)
            if mismatch is None:
                return value, None
        return whole, wrong


def answer_type(schema: str) -> AnswerType:
    """The type of a JSON schema that nobody has looked at yet. Raises ``InvalidParams``."""
    try:
        schemas.check_schema(json.loads(schema))
    except (ValueError, RecursionError) as error:
        raise InvalidParams("The schema is not JSON.") from error
    return AnswerType(schema)


def _parts(reply: str) -> Iterator[str]:
    """Where in a reply its value may be: in a fence, between the outermost brackets, or all of it as a text."""
    yield from (match[1] for match in _FENCED.finditer(reply))
    for opening, closing in ("{}", "[]"):
        start, end = reply.find(opening), reply.rfind(closing)
        if 0 <= start < end:
            yield reply[start : end + 1]
    yield json.dumps(reply.strip())


def quotable(answer: str) -> str:
    """The strings of a typed answer that may be quotes, each in quotation marks; names of members are none."""
    return "\n\n".join(f"“{one}”" for one in _strings(json.loads(answer)) if len(one) >= _LEAST_QUOTE)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.replace("“", "”").strip("”")
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
