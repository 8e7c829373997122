"""Writes a tiny language model with random weights, for servers that read GGUF: what it says means nothing.

    python random_gguf.py FILE [--width 64] [--layers 2] [--window 4096] [--seed 1]

Needs ``gguf`` and numpy, which the peers' virtual environment has. The vocabulary is every byte and a hundred words, so
that any text can be read.
"""

from __future__ import annotations

import argparse

import gguf
import numpy as np

WORDS = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what
all were we when your can said there use an each which she do how their if will up other about out many then them these
so some her would make like him into time has look two more write go see number no way could people my than first water
been call who oil its now find long down day did get come made may part
"""
#: Each turn between markers that no text has by chance.
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """SentencePiece's: control tokens, bytes, then letters and words, each with a score and a kind."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    words = WORDS.split()
    pieces = list(dict.fromkeys([*letters, *(f"▁{word}" for word in words), *words]))
    scores = [0.0] * len(tokens) + [-float(number) for number in range(len(pieces))]
    return tokens + pieces, scores, [int(kind) for kind in [*types, *[kinds.NORMAL] * len(pieces)]]


def write(file: str, width: int, layers: int, window: int, seed: int) -> None:
    tokens, scores, types = vocabulary()
    heads, feed = 8, 3 * width
    chance = np.random.default_rng(seed)
    out = gguf.GGUFWriter(file, "llama")
    out.add_name("random")
    out.add_context_length(window)
    out.add_embedding_length(width)
    out.add_block_count(layers)
    out.add_feed_forward_length(feed)
    out.add_head_count(heads)
    out.add_head_count_kv(heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(width // heads)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("llama")
    out.add_token_list(tokens)
    out.add_token_scores(scores)
    out.add_token_types(types)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_chat_template(TEMPLATE)

    def matrix(name: str, rows: int, columns: int) -> None:
        out.add_tensor(name, chance.normal(0, columns**-0.5, (rows, columns)).astype(np.float32))

    matrix("token_embd.weight", len(tokens), width)
    matrix("output.weight", len(tokens), width)
    out.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            out.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{part}.weight", width, width)
        matrix(f"blk.{layer}.ffn_gate.weight", feed, width)
        matrix(f"blk.{layer}.ffn_up.weight", feed, width)
        matrix(f"blk.{layer}.ffn_down.weight", width, feed)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--window", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    write(given.file, given.width, given.layers, given.window, given.seed)
