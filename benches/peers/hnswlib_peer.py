"""An HNSW index by hnswlib: the peer of `cargo bench --bench hnsw`.

Needs `pip install hnswlib numpy`. Takes the file of vectors (plain f32, 384 a row), M, ef_construction and the number of
threads; says its version; then builds the index anew for each line it reads and answers with the seconds that took.
"""
import importlib.metadata
import sys
import time

import hnswlib
import numpy as np

path, connectivity, expansion, threads = sys.argv[1], *map(int, sys.argv[2:5])
vectors = np.fromfile(path, np.float32).reshape(-1, 384)
# Behind the vectors the file is filled up with zeros.
vectors = vectors[np.any(vectors != 0, axis=1)]
print(f"hnswlib {importlib.metadata.version('hnswlib')}, {len(vectors)} vectors", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=384)
    index.init_index(max_elements=len(vectors), ef_construction=expansion, M=connectivity)
    index.add_items(vectors, num_threads=threads)
    print(time.perf_counter() - start, flush=True)
