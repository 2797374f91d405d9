"""Writes a random model of llama's architecture as a GGUF file: `tiny_model.py FILE`.

Each printable ASCII character is a token, and so is each byte. The most probable token is always
a printable one.
"""

import sys

import numpy as np
from gguf import GGUFWriter, TokenType

WIDTH, HIDDEN, HEADS, LAYERS, CONTEXT = 64, 128, 4, 2, 65_536
PRINTABLE = 127 - 32
SPACE = "\u2581"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"

random = np.random.default_rng(7)
special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
tokens = [
    *special,
    *((f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)),
    *((chr(c) if c != 32 else SPACE, TokenType.NORMAL) for c in range(32, 127)),
]


def drawn(rows: int, columns: int) -> np.ndarray:
    """Return a random matrix."""
    return random.normal(0, 0.2, (rows, columns)).astype(np.float32)


def matrix(name: str, rows: int, columns: int) -> None:
    """Add a random matrix."""
    writer.add_tensor(name, drawn(rows, columns))


def ones(name: str) -> None:
    """Add the weights of a norm."""
    writer.add_tensor(name, np.ones(WIDTH, np.float32))


writer = GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(CONTEXT)
writer.add_embedding_length(WIDTH)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(HIDDEN)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(WIDTH // HEADS)
writer.add_vocab_size(len(tokens))
writer.add_tokenizer_model("llama")
writer.add_token_list([text for text, _ in tokens])
writer.add_token_scores([0.0 if kind != TokenType.NORMAL else -1.0 for _, kind in tokens])
writer.add_token_types([kind for _, kind in tokens])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_chat_template(TEMPLATE)
matrix("token_embd.weight", len(tokens), WIDTH)
output = drawn(len(tokens), WIDTH)
others = len(tokens) - PRINTABLE
output[:others] = output[others + np.arange(others) % PRINTABLE] / 2
writer.add_tensor("output.weight", output)
ones("output_norm.weight")
for layer in range(LAYERS):
    block = f"blk.{layer}"
    ones(f"{block}.attn_norm.weight")
    ones(f"{block}.ffn_norm.weight")
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        matrix(f"{block}.{part}.weight", WIDTH, WIDTH)
    matrix(f"{block}.ffn_gate.weight", HIDDEN, WIDTH)
    matrix(f"{block}.ffn_up.weight", HIDDEN, WIDTH)
    matrix(f"{block}.ffn_down.weight", WIDTH, HIDDEN)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
