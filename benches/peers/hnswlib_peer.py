"""An HNSW index by hnswlib: the peer of `cargo bench --bench hnsw`.

Needs `pip install hnswlib numpy`. Takes the file of vectors (plain f32, 384 a row), M, ef_construction and the number of
threads; says its version; then obeys a line at a time: `build` builds the index anew and answers with the seconds that
took, `ask EF FILE` asks it the questions in FILE (plain f32, 384 a row) one by one on one thread, for ten neighbours each,
and answers with the seconds a question and the share of the true neighbours found.
"""
import importlib.metadata
import sys
import time

import hnswlib
import numpy as np

NEIGHBOURS = 10

path, connectivity, expansion, threads = sys.argv[1], *map(int, sys.argv[2:5])
vectors = np.fromfile(path, np.float32).reshape(-1, 384)
# Behind the vectors the file is filled up with zeros.
vectors = vectors[np.any(vectors != 0, axis=1)]
print(f"hnswlib {importlib.metadata.version('hnswlib')}, {len(vectors)} vectors", flush=True)
index, truth = None, {}


def build():
    global index
    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=384)
    index.init_index(max_elements=len(vectors), ef_construction=expansion, M=connectivity)
    index.add_items(vectors, num_threads=threads)
    return time.perf_counter() - start


def ask(ef, name):
    questions = np.fromfile(name, np.float32).reshape(-1, 384)
    if name not in truth:
        scores = questions @ vectors.T
        truth[name] = [set(row) for row in np.argpartition(-scores, NEIGHBOURS)[:, :NEIGHBOURS]]
    index.set_ef(ef)
    start = time.perf_counter()
    answers = [index.knn_query(question, k=NEIGHBOURS, num_threads=1)[0][0] for question in questions]
    seconds = (time.perf_counter() - start) / len(questions)
    found = sum(len(wanted & set(got)) for wanted, got in zip(truth[name], answers))
    return f"{seconds} {found / len(questions) / NEIGHBOURS}"


for line in sys.stdin:
    words = line.split()
    print(build() if words[0] == "build" else ask(int(words[1]), words[2]), flush=True)
