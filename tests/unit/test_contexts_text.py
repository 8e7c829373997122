"""The stored form of a text: what is measured while it flows by agrees with Python's own idea of the text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rlmd.contexts import text as text_module
from rlmd.contexts.text import STEP, Meter, Ruler, decode, encode, is_binary, wide_encoding

#: Bytes with everything that shifts offsets: raw bytes, CRLF, NUL, astral, cut sequences, lone surrogates' bytes.
PIECES = st.sampled_from(
    [b"a", b"needle ", b"\r\n", b"\n", b"\0", "é".encode(), "🐢".encode(), "日本".encode(), b"\xff", b"\xc3", b"\xa9",
     b"\xf0\x9f", b"\xed\xa0\x80", b"\xe2\x80", b"x" * 50]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=60).map(b"".join)


def measured(data: bytes, chunk: int) -> Meter:
    meter = Meter()
    for at in range(0, len(data), chunk):
        meter.feed(data[at : at + chunk])
    meter.finish()
    return meter


def ruler_of(data: bytes, meter: Meter) -> Ruler:
    return Ruler(meter.chars, meter.bytes, meter.marks, lambda start, end: data[start:end])


@given(TEXTS, st.integers(1, 40))
def test_measures_agree_with_the_decoded_text(data: bytes, chunk: int) -> None:
    """Wherever the chunks are cut, also inside a character."""
    meter = measured(data, chunk)
    text = decode(data)
    assert (meter.chars, meter.bytes, meter.newlines) == (len(text), len(data), text.count("\n"))
    assert ord(max(text, default="\0")) <= meter.max_codepoint
    assert meter.max_codepoint in (0x7F, 0xFF, 0xFFFF, 0x10FFFF)


@given(data=st.data(), raw=TEXTS, step=st.sampled_from([1, 3, 16, STEP]))
@settings(max_examples=300)
def test_ruler_agrees_with_slicing(data: st.DataObject, raw: bytes, step: int) -> None:
    """A small step makes marks fall everywhere, next to and between raw bytes and wide characters."""
    previous, text_module.STEP = text_module.STEP, step
    try:
        ruler = ruler_of(raw, measured(raw, data.draw(st.integers(1, 40))))
        text = decode(raw)
        start, end = data.draw(st.integers(0, len(text) + 2)), data.draw(st.integers(0, len(text) + 2))
        assert ruler.text(start, end) == text[start : max(start, end)]
        at = min(start, len(text))
        byte = len(encode(text[:at]))
        assert ruler.byte_of(at) == byte
        assert ruler.char_of(byte) == at
        assert ruler.line_of(at) == text.count("\n", 0, at) + 1
    finally:
        text_module.STEP = previous


def test_marks_of_a_long_mixed_text() -> None:
    """Three real steps, two of them not ASCII, read in real chunks."""
    text = "line one\n" * 20_000 + "żółw 🐢\n" * 9_000 + "\udcff" * 5
    raw = encode(text)
    meter = measured(raw, text_module.CHUNK)
    ruler = ruler_of(raw, meter)
    assert len(meter.marks) == 16 * (len(text) // STEP)
    for at in (0, STEP - 1, STEP, 2 * STEP + 1, 3 * STEP, len(text) - 2):
        assert ruler.text(at, at + 7) == text[at : at + 7]
        assert ruler.line_of(at) == text.count("\n", 0, at) + 1


def test_the_first_byte_that_is_no_utf8_is_remembered() -> None:
    """By it the encoding is guessed: of the last one a text that is nearly UTF-8 would be another."""
    raw = encode("żółw") + b"\xff" + b"x" * 50 + b"\xfe" + b"y" * 50
    for chunk in (1, 7, 60, 1000):
        assert measured(raw, chunk).first_stray == len(encode("żółw"))
    assert measured(encode("żółw"), 3).first_stray is None


@given(st.text())
def test_encoding_is_undone_by_decoding(text: str) -> None:
    assert decode(encode(text)) == text


def test_widest_code_point_is_rounded_up() -> None:
    for text, widest in (("abc", 0x7F), ("é", 0xFF), ("ż", 0xFFFF), ("\udcff", 0xFFFF), ("🐢", 0x10FFFF)):
        assert measured(encode(text), 1).max_codepoint == widest, ascii(text)


def test_binary_is_told_from_text() -> None:
    assert is_binary(bytes(range(256)) * 32)
    assert is_binary(b"%PDF-1.7\n")
    assert is_binary(b"\x7fELF" + bytes(60))
    assert is_binary("wide".encode("utf-16-le") * 100)
    assert not is_binary(b"")
    assert not is_binary(b"a log with a stray \0 in it\n" * 2)
    assert not is_binary("Latin-1: \xe9\xe8".encode("latin-1"))


def test_byte_order_marks() -> None:
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        head = "\ufeffab".encode(encoding)
        found = wide_encoding(head)
        assert found is not None
        assert found == (encoding, len("\ufeff".encode(encoding)))
    assert wide_encoding("\ufeffab".encode()) is None
