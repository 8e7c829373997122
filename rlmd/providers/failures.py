"""What a server's refusal means: one table from status and wording to the error tree.

Owns the classification and the wording shown to people. A server's own words are passed on only when they are
short and hold neither the key nor a stretch of the prompt.
"""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from rlmd.errors import (
    CompletionError,
    HostFailed,
    HostOverloaded,
    HostRefused,
    ModelMissing,
    PromptTooLong,
    RlmdError,
)

#: Longest part of a server's sentence that is shown.
SHOWN_CHARS = 200
#: So many characters in a row that also stand in the prompt make the server's sentence unshowable.
SHARED_CHARS = 16
#: The same for a key, of which a sentence that was cut may show the beginning.
SHARED_OF_SECRET = 8
#: Characters of a prompt with which words are compared (5 ms); beside a longer prompt none are shown.
COMPARED_CHARS = 100_000
#: A server that asks for a longer pause is taken at this, so that a wrong clock does not close a host for a day.
MAX_RETRY_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's refusal, whatever its shape: an HTTP error, an error line in a 200, an error event in a stream.

    ``said`` is everything textual (message, type, code) for matching; ``shown`` what a person may read.
    """

    server: str
    status: int
    said: str
    shown: str
    retry_after: float | None = None
    tokens: int | None = None
    window: int | None = None

    def sentence(self, what: str) -> str:
        status = f" ({self.status})" if self.status != 200 else ""
        return f"{self.server} {what}{status}" + (f": {self.shown}" if self.shown else "")


def _too_long(refusal: Refusal) -> RlmdError:
    details = {"tokens": refusal.tokens, "window": refusal.window}
    size = f"{refusal.tokens} tokens" if refusal.tokens else "more tokens than fit"
    room = f"{refusal.window} tokens" if refusal.window else "its window"
    return PromptTooLong(
        f"The prompt has {size}; {refusal.server} takes {room}.",
        hint="Send smaller pieces.",
        **{name: value for name, value in details.items() if value is not None},
    )


def _missing(refusal: Refusal) -> RlmdError:
    return ModelMissing(refusal.sentence("does not serve the model"), hint="`rlmctl host list` shows what it serves.")


def _unpaid(refusal: Refusal) -> RlmdError:
    return HostRefused(refusal.sentence("has no balance left for this key"), status=402)


def _unauthorised(refusal: Refusal) -> RlmdError:
    return HostRefused(
        refusal.sentence("refused the key"),
        hint="Check api_key_env, api_key_file or api_key_command of the host.",
        status=refusal.status,
    )


def _used_up(refusal: Refusal) -> RlmdError:
    return HostRefused(refusal.sentence("gives this account nothing more for now"), status=402)


def _flagged(refusal: Refusal) -> RlmdError:
    return HostRefused(refusal.sentence("will not answer this text"), status=refusal.status, text_alone=True)


def _overloaded(refusal: Refusal) -> RlmdError:
    return HostOverloaded(refusal.sentence("is overloaded"), retry_after=refusal.retry_after)


def _loading(refusal: Refusal) -> RlmdError:
    return HostOverloaded(refusal.sentence("is loading its model"), retry_after=refusal.retry_after or 2.0)


def _failed(refusal: Refusal) -> RlmdError:
    return HostFailed(refusal.sentence("failed"), status=refusal.status)


def _redirected(refusal: Refusal) -> RlmdError:
    return HostRefused(refusal.sentence("redirects elsewhere"), hint="Use the final URL.", status=refusal.status)


def _refused(refusal: Refusal) -> RlmdError:
    return HostRefused(refusal.sentence("refused the request"), status=refusal.status)


_TOO_LONG = (
    r"exceed_context_size|context_length_exceeded|maximum context length|exceeds? the (available |maximum |model'?s? )?"
    r"(context|input)|input length exceeds|(prompt|input) is too long|context window (is )?exceeded"
    # Anthropic, of a prompt with max_tokens; LM Studio: https://github.com/lmstudio-ai/lmstudio-bug-tracker
    r"|exceed context limit|greater than the context length|context (the )?overflows|context length of only"
)
_UNPAID = (
    r"balance|billing|insufficient[_ ](quota|funds|credit)|spend(ing)?[_ ]limit|arrears|recharge|account.{0,20}locked"
    # Z.ai's codes for accounts that are locked, in arrears, or past their plan: https://docs.z.ai/api-reference/api-code
    r"|(^| )(111[0-3]|1121|1309)( |$)"
)
#: Limits that come back by themselves, in hours or days: Z.ai's of a day, of a plan's hours, of its week or month.
_USED_UP = r"(^| )(1304|1308|1310)( |$)|usage limit reached|daily call limit"
#: OpenRouter, while requests in flight hold what is left: https://openrouter.ai/docs/errors
_IN_FLIGHT = r"in_flight_budget"
#: It says with a 403 that a model's moderation refused the text: https://openrouter.ai/docs/errors
_FLAGGED = r"moderation|flagged|guardrail"
_BETWEEN = re.compile(r"[\W_]+")
#: Characters as JSON, Python and their kin write them.
_ESCAPED = re.compile(r"\\(?:(?P<code>u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|.)")
#: Anthropic says it with a 400: https://docs.anthropic.com/en/api/errors
_UNPAID_400 = r"credit balance is too low|spend(ing)?[_ ]limit|reached your specified (\w+ ){0,2}usage limits"
_NO_MODEL = (
    r"model.{0,200}(not found|does not exist|not exist|unknown|is required)|model_not_found|no such model|invalid model"
    r"|^model: \S|no models? (is |are )?(currently )?loaded"
)

#: First match wins: statuses (None: any), pattern in the server's words (None: any), what it means.
RULES: tuple[tuple[Callable[[int], bool] | None, str | None, Callable[[Refusal], RlmdError]], ...] = (
    (None, _TOO_LONG, _too_long),
    (lambda s: s == 413, None, _too_long),
    (lambda s: s == 402, _IN_FLIGHT, _overloaded),
    (lambda s: s in (402, 403, 429), _UNPAID, _unpaid),
    (lambda s: s == 429, _USED_UP, _used_up),
    (lambda s: s == 403, _FLAGGED, _flagged),
    (lambda s: s == 400, _UNPAID_400, _unpaid),
    (lambda s: s == 402, None, _unpaid),
    (lambda s: s in (401, 403, 407), None, _unauthorised),
    (lambda s: s in (200, 400, 404, 422), _NO_MODEL, _missing),
    (lambda s: s == 429, None, _overloaded),
    (lambda s: s in (200, 503), r"loading model", _loading),
    (lambda s: s in (503, 529), None, _overloaded),
    (lambda s: s == 200, r"overloaded|rate.?limit|server busy|pending requests", _overloaded),
    (lambda s: s >= 500 or s in (200, 408, 409, 425), None, _failed),
    (lambda s: 300 <= s < 400, None, _redirected),
    (None, None, _refused),
)


def classify(refusal: Refusal) -> RlmdError:
    for statuses, pattern, meaning in RULES:
        if statuses is not None and not statuses(refusal.status):
            continue
        if pattern is None or re.search(pattern, refusal.said, re.IGNORECASE):
            return meaning(refusal)
    raise AssertionError("the last rule matches everything")


def refusal_of(
    server: str,
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    secrets: tuple[str, ...] = (),
    prompt: tuple[str, ...] = (),
) -> Refusal:
    """Reads an error body: any of the shapes met in the wild, or plain text."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = body[:4000].decode("utf-8", "replace")
    said, message, numbers = _read(parsed)
    inner = numbers.get("code", 0)
    tokens, window = _numbers(said, numbers)
    return Refusal(
        server=server,
        # an error inside a 200 often tells its status in the body
        status=inner if status == 200 and 400 <= inner < 600 else status,
        said=said,
        shown=showable(message, secrets=secrets, prompt=prompt),
        retry_after=retry_after(headers),
        tokens=tokens,
        window=window,
    )


