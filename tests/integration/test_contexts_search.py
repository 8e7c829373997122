"""Searching through the store: places are exact for any text, helpers may die, the loop goes on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rlmd.contexts import ContextStore, InlineSource, PathSource, searching
from rlmd.errors import InvalidParams, NotFound
from rlmd.events import Span
from tests.harness import Client, RpcFailure, load_text

#: Everything that shifts offsets: raw bytes, halves of characters, CRLF, NUL, astral, composed and decomposed letters.
PIECES = st.sampled_from(
    ["needle", "Needle ", "a", "b\r\n", "\n", "\n\n", "\0", "é", "e\u0301", "ż", "🐢", "日本", "\udcff", "\udcc3\udca9",
     "\udca9", " ", "word and word. ", "“quoted”", "x" * 40]
)  # fmt: skip
TEXTS = st.lists(PIECES, min_size=1, max_size=60).map("".join)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ContextStore]:
    opened = await ContextStore.open(tmp_path / "state", tmp_path / "cache", tmp_path / "spool")
    yield opened
    await opened.close()


def in_a_store(work: Callable[[ContextStore], Awaitable[None]]) -> None:
    """Runs work over a store that lives for one example."""

    async def run(root: Path) -> None:
        store = await ContextStore.open(root / "state", root / "cache", root / "spool")
        try:
            await work(store)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


@given(st.lists(TEXTS, min_size=10, max_size=20), st.data())
# Each example is a store and a process: shrinking would take longer than all other tests together.
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_places_agree_with_slicing(texts: list[str], data: st.DataObject) -> None:
    """Peek, regex, exact find and ranked search report code points of the text as Python slices it."""

    async def work(store: ContextStore) -> None:
        for number, text in enumerate(texts):
            await store.load(InlineSource(text), name=str(number))
        for number, text in enumerate(texts):
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
            pinned = await store.pin(str(number))
            start = data.draw(st.integers(0, len(text) - 1))
            quote = text[start : start + data.draw(st.integers(1, 20))]
            spans = await pinned.find(quote, limit=1000)
            assert [s.start for s in spans] == [m.start() for m in re.finditer(f"(?={re.escape(quote)})", text)]
            assert all(text[s.start : s.end] == quote for s in spans)
            near = Span(context=str(number), document="text", start=start, end=start + len(quote))
            assert (await pinned.find(quote, hint=near, limit=1))[0] == near
            if not any("\udc80" <= c <= "\udcff" for c in quote) and quote.strip():
                assert await pinned.find_normalised(quote)
            hits, complete = await store.search(pinned, "needle|é|日本|🐢", "regex", 1000)
            assert complete
            found = [span for hit in hits for span in hit.matches]
            assert found == [m.span() for m in re.finditer("needle|é|日本|🐢", text)]
            ranked, _ = await store.search(pinned, "needle word", "bm25", 1000)
            for hit in (*hits, *ranked):
                assert text[hit.start : hit.end] == hit.text
                assert hit.line == text.count("\n", 0, hit.start) + 1
                peek = await store.peek(str(number), start=hit.start, chars=max(1, hit.end - hit.start))
                assert peek.text.startswith(hit.text)

    in_a_store(work)


async def test_the_hinted_place_of_a_quote_that_stands_everywhere_comes_first(store: ContextStore) -> None:
    await store.load(InlineSource("x" * 5000), name="n")
    pinned = await store.pin("n")
    hint = Span(context="n", document="text", start=2500, end=2509)
    assert (await pinned.find("x" * 9, hint=hint, limit=1)) == [hint]
    first, second, third = await pinned.find("x" * 9, hint=hint, limit=3)
    assert (first.start, {second.start, third.start}) == (2500, {2499, 2501})


SOURCE = "He said: “It’s the end—almost.”\r\n  Then\tthe Café closed;\nthe naïve\u00a0waiter… left."


@pytest.mark.parametrize(
    "quote",
    [
        'he said: "it\'s the end - almost."',
        "It's the end -- almost.\" Then the café",
        "THEN THE CAFE\u0301 CLOSED; THE NAI\u0308VE WAITER... LEFT.",
        "waiter...",
    ],
)
async def test_a_retyped_quote_is_found(store: ContextStore, quote: str) -> None:
    await store.load(InlineSource("before\n" + SOURCE + "\nafter"), name="n")
    pinned = await store.pin("n")
    assert await pinned.find(quote) == []
    (span,) = await pinned.find_normalised(quote)
    text = pinned.read("text", span.start, span.end)
    assert text in SOURCE
    assert len(text) >= len(quote) - 6


async def test_a_raw_byte_is_not_found_within_a_letter(store: ContextStore) -> None:
    """Its byte is there, but the place begins in the midst of a code point."""
    await store.load(InlineSource("é x \udca9 y"), name="text")
    spans = await (await store.pin("text")).find("\udca9", limit=10)
    assert [(span.start, span.end) for span in spans] == [(4, 5)]


async def test_a_regex_of_single_bytes_finds_no_half_of_a_letter(store: ContextStore) -> None:
    await store.load(InlineSource("éx"), name="text")
    hits, _ = await store.search("text", r"\C", "regex")
    assert [hit.matches for hit in hits] == [((1, 2),)]


async def test_a_quote_that_is_not_there_is_not_found(store: ContextStore) -> None:
    await store.load(InlineSource(SOURCE), name="n")
    pinned = await store.pin("n")
    assert await pinned.find_normalised("He said: it is the end") == []
    assert await pinned.find_normalised("   ") == []
    assert await pinned.find("") == []
    long = "word " * 3000
    assert await pinned.find_normalised(long) == []


async def test_a_long_quote_is_verified_to_its_end(store: ContextStore) -> None:
    body = " ".join(f"sentence {n} of it." for n in range(400))
    await store.load(InlineSource(body.replace(" ", "\n")), name="n")
    pinned = await store.pin("n")
    (span,) = await pinned.find_normalised(body)
    assert (span.start, span.end) == (0, len(body))
    assert await pinned.find_normalised(body + " and more") == []


async def test_matches_stay_within_documents(store: ContextStore, tmp_path: Path) -> None:
    """Documents lie side by side in one blob; a quote across the seam is no quote."""
    folder = tmp_path / "d"
    folder.mkdir()
    for name, text in (("a", "one two"), ("b", "three"), ("c", "two three")):
        (folder / name).write_text(text)
    await store.load(PathSource((str(folder),)), name="d")
    pinned = await store.pin("d")
    assert await pinned.find("twothree") == []
    assert [(s.document, s.start) for s in await pinned.find("two")] == [("a", 4), ("c", 0)]
    hits, complete = await store.search("d", "^t", "regex", 10)
    assert [(h.document, h.text) for h in hits] == [("b", "three"), ("c", "two three")]
    assert complete
    hits, complete = await store.search("d", "t", "regex", 1)
    assert (len(hits), complete) == (1, False)
    with pytest.raises(InvalidParams, match="re2"):
        await store.search("d", "(?<=look)behind", "regex")


async def test_ranked_search_follows_updates_and_pins(store: ContextStore, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.txt").write_text("The giraffe has a long neck.")
    (folder / "b.txt").write_text("The elephant has a long nose.")
    await store.load(PathSource((str(folder),)), name="d")
    old = await store.pin("d")
    (folder / "a.txt").write_text("The zebra has stripes.")
    await store.load(PathSource((str(folder),)), name="d")
    assert [h.document for h in (await store.search("d", "giraffe neck"))[0]] == []
    assert [h.document for h in (await store.search("d", "zebra"))[0]] == ["a.txt"]
    assert [h.text for h in (await store.search(old, "giraffe"))[0]] == ["The giraffe has a long neck."]
    assert (await store.search("d", "?!"))[0] == []


async def test_a_question_in_other_words_finds_its_passage_by_meaning(store: ContextStore, tmp_path: Path) -> None:
    """The words are those of other passages; a question in a passage's own words is answered by words alone."""
    folder = tmp_path / "handbook"
    folder.mkdir()
    rooms = ("kitchen", "garden", "office", "library", "workshop", "garage", "cellar", "attic", "studio", "stable")
    for number, room in enumerate(rooms):
        (folder / f"{room}.txt").write_text(
            f"The people in the {room} of the building have a meeting at {number} on the budget.\n"
        )
    (folder / "alarm.txt").write_text("In case of fire, evacuate the building by the emergency exit.\n")
    await store.load(PathSource((str(folder),)), name="handbook")
    hits, _ = await store.search("handbook", "How do people escape from flames in the building?")
    assert hits[0].document == "alarm.txt"
    hits, _ = await store.search("handbook", "When do the people in the attic meet?")
    assert hits[0].document == "attic.txt"


