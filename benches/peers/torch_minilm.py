"""all-MiniLM-L6-v2 in bfloat16 on PyTorch: a peer of `cargo bench --bench embedding`.

`torch_minilm.py FOLDER bf16 THREADS`. Needs `pip install torch tokenizers numpy`. Weights and states are bfloat16, the
attention is PyTorch's fused one; sums over tokens and lengths are taken in fp32. Reads one JSON list of texts a line; answers
each with {"seconds": tokenising to vectors, "first": the first text's vector}.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from files import read_weights

HEADS = 12


class MiniLm:
    def __init__(self, weights):
        self.weights = weights
        self.attention_in = []
        for layer in range(6):
            parts = [f"encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value")]
            joined = [torch.cat([weights[part + end] for part in parts]) for end in (".weight", ".bias")]
            self.attention_in.append(joined)

    def linear(self, name, x):
        return F.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def norm(self, name, x):
        return F.layer_norm(x, (384,), self.weights[name + ".weight"], self.weights[name + ".bias"], 1e-12)

    def states(self, ids, mask):
        e, w = "embeddings.", self.weights
        x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: ids.shape[1]]
        x = self.norm(e + "LayerNorm", x + w[e + "token_type_embeddings.weight"][0])
        batch, tokens, width = x.shape
        # Without padding there is nothing to mask, which PyTorch has a faster way for.
        hidden = None if mask.all() else mask[:, None, None, :].bool()
        for layer in range(6):
            p = f"encoder.layer.{layer}."
            qkv = F.linear(x, *self.attention_in[layer]).view(batch, tokens, 3, HEADS, width // HEADS)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
            a = a.transpose(1, 2).reshape(batch, tokens, width)
            x = self.norm(p + "attention.output.LayerNorm", x + self.linear(p + "attention.output.dense", a))
            f = F.gelu(self.linear(p + "intermediate.dense", x))
            x = self.norm(p + "output.LayerNorm", x + self.linear(p + "output.dense", f))
        return x


def main():
    folder, _, threads = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    arrays = read_weights(f"{folder}/model.safetensors")
    model = MiniLm({name: torch.from_numpy(array.copy()).to(torch.bfloat16) for name, array in arrays.items()})
    print(json.dumps({"version": torch.__version__}), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            texts = json.loads(line)
            start = time.perf_counter()
            encodings = tokenizer.encode_batch(texts)
            ids = torch.tensor([encoding.ids for encoding in encodings])
            mask = torch.tensor([encoding.attention_mask for encoding in encodings])
            states = model.states(ids, mask).float()
            vectors = F.normalize((states * mask[:, :, None]).sum(1))
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds, "first": vectors[0].tolist()}), flush=True)


main()
