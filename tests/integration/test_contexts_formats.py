"""What becomes text: encodings, compressed files, PDF, HTML, notebooks, a user's own command; and what does not."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from rlmd.contexts.converting import TABLE, _command
from tests.conftest import StartDaemon
from tests.harness import Client, Folders, Json, RpcFailure, new_run, start_run

GERMAN = "Grüße aus Köln: schöne Straßen, große Häuser und süße Früchte.\r\n" * 20
RUSSIAN = "Привет, как дела? Это обычный русский текст о погоде и природе.\n" * 20
JAPANESE = "これは日本語の文章です。テスト用のテキストを読みます。\n" * 20


def pdf(*pages: str) -> bytes:
    """A PDF of one line of text a page; without text, a page that is only painted on, as scans are."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        body = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else "0 0 100 100 re f"
        objects.append(f"<< /Length {len(body)} >>\nstream\n{body}\nendstream")
        font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R /Resources {font} >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data, offsets = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{one}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    tail = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return data + f"{tail}startxref\n{len(data)}\n%%EOF\n".encode()


HTML = """<html><head><title>Otters</title><script>var hidden = 1;</script></head><body>
<h1>About otters</h1><p>They are <b>mustelids</b> &amp; swim.</p>
FILLER<h2>Food</h2><ul><li>Fish of the river</li><li>Crabs</li></ul>
<table><tr><td>a</td><td>b</td></tr></table></body></html>"""
PAGE = HTML.replace("FILLER", "".join(f"<p>Word {number} about nothing at all.</p>" for number in range(300)))
NOTEBOOK = {
    "nbformat": 4,
    "cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "words of the notebook"]},
        {"cell_type": "code", "source": "print(6 * 7)", "outputs": [{"output_type": "stream", "text": ["42\n"]}]},
    ],
}


async def load(client: Client, path: Path, name: str = "x", **more: object) -> Json:
    source = {"kind": "path", "paths": [str(path)], "convert": True, **more}
    return await client.call("context/load", {"name": name, "source": source})


async def read(client: Client, name: str = "x", document: str | None = None) -> str:
    text: str = (await client.call("context/peek", {"name": name, "document": document, "chars": 60_000}))["text"]
    return text


async def document(client: Client, name: str = "x") -> Json:
    one: Json = (await client.call("context/info", {"name": name}))["documents"][0]
    return one


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", GERMAN), ("cp1251", RUSSIAN), ("koi8-r", RUSSIAN), ("shift-jis", JAPANESE), ("euc-jp", JAPANESE),
        ("utf-16", GERMAN), ("utf-16-le", GERMAN), ("utf-16-be", GERMAN), ("utf-32", RUSSIAN), ("utf-8-sig", RUSSIAN),
    ],
)  # fmt: skip
async def test_encodings_are_found_and_told(client: Client, folders: Folders, encoding: str, text: str) -> None:
    path = folders.home / "text.txt"
    path.write_bytes(text.encode(encoding))
    report = await load(client, path)
    assert await read(client) == text
    told = (await document(client))["encoding"]
    assert told.split("-")[0] == encoding.split("-")[0]
    assert bool(report["notes"]) == (told != "utf-8")
    assert (await load(client, path))["change"] == "unchanged"


async def test_stray_bytes_do_not_make_another_encoding(client: Client, folders: Folders) -> None:
    """A log in UTF-8 with a few bytes that are none; and whoever asks for the bytes as they are gets them."""
    path = folders.home / "log"
    data = (RUSSIAN + "żółw 🐢\n").encode() + b"\xff\xfe broken \xe4\n" + RUSSIAN.encode()
    path.write_bytes(data)
    report = await load(client, path)
    assert (await document(client))["encoding"] == "utf-8"
    assert "no UTF-8" in report["notes"][0]
    assert (await read(client)).count("�") == 3
    path.write_bytes(GERMAN.encode("cp1252"))
    raw = await load(client, path, "raw", convert=False)
    assert raw["notes"] == []
    assert (await document(client, "raw"))["encoding"] == "utf-8"
    assert (await document(client, "raw"))["chars"] == len(GERMAN)