#: Where a body says what was wrong.
_TEXTUAL = ("message", "msg", "type", "code", "param", "details", "metadata")


def _read(parsed: Any) -> tuple[str, str, dict[str, int]]:
    """Everything said, the sentence for people, and the numbers, of ``{"error": …}``, ``{"detail": …}`` and kin."""
    error = parsed
    if isinstance(parsed, dict):
        error = next((parsed[name] for name in ("error", "detail", "message") if parsed.get(name)), parsed)
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else json.dumps(error)[:4000]
        return text, text, {}
    message = str(error.get("message") or error.get("msg") or "")
    said = " ".join(str(error.get(name) or "") for name in _TEXTUAL)
    numbers = {}
    for name in ("code", "n_prompt_tokens", "n_ctx"):
        value = error.get(name)
        if isinstance(value, int) or (isinstance(value, str) and value.isdecimal() and len(value) < 10):
            numbers[name] = int(value)
    return said, message, numbers


def _numbers(said: str, numbers: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Tokens of the prompt and the window, where the server told them in fields or in words."""
    tokens, window = numbers.get("n_prompt_tokens"), numbers.get("n_ctx")
    if found := re.search(r"request \((\d{1,9}) tokens\).{0,80}?\((\d{1,9}) tokens\)", said):
        return tokens or int(found[1]), window or int(found[2])
    if found := re.search(r"(\d{1,9}) tokens > (\d{1,9}) maximum", said):
        return tokens or int(found[1]), window or int(found[2])
    if found := re.search(r"maximum context length is (\d{1,9})", said):
        window = window or int(found[1])
    if found := re.search(r"(?:request has|requested|resulted in) (\d{1,9})", said):
        tokens = tokens or int(found[1])
    return tokens, window


def showable(text: str, *, secrets: tuple[str, ...] = (), prompt: tuple[str, ...] = ()) -> str:
    """The server's words on one short line, or nothing when they repeat part of a secret or of the prompt, in whatever
    form: on one line, in capitals, or escaped as JSON, Python and HTML do it."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: SHOWN_CHARS * 4]).split())
    if len(line) > SHOWN_CHARS:
        line = line[: SHOWN_CHARS - 1] + "…"
    if sum(map(len, prompt)) > COMPARED_CHARS:
        return ""
    said = _bare(_unescaped(line.removesuffix("…")))
    if any(_share(said, _bare(secret), SHARED_OF_SECRET) for secret in secrets):
        return ""
    for part in map(_bare, prompt):
        if _share(said, part, SHARED_CHARS) or (3 < len(part) < SHARED_CHARS and part in said):
            return ""
    return line.rstrip(".")


def _unescaped(line: str) -> str:
    """A text that a server quotes in JSON within JSON is escaped twice, or more often."""
    for _ in range(4):
        before, line = line, _ESCAPED.sub(_meant, html.unescape(line))
        if line == before:
            break
    return line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # escaped halves of a character


def _meant(escape: re.Match[str]) -> str:
    if escape["code"]:
        return chr(int(escape["code"][1:], 16))
    return " " if escape[0][1] in "nrtfbv" else escape[0][1]


def _bare(text: str) -> str:
    """Letters and digits alone: what stands between them, and their case, change when a text is repeated."""
    return _BETWEEN.sub("", text.casefold())


def _share(line: str, text: str, least: int) -> bool:
    """Whether so many characters in a row stand in both; of a shorter line whether it stands in the text whole. A few
    looks at the text: each such stretch holds one of every ``least // 2`` characters of the line whole."""
    if len(line) < least:
        return bool(line) and line in text
    step = least // 2
    return any(
        line[start : start + least] in text
        for at in range(0, len(line) - step + 1, step)
        if line[at : at + step] in text
        for start in range(max(0, at - step + 1), min(at, len(line) - least) + 1)
    )


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds from ``retry-after-ms`` or ``retry-after`` (seconds or a date); None when absent or senseless."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif (given := headers.get("retry-after")) is None:
            return None
        elif re.fullmatch(r"[0-9.]+", given.strip()):
            seconds = float(given)
        else:
            seconds = parsedate_to_datetime(given).timestamp() - now()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def is_final_for_host(error: CompletionError) -> bool:
    """The key, the account or the URL is wrong: true for every request, not only this one."""
    if not isinstance(error, HostRefused) or error.details.get("text_alone"):
        return False
    return error.details.get("status") in (301, 302, 307, 308, 401, 402, 403, 407)