async def test_passages_side_by_side_are_one_hit(store: ContextStore, tmp_path: Path) -> None:
    """Up to the size of two; the place of the second is left to another document's passage."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    # Sections of 500 characters: three of them are one hit, four are more than one may be.
    sections = [
        f"House {number}\n=======\n\nA giraffe lives here. " + " ".join(f"word{number}x{n}" for n in range(53)) + "\n\n"
        for number in range(1, 5)
    ]
    text = "".join(sections)
    (folder / "houses.txt").write_text(text)
    (folder / "food.txt").write_text("A giraffe eats leaves.\n")
    await store.load(PathSource((str(folder),)), name="zoo")
    hits, _ = await store.search("zoo", "giraffe")
    assert sorted((hit.document, hit.text.count("giraffe")) for hit in hits) == [
        ("food.txt", 1),
        ("houses.txt", 1),
        ("houses.txt", 3),
    ]
    for hit in hits:
        if hit.document == "houses.txt":
            assert hit.text == text[hit.start : hit.end]
            assert hit.line == text.count("\n", 0, hit.start) + 1


async def test_an_index_is_kept_and_a_damaged_one_rebuilt(tmp_path: Path) -> None:
    for round_number in range(3):
        store = await ContextStore.open(tmp_path / "state", tmp_path / "cache", tmp_path / "spool")
        try:
            if round_number == 0:
                await store.load(InlineSource("a needle in the hay"), name="n")
            hits, _ = await store.search("n", "needle")
            assert [h.text for h in hits] == ["a needle in the hay"]
        finally:
            await store.close()
        (index,) = (tmp_path / "cache").rglob("*.sqlite")
        if round_number == 0:
            before = index.stat().st_ino
        else:
            index.write_bytes(b"damaged" * 5000)
        assert round_number == 2 or index.stat().st_ino == before


def helpers() -> set[int]:
    """The processes that this one started."""
    children = set()
    for task in Path("/proc/self/task").iterdir():
        children |= {int(pid) for pid in (task / "children").read_text().split()}
    return {pid for pid in children if b"helper_child" in Path(f"/proc/{pid}/cmdline").read_bytes()}


async def test_a_killed_helper_is_replaced(store: ContextStore) -> None:
    await store.load(InlineSource("a needle in the hay"), name="n")
    await store.search("n", "needle")
    for pid in helpers():
        os.kill(pid, signal.SIGKILL)
    pinned = await store.pin("n")
    assert len(await pinned.find("needle")) == 1
    assert len((await store.search("n", "needle"))[0]) == 1


def test_a_helper_whose_daemon_died_before_it_began_does_nothing() -> None:
    """The kernel tells nobody of a parent that was gone when it was asked to."""
    request = b'{"operation": "index", "context": 1, "revision": 1}'
    start = "import sys; from rlmd.contexts.helper_child import main; main(int(sys.argv.pop()))"
    told = [
        subprocess.run(
            [sys.executable, "-c", start, str(parent)],
            input=len(request).to_bytes(4, "big") + request, capture_output=True, timeout=60, check=True,
        ).stdout
        for parent in (os.getpid(), os.getpid() - 1)
    ]  # fmt: skip
    assert (bool(told[0]), told[1]) == (True, b"")


async def test_a_cancelled_search_leaves_no_late_reply(store: ContextStore) -> None:
    await store.load(InlineSource("x" * 300 + "needle"), name="n")
    pinned = await store.pin("n")
    await pinned.find("x" * 10, limit=1)
    ask = asyncio.create_task(pinned.find("needle"))
    for _ in range(3):
        await asyncio.sleep(0)
    ask.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ask
    assert [s.start for s in await pinned.find("xneedle")] == [299]


async def test_closing_ends_the_helpers(tmp_path: Path) -> None:
    store = await ContextStore.open(tmp_path / "state", tmp_path / "cache", tmp_path / "spool")
    await store.load(InlineSource("a needle in the hay"), name="n")
    await store.search("n", "needle")
    assert helpers()
    await store.close()
    assert not helpers()


async def test_dropping_while_indexing(store: ContextStore) -> None:
    await store.load(InlineSource("some words to index. \n\n" * 200_000), name="big")
    await store.drop("big")
    with pytest.raises(NotFound):
        await store.search("big", "words")
    await store.load(InlineSource("a needle"), name="big")
    assert len((await store.search("big", "needle"))[0]) == 1


async def test_a_search_does_not_wait_for_the_time_of_the_index(
    store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_INDEX_AFTER", 3600.0)
    await store.load(InlineSource("a needle in the hay"), name="n")
    await store.load(InlineSource("more hay"), name="m")
    assert not helpers()
    assert len((await store.search("n", "needle"))[0]) == 1


async def test_an_index_is_made_when_nobody_searches_but_not_of_what_was_dropped(
    store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(searching, "_INDEX_AFTER", 0.1)
    monkeypatch.setattr(searching.Searcher, "index_now", lambda _self, context, _revision: begun.append(context))
    dropped, last = 1, 3  # numbers of contexts
    await store.load(InlineSource("a straw"), name="dropped")
    await store.load(InlineSource("a needle"), name="kept")
    await store.drop("dropped")
    begun.clear()  # on a busy machine it had its time
    await store.load(InlineSource("hay"), name="last")
    while last not in begun:
        await asyncio.sleep(0.01)
    assert dropped not in begun


async def test_a_regex_that_is_late_says_how_far_it_came(client: Client) -> None:
    """Not an error: what was found by then, and how much was looked through."""
    await load_text(client, "long", "a match\n" * 1000)
    asked = {"name": "long", "query": "match", "mode": "regex", "limit": 1000}
    whole = await client.call("context/search", asked)
    assert (whole["complete"], whole["late"], whole["searched"], whole["chars"]) == (True, False, 8000, 8000)
    late = await client.call("context/search", {**asked, "seconds": 1e-9})
    assert (late["complete"], late["late"], late["searched"], late["hits"]) == (False, True, 0, [])


async def test_a_regex_comes_in_pages_of_one_revision(client: Client) -> None:
    text = "".join(f"match {number}\n" for number in range(25))
    await load_text(client, "long", text)
    asked = {"name": "long", "query": "match", "mode": "regex", "limit": 10}
    first = await client.call("context/search", {**asked, "cursor": ""})
    assert (len(first["hits"]), first["complete"], first["searched"] < len(text)) == (10, False, True)
    await load_text(client, "long", "another text\n")
    hits, cursor = first["hits"], first["cursor"]
    while cursor is not None:
        page = await client.call("context/search", {**asked, "cursor": cursor})
        hits, cursor = hits + page["hits"], page["cursor"]
    assert [hit["text"] for hit in hits] == text.splitlines()
    assert (page["complete"], page["searched"]) == (True, len(text))
    whole = await client.call("context/search", {**asked, "limit": 1000})
    assert (whole["hits"], whole["cursor"]) == ([], None)
    for wrong in ({"cursor": "x"}, {"cursor": "", "mode": "bm25"}):
        with pytest.raises(RpcFailure) as caught:
            await client.call("context/search", {**asked, **wrong})
        assert caught.value.data["field"] == "cursor"
