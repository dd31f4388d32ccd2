"""Products of fp32 matrices by OpenBLAS or oneDNN: a peer of `cargo bench --bench embedding -- peak`.

`sgemm_peer.py openblas|onednn THREADS`. Needs `pip install numpy`, whose OpenBLAS is used, or `pip install torch`, whose oneDNN
is, with the second matrix packed beforehand. Reads one JSON list of [rows, depth, columns] a line; answers each with
{"seconds": all of these products, one after the other}.
"""
import functools
import json
import os
import sys
import time


def openblas(threads):
    os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    import numpy as np

    random = np.random.default_rng(1)

    def prepare(rows, depth, columns):
        left, right = (random.random(shape, dtype=np.float32) for shape in ((rows, depth), (depth, columns)))
        out = np.empty((rows, columns), np.float32)
        return lambda: np.matmul(left, right, out=out)

    return f"OpenBLAS of numpy {np.__version__}", prepare


def onednn(threads):
    import torch

    torch.set_num_threads(threads)

    def prepare(rows, depth, columns):
        left = torch.rand(rows, depth)
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.rand(columns, depth), rows)
        return lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")

    return f"oneDNN of PyTorch {torch.__version__}", prepare


def main():
    library, threads = sys.argv[1:3]
    version, prepare = {"openblas": openblas, "onednn": onednn}[library](int(threads))
    print(json.dumps({"version": version}), flush=True)
    prepared = functools.cache(prepare)
    for line in sys.stdin:
        products = [prepared(*shape) for shape in json.loads(line)]
        start = time.perf_counter()
        for product in products:
            product()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


main()
