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

from files import NEIGHBOURS, Truth, read_rows, read_vectors

path, connectivity, expansion, threads = sys.argv[1], *map(int, sys.argv[2:5])
vectors = read_rows(path)
print(f"hnswlib {importlib.metadata.version('hnswlib')}, {len(vectors)} vectors", flush=True)
index, truth = None, Truth(vectors)


def build():
    global index
    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=384)
    index.init_index(max_elements=len(vectors), ef_construction=expansion, M=connectivity)
    index.add_items(vectors, num_threads=threads)
    return time.perf_counter() - start


def ask(ef, name):
    questions = read_vectors(name)
    index.set_ef(ef)
    start = time.perf_counter()
    answers = [index.knn_query(question, k=NEIGHBOURS, num_threads=1)[0][0] for question in questions]
    seconds = (time.perf_counter() - start) / len(questions)
    return f"{seconds} {truth.recall(name, questions, answers)}"


for line in sys.stdin:
    words = line.split()
    print(build() if words[0] == "build" else ask(int(words[1]), words[2]), flush=True)
