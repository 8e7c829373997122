"""Makes rlmd/contexts/word_vectors.bin: vectors of pieces of words, distilled from a sentence model.

    python docs/word_vectors.py MODEL TEXTS OUT

Args:
    MODEL: The folder of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), the teacher.
    TEXTS: A file with a sentence or two a line, some 170,000 lines. The table that is shipped was made from WordNet's
        glosses and examples, FOLDOC, the Jargon File and GCIDE, and the running text of these packages of Debian 12:
        manpages, manpages-dev, python3.11-doc, git-doc, postgresql-doc-15, apache2-doc, sqlite3-doc, rust-doc,
        debian-policy, debian-reference-en, glibc-doc, bash-doc; mixed, no text twice, none from the retrieval tests.
    OUT: Where the table goes.

Needs torch, sentence-transformers and numpy, which rlmd itself does not. On one core the teacher reads 100 to 250 texts
a second; the rest takes a minute. A student text is the sum of its pieces' vectors; it is trained so that its direction
is the teacher's (cosine), and so that texts are as near to each other as the teacher has them (over a batch).
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import numpy
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import embedding_bag, normalize

DIMENSIONS = 96
EPOCHS = 5
BATCH = 512
RATE = 2e-3
#: A piece that stands in this share of all words counts half of a rare one at the start.
COMMON = 1e-3
#: Only these pieces are kept: words of ASCII letters and digits, whole or continued.
PIECE = re.compile(r"(##)?[a-z0-9]+")


def pieces_alone(teacher: SentenceTransformer, count: int) -> torch.Tensor:
    """The teacher's vector of every piece by itself: where training begins."""
    transformer = teacher[0].auto_model
    rows = []
    with torch.no_grad():
        for first in range(0, count, BATCH):
            ids = torch.arange(first, min(count, first + BATCH))
            framed = torch.stack([torch.full_like(ids, 101), ids, torch.full_like(ids, 102)], 1)
            hidden = transformer(input_ids=framed, attention_mask=torch.ones_like(framed)).last_hidden_state
            rows.append(hidden.mean(1).float())
    found = torch.cat(rows)
    return normalize(found - found.mean(0), dim=1)


def train(texts: list[torch.Tensor], wanted: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """The table of vectors, one row a piece."""
    centred = wanted - wanted.mean(0)
    axes = torch.linalg.svd(centred[torch.randperm(len(centred))[:20_000]], full_matrices=False)[2][:DIMENSIONS].T
    short, whole = normalize(centred @ axes, dim=1), normalize(centred, dim=1)
    shares = torch.bincount(torch.cat(texts), minlength=len(alone)).float()
    shares /= shares.sum()
    table = torch.nn.Parameter((alone @ axes) * (COMMON / (COMMON + shares))[:, None])
    optimiser = torch.optim.Adam([table], lr=RATE)
    batches = len(texts) // BATCH
    for step in range(EPOCHS * batches):
        if step % batches == 0:
            order = torch.randperm(len(texts))
        chosen = order[step % batches * BATCH :][:BATCH]
        bags = [texts[at] for at in chosen.tolist()]
        starts = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
        student = normalize(embedding_bag(torch.cat(bags), table, starts, mode="sum"), dim=1)
        direction = 1 - (student * short[chosen]).sum(1).mean()
        distances = ((student @ student.T - whole[chosen] @ whole[chosen].T) ** 2).mean().sqrt()
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / (EPOCHS * batches)) + 1e-5
        optimiser.zero_grad()
        (direction + 5 * distances).backward()
        optimiser.step()
    return table.detach()


def write(out: Path, names: list[str], table: torch.Tensor) -> None:
    """The file as ``rlmd.contexts.word_vectors`` reads it; one scale for all, the largest numbers clipped."""
    rows = table.numpy()
    scale = float(numpy.quantile(numpy.abs(rows), 0.9999))
    small = numpy.clip(numpy.round(rows / scale * 127), -127, 127).astype(numpy.int8)
    words = "\n".join(names).encode()
    head = struct.pack("<III", len(names), rows.shape[1], len(words))
    out.write_bytes(b"rlmd word vectors 1\n" + head + words + small.tobytes())


def main(model: str, texts_file: str, out: str) -> None:
    torch.manual_seed(0)
    teacher = SentenceTransformer(model, device="cpu")
    teacher.max_seq_length = 80
    tokenizer = teacher.tokenizer
    names = tokenizer.convert_ids_to_tokens(range(tokenizer.vocab_size))
    kept = torch.tensor([PIECE.fullmatch(name) is not None for name in names])
    lines = Path(texts_file).read_text(encoding="utf-8").splitlines()
    cut = [torch.tensor(ids) for ids in tokenizer(lines, add_special_tokens=False)["input_ids"]]
    texts = [ids[kept[ids]] for ids in cut]
    long_enough = [at for at, ids in enumerate(texts) if len(ids) > 2]
    wanted = teacher.encode([lines[at] for at in long_enough], normalize_embeddings=True, convert_to_tensor=True)
    table = train([texts[at] for at in long_enough], wanted.float(), pieces_alone(teacher, len(names)))
    write(Path(out), [name for name, keep in zip(names, kept, strict=True) if keep], table[kept])


if __name__ == "__main__":
    main(*sys.argv[1:])