async def test_compressed_files(client: Client, folders: Folders) -> None:
    data = (GERMAN * 2000).encode()
    zstd = subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
    two_members = gzip.compress(data[:1000]) + gzip.compress(data[1000:])
    packed = {"gzip": two_members, "xz": lzma.compress(data), "bzip2": bz2.compress(data), "zstd": zstd}
    for name, content in packed.items():
        path = folders.home / f"packed.{name}"
        path.write_bytes(content)
        report = await load(client, path, name)
        assert (report["chars"], report["bytes"]) == (len(GERMAN) * 2000, len(data)), name
        told = await document(client, name)
        assert told["format"] == name
        assert told["digest"] != told["origin_digest"]
        assert (await load(client, path, name))["change"] == "unchanged"


async def test_html_and_notebooks_keep_their_headings(client: Client, folders: Folders) -> None:
    (folders.home / "page.html").write_text(PAGE)
    await load(client, folders.home / "page.html", "page")
    text = await read(client, "page")
    assert "# About otters\n" in text
    assert "They are mustelids & swim." in text
    assert "- Fish of the river" in text
    assert "hidden" not in text
    (folders.home / "work.ipynb").write_text(json.dumps(NOTEBOOK))
    await load(client, folders.home / "work.ipynb", "work")
    assert "## Cell 2 (code)\n\n```\nprint(6 * 7)\n```\nOutput:\n42" in await read(client, "work")
    run = new_run("Fish of the river, crabs: what food is there?", "page", strategy="quote")
    await start_run(client, run)
    citations = (await client.call("run/show", {"run_id": run["run_id"]}))["citations"]
    assert {one["locator"]["heading"] for one in citations} & {"Food", "About otters"}, citations
    await load(client, folders.home / "page.html", "page", convert=False)
    assert await read(client, "page") == PAGE, "as Emacs shows it, when it is not to be converted"


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
DOCX = f"""<w:document xmlns:w="{WORD}"><w:body>
<w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>About otters</w:t></w:r></w:p>
<w:p><w:r><w:t xml:space="preserve">They are </w:t></w:r><w:r><w:t>mustelids &amp; swim.</w:t></w:r></w:p>
<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t></w:r></w:p></w:body></w:document>"""
ODT = """<o:document-content xmlns:o="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:t="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><o:body><o:text>
<t:h t:outline-level="2">About otters</t:h><t:p>They are <t:span>mustelids</t:span> &amp; swim.</t:p>
<t:p>a<t:tab/>b</t:p></o:text></o:body></o:document-content>"""
EPUB = {
    "META-INF/container.xml": "<container><rootfiles><rootfile full-path='in/b.opf'/></rootfiles></container>",
    "in/b.opf": "<package><manifest><item id='two' href='2.html'/><item id='one' href='a%20b.html'/></manifest>"
    "<spine><itemref idref='one'/><itemref idref='two'/></spine></package>",
    "in/a b.html": "<h2>About otters</h2><p>They are mustelids &amp; swim.</p>",
    "in/2.html": "<p>a\tb</p>",
}


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize(
    ("name", "members"),
    [("x.docx", {"word/document.xml": DOCX}), ("x.odt", {"content.xml": ODT}), ("x.epub", EPUB)],
    ids=["docx", "odt", "epub"],
)
async def test_documents_of_offices_and_books(
    client: Client, folders: Folders, name: str, members: dict[str, str]
) -> None:
    """By the headings, as HTML is; damaged, or with entities that grow without end, they are refused."""
    path = zipped(folders.home / name, members)
    await load(client, path)
    lines = [line.split() for line in (await read(client)).splitlines() if line.strip()]
    assert lines == [["##", "About", "otters"], ["They", "are", "mustelids", "&", "swim."], ["a", "b"]]
    assert (await document(client))["format"] == name[2:]
    ended = await start_run(client, new_run("mustelids", "x", strategy="quote"))
    assert ended["citations"][0]["locator"]["heading"] == "About otters"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RpcFailure, match="may be damaged or encrypted"):
        await load(client, path, "y")
    laughs = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 12))
    main = next(iter(members))
    bomb = {**members, main: f"<!DOCTYPE z [<!ENTITY l0 'ha'>{laughs}]><z>&l11;</z>"}
    with pytest.raises(RpcFailure, match="may be damaged or encrypted"):
        await load(client, zipped(path, bomb), "y")


async def test_what_is_no_text_says_how_to_get_at_it(client: Client, folders: Folders) -> None:
    for head, word in (
        (b"\x89PNG\r\n", "tesseract"),
        (b"SQLite format 3\0\0\0\0\0\0", "sqlite3"),
        (b"PK\3\4", "unpack"),
    ):
        (folders.home / "it").write_bytes(head)
        with pytest.raises(RpcFailure, match="binary") as refused:
            await load(client, folders.home / "it")
        assert word in refused.value.data["hint"]


