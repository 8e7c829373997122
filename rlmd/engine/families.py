"""What models of one family need as a root or sub-model: a warning, or room to think. One table, and the config's.

The paper found that one prompt for all models is a mistake (arXiv 2512.24601, appendices B and C): coders ask thousands
of sub-queries unless they are warned, and models that think run out of tokens before they answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rlmd.config import FamilySettings

#: Ends a reply of a root that begins to invent what its code prints: the line that its outputs begin with.
STOP = ("\n[output of cell",)
_SHARE = 4


@dataclass(frozen=True, slots=True)
class Family:
    """``models`` is looked for in a model's name, whatever its case; ``note`` ends the system prompt.

    ``room`` multiplies the tokens of a reply that the model is configured for, up to ``share`` of its window.
    """

    name: str
    models: str
    note: str = ""
    room: float = 1.0
    share: float = 1 / _SHARE

    def reply_tokens(self, window: int, max_tokens: int) -> int:
        """Tokens for a root's reply: as configured, with room to think, at most a share of the window."""
        return min(int(max_tokens * self.room), int(window * self.share))


#: The first that fits counts.
FAMILIES = (
    Family(
        "coder",
        r"coder|codestral|devstral|codellama|codegemma|starcoder",
        note="Careful with llm_query: each call takes seconds. Fill every prompt with as much text as it holds: 1,000 "
        "lines are a handful of calls, never 1,000.",
    ),
    Family(
        "thinking",
        r"qwq|deepseek-r1|gpt-oss|magistral|qwen3|glm-4\.[5-9]|glm-5|thinking|reasoning|(?:^|/)o[134](?:-|$)",
        note="Think briefly; what counts is the code and what it prints.",
        room=4.0,
        share=0.4,
    ),
)
OTHER = Family("other", "")


def family_of(model: str, configured: Mapping[str, FamilySettings]) -> Family:
    """The family of a model: the config's first, in their order."""
    own = (Family(name, one.models, one.note, one.room, one.share) for name, one in configured.items())
    for family in (*own, *FAMILIES):
        if re.search(family.models, model, re.IGNORECASE):
            return family
    return OTHER
