"""A collection of Chroma in a folder of its own: a peer of `cargo bench --bench hnsw`.

Needs `pip install chromadb numpy`. Takes the file of vectors (plain f32, 384 a row), M, ef_construction and the number of
threads; says its version; then obeys a line at a time: `build` makes the collection anew and answers with the seconds that
took, `ask EF FILE` asks it the questions in FILE (plain f32, 384 a row) one by one, for ten neighbours each, and answers with
the seconds a question and the share of the true neighbours found. Chroma runs inside of this process: no network is measured.
"""
import importlib.metadata
import sys
import tempfile
import time

import chromadb

from files import NEIGHBOURS, Truth, read_rows, read_vectors

BATCH = 5_000

path, connectivity, expansion, threads = sys.argv[1], *map(int, sys.argv[2:5])
vectors = read_rows(path)
folder = tempfile.TemporaryDirectory()
settings = chromadb.Settings(anonymized_telemetry=False, allow_reset=True)
client = chromadb.PersistentClient(path=folder.name, settings=settings)
print(f"chroma {importlib.metadata.version('chromadb')}, {len(vectors)} vectors", flush=True)
collection, truth = None, Truth(vectors)


def build():
    global collection
    if collection is not None:
        client.delete_collection("texts")
    start = time.perf_counter()
    hnsw = {
        "space": "ip",
        "ef_construction": expansion,
        "max_neighbors": connectivity,
        "num_threads": threads,
    }
    collection = client.create_collection("texts", configuration={"hnsw": hnsw}, embedding_function=None)
    for first in range(0, len(vectors), BATCH):
        rows = vectors[first : first + BATCH]
        collection.add(ids=[str(first + at) for at in range(len(rows))], embeddings=rows)
    return time.perf_counter() - start


def ask(ef, name):
    questions = read_vectors(name)
    collection.modify(configuration={"hnsw": {"ef_search": ef}})
    start = time.perf_counter()
    answers = [collection.query(query_embeddings=[question], n_results=NEIGHBOURS, include=[]) for question in questions]
    seconds = (time.perf_counter() - start) / len(questions)
    numbers = [map(int, answer["ids"][0]) for answer in answers]
    return f"{seconds} {truth.recall(name, questions, numbers)}"


for line in sys.stdin:
    words = line.split()
    print(build() if words[0] == "build" else ask(int(words[1]), words[2]), flush=True)