async def test_pdf_pages_are_cited(client: Client, folders: Folders) -> None:
    pages = [f"Page {number} tells of the {animal} that lives in the wood." for number, animal in
             enumerate(("marten", "badger", "capercaillie"), 1)]  # fmt: skip
    (folders.home / "animals.pdf").write_bytes(pdf(*pages))
    await load(client, folders.home / "animals.pdf", "animals")
    run = new_run("Where does the capercaillie live?", "animals", strategy="quote")
    await start_run(client, run)
    citations = (await client.call("run/show", {"run_id": run["run_id"]}))["citations"]
    labels = [one["locator"]["label"] for one in citations if "capercaillie" in one["quote"]]
    assert labels, citations
    assert {label.rpartition(", ")[2] for label in labels} <= {"page 1", "page 2", "page 3"}
    only = [one for one in citations if one["quote"].startswith("Page 3")]
    assert all(one["locator"]["page"] == 3 for one in only)


async def test_a_scan_says_so(client: Client, folders: Folders) -> None:
    (folders.home / "scan.pdf").write_bytes(pdf("", ""))
    with pytest.raises(RpcFailure) as caught:
        await load(client, folders.home / "scan.pdf")
    assert caught.value.data["kind"] == "not_text"
    assert "ocrmypdf" in caught.value.data["hint"]


async def test_what_cannot_be_converted_is_told_and_stops_no_folder(client: Client, folders: Folders) -> None:
    root = folders.home / "mixed"
    root.mkdir()
    (root / "good.txt").write_text("good\n")
    (root / "torn.gz").write_bytes(gzip.compress(b"x" * 100_000)[:-20])
    (root / "archive.gz").write_bytes(gzip.compress(bytes(10_000)))
    (root / "scan.pdf").write_bytes(pdf(""))
    (root / "broken.ipynb").write_text("[1, 2")
    report = await load(client, root)
    assert report["documents"] == 1
    skipped = {one["reason"]: one["examples"] for one in report["skipped"]}
    assert skipped == {"binary": ["archive.gz"], "unconverted": ["broken.ipynb", "scan.pdf", "torn.gz"]}
    assert any("ocrmypdf" in note for note in report["notes"])


async def test_a_bomb_is_stopped(folders: Folders, start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 MB that unpack to 10 GB: refused at the cap, with nothing left on the disk."""
    bomb = folders.home / "bomb.gz"
    member = gzip.compress(bytes(b" " * (64 << 20)), 9)
    bomb.write_bytes(member * 20)
    daemon = await start_daemon()
    async with daemon.connect() as client:
        with pytest.raises(RpcFailure) as caught:
            await load(client, bomb)
        assert caught.value.data["kind"] == "too_large"
        store = folders.state / "rlmd" / "contexts" / "store" / "blobs"
        assert not [path for path in store.rglob("*") if path.is_file()]
        assert (await client.call("context/list"))["contexts"] == []


async def test_a_command_of_the_user_in_its_cage(folders: Folders, start_daemon: StartDaemon) -> None:
    """It has the file and the system's programs, and neither the home folder nor the network nor the daemon's state."""
    (folders.home / "secret").write_text("not for converters")
    look = (
        "cat; ls " + str(folders.home) + " 2>&1; ls " + str(folders.state) + " 2>&1; cat /proc/net/dev; echo > /tmp/x"
    )
    folders.write_config(f'[converters.shouted]\nsuffixes = [".shout"]\ncommand = ["sh", "-c", "{look}; echo done"]\n')
    (folders.home / "a.shout").write_text("WORDS\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load(client, folders.home / "a.shout")
        text = await read(client)
        assert (await document(client))["format"] == "shouted"
        assert text.startswith("WORDS\n")
        assert text.count("No such file") == 2
        assert "secret" not in text
        assert "eth" not in text
        assert text.endswith("done\n")


@pytest.mark.parametrize("name", ["gzip", "html", "notebook"])
def test_a_converter_of_ours_is_sealed_before_it_reads(name: str) -> None:
    """What the kernel says of the process while it waits for the file."""
    converter = next(one for one in TABLE if one.name == name)
    with subprocess.Popen(_command(converter), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        told: dict[str, str] = {}
        while told.get("Seccomp") != "2" and time.monotonic() < deadline:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            told = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
            time.sleep(0.02)
        process.kill()
    assert (told["Seccomp"], told["NoNewPrivs"], told["CapEff"]) == ("2", "1", "0" * 16)
