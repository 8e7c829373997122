"""Which files of a folder nobody wrote or means to ask about: generated, vendored, minified. By rule, as data.

Names decide first; of what is left, the first bytes. Whoever names such a folder in ``include``, or asks for
everything, gets it. Knows names and bytes, opens nothing.
"""

from __future__ import annotations

import re

from rlmd.contexts.records import SkipReason

#: Folders that hold what others wrote, or what a tool made of it.
FOLDERS: dict[str, SkipReason] = {
    **dict.fromkeys(("node_modules", "bower_components", "jspm_packages", "site-packages", "third_party"), "vendored"),
    **dict.fromkeys(("vendor", ".venv", ".tox", ".nox", ".eggs", ".bundle"), "vendored"),
    **dict.fromkeys(("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"), "generated"),
    **dict.fromkeys((".gradle", ".next", ".nuxt", ".terraform", ".direnv"), "generated"),
}
#: Files that a tool writes: lock files, bindings, maps.
_GENERATED = re.compile(
    r"(package-lock|npm-shrinkwrap|composer\.lock)\.json|(yarn|poetry|uv|pdm|Cargo|Gemfile|composer|flake|mix|Pipfile)"
    r"\.lock|pnpm-lock\.yaml|go\.sum|.+_pb2(_grpc)?\.pyi?|.+\.pb\.(go|cc|h)|.+\.(js|css|mjs)\.map"
    # what Emacs and vim keep beside a file, and byte-compiled Lisp
    r"|.+~|#.+#|\..+\.sw[op]|.+\.elc"
)
_MINIFIED = re.compile(r".+[.-]min\.(js|css|mjs)")
_SQUEEZED = (".js", ".mjs", ".cjs", ".css")
#: Bytes of a line beyond which a script was written by a minifier: people's are below 200.
_LONG_LINE = 1000
#: Go's convention (golang.org/s/generatedcode) and the tag that most other generators write; both stand at the top.
_MARK = re.compile(rb"^\W{0,10}(Code generated .{0,200} DO NOT EDIT\.?\W{0,5}$|@generated\b)", re.MULTILINE)
_MARK_BYTES = 2048


def of_name(name: str) -> SkipReason | None:
    """Why a file of this bare name is no document, if so."""
    if _GENERATED.fullmatch(name):
        return "generated"
    return "minified" if _MINIFIED.fullmatch(name) else None


def of_head(name: str, head: bytes) -> SkipReason | None:
    """Why a file that begins with ``head`` (some KiB) is no document, if so."""
    if _MARK.search(head[:_MARK_BYTES]):
        return "generated"
    if name.endswith(_SQUEEZED) and max(map(len, head.split(b"\n"))) > _LONG_LINE:
        return "minified"
    return None


def named_in(patterns: tuple[str, ...]) -> frozenset[str]:
    """The folders that patterns mention by name: these are meant."""
    return frozenset(part for pattern in patterns for part in pattern.split("/"))
