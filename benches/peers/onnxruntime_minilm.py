"""all-MiniLM-L6-v2 on onnxruntime: the peer of `cargo bench --bench embedding`.

`onnxruntime_minilm.py FOLDER [fp32|int8] [THREADS]`. Needs `pip install onnx onnxruntime tokenizers numpy`. Builds the model
from the folder's safetensors file with onnxruntime's own fused BERT operators, the fastest form that its optimizer makes of
the published graph; int8 is what its `quantize_dynamic` makes of that, with signed weights scaled by channel. Reads one JSON
list of texts a line; answers each with {"seconds": tokenising to vectors, "first": the first text's vector}.
"""
import json
import os
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from files import read_weights

MS = "com.microsoft"


def build(weights):
    constants, nodes = [], []

    def constant(name, transpose=False, array=None):
        array = weights[name] if array is None else array
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array.T if transpose else array), name))
        return name

    def node(kind, inputs, outputs, domain=MS, **attributes):
        nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))

    embeddings = ["word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"]
    embeddings = [constant("embeddings." + name) for name in embeddings]
    node("EmbedLayerNormalization", ["ids", "types", *embeddings, "mask"], ["x0", "lengths"], epsilon=1e-12)
    for layer in range(6):
        p = f"encoder.layer.{layer}."
        parts = [p + "attention.self." + part for part in ("query", "key", "value")]
        qkv = constant(p + "qkv.weight", array=np.concatenate([weights[part + ".weight"].T for part in parts], 1))
        qkv_bias = constant(p + "qkv.bias", array=np.concatenate([weights[part + ".bias"] for part in parts]))
        x, a, o, y, f, g, z = (f"{name}{layer}" for name in ("x", "a", "o", "y", "f", "g", "z"))
        node("Attention", [x, qkv, qkv_bias, "mask"], [a], num_heads=12)
        node("MatMul", [a, constant(p + "attention.output.dense.weight", True)], [o], domain="")
        norm = [constant(p + "attention.output.LayerNorm." + part) for part in ("weight", "bias")]
        node("SkipLayerNormalization", [o, x, *norm, constant(p + "attention.output.dense.bias")], [y], epsilon=1e-12)
        node("MatMul", [y, constant(p + "intermediate.dense.weight", True)], [f], domain="")
        node("BiasGelu", [f, constant(p + "intermediate.dense.bias")], [g])
        node("MatMul", [g, constant(p + "output.dense.weight", True)], [z], domain="")
        norm = [constant(p + "output.LayerNorm." + part) for part in ("weight", "bias")]
        node("SkipLayerNormalization", [z, y, *norm, constant(p + "output.dense.bias")], [f"x{layer + 1}"], epsilon=1e-12)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"]) for name in ("ids", "types", "mask")]
    output = helper.make_tensor_value_info("x6", TensorProto.FLOAT, ["batch", "tokens", 384])
    graph = helper.make_graph(nodes, "minilm", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def quantized(model):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "fp32.onnx"), os.path.join(folder, "int8.onnx")
        onnx.save(model, source)
        # Its shape inference does not know the fused operators.
        floats = {"DefaultTensorType": TensorProto.FLOAT}
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, extra_options=floats)
        return onnx.load(target)


def main():
    folder, precision, threads = sys.argv[1:] + ["fp32", "1"][len(sys.argv) - 2 :]
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
    model = build(read_weights(f"{folder}/model.safetensors"))
    if precision == "int8":
        model = quantized(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    print(json.dumps({"version": onnxruntime.__version__}), flush=True)
    for line in sys.stdin:
        texts = json.loads(line)
        start = time.perf_counter()
        # Alike lengths are the bench's business: it sends batches sorted, as it sorts its own.
        encodings = tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], np.int32)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int32)
        states = session.run(None, {"ids": ids, "types": np.zeros_like(ids), "mask": mask})[0]
        vectors = (states * mask[:, :, None]).sum(1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "first": vectors[0].tolist()}), flush=True)


main()
