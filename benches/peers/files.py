"""What the scripts beside this one read from files, and how they judge answers."""
import json
import struct

import numpy as np

NEIGHBOURS = 10


def read_weights(path):
    """The fp32 arrays of a safetensors file, by name."""
    raw = open(path, "rb").read()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    weights = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            start = 8 + length + entry["data_offsets"][0]
            count = int(np.prod(entry["shape"]))
            weights[name] = np.frombuffer(raw, np.float32, count, start).reshape(entry["shape"])
    return weights


def read_vectors(path):
    """Plain f32, 384 a row."""
    return np.fromfile(path, np.float32).reshape(-1, 384)


def read_rows(path):
    """The same without the zeros that the file is filled up with behind the vectors."""
    vectors = read_vectors(path)
    return vectors[np.any(vectors != 0, axis=1)]


class Truth:
    """The true neighbours of questions, computed once a file."""

    def __init__(self, vectors):
        self.vectors, self.known = vectors, {}

    def recall(self, name, questions, answers):
        """The share of them that is among the answers, a list of numbers for each question."""
        if name not in self.known:
            scores = questions @ self.vectors.T
            self.known[name] = [set(row) for row in np.argpartition(-scores, NEIGHBOURS)[:, :NEIGHBOURS]]
        found = sum(len(wanted & set(got)) for wanted, got in zip(self.known[name], answers))
        return found / len(questions) / NEIGHBOURS
