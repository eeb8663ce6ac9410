"""Writes dtypes.safetensors with the Python package safetensors: tensors of every dtype, a scalar, an empty one."""
import pathlib

import torch
from safetensors.torch import save_file

tensors = {
    str(dtype).removeprefix("torch."): torch.arange(6).reshape(2, 3).to(dtype)
    for dtype in [torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn, torch.int16, torch.uint16,
                  torch.float16, torch.bfloat16, torch.int32, torch.uint32, torch.float32, torch.float64, torch.int64,
                  torch.uint64]
}
tensors |= {"a_scalar": torch.tensor(1.5), "an_empty_one": torch.zeros(0, 4), "a \"name\" ▁": torch.ones(1)}
save_file(tensors, pathlib.Path(__file__).parent / "dtypes.safetensors", {"format": "pt"})
