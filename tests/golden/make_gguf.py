"""Writes container.gguf and container.safetensors with the Python packages gguf and safetensors.

container.gguf: a key of every type, and a tensor [2, 256] of every ggml type for which gguf has a dequantizer, made of
random blocks. container.safetensors: what gguf's numpy dequantizers make of them, f32.
"""
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFValueType as Value
from safetensors.numpy import save_file

folder = pathlib.Path(__file__).parent
rng = np.random.default_rng(1)
writer = gguf.GGUFWriter(folder / "container.gguf", "llama")
for name, value in [("uint8", 200), ("int8", -100), ("uint16", 60000), ("int16", -30000), ("uint32", 4000000000),
                    ("int32", -2000000000), ("uint64", 2**60), ("int64", -(2**60))]:
    writer.add_key_value(f"test.{name}", value, Value[name.upper()])
writer.add_float32("test.float32", 0.1)
writer.add_float64("test.float64", 0.1)
writer.add_bool("test.bool", True)
writer.add_string("test.string", "naïve ▁")
writer.add_array("test.strings", ["a", "", "▁b"])
writer.add_array("test.integers", [3, -1, 2])
writer.add_array("test.floats", [0.5, -1.5])

expected = {}


def add(name, blocks, kind):
    writer.add_tensor(name, blocks, raw_dtype=kind)
    expected[name] = gguf.quants.dequantize(blocks, kind).astype(np.float32)


add("F32", rng.standard_normal((2, 256)).astype(np.float32), Type.F32)
add("F16", rng.standard_normal((2, 256)).astype(np.float16), Type.F16)
add("BF16", gguf.quants.quantize(rng.standard_normal((2, 256)).astype(np.float32), Type.BF16), Type.BF16)
for kind in gguf.quants._type_traits:
    if kind == Type.BF16:
        continue
    block, size = gguf.GGML_QUANT_SIZES[kind]
    while True:  # until the scales among the random bytes are finite
        blocks = rng.integers(0, 256, (2, 256 // block * size), dtype=np.uint8)
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(blocks, kind)
        if np.isfinite(values).all():
            break
    add(kind.name, blocks, kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(expected, folder / "container.safetensors")
