"""What bitsandbytes' CPU code makes of weights: codes, scales, and what both stand for.   make_bnb.py

bnb.safetensors holds, for each weight <w>:
    <w>                        f32 [out, in]; "many" is bf16, and most of its dense forms are left out
    <w>.<nf4|fp4>.codes .absmax .weight            without double quantization; weight is f32
    <w>.<nf4|fp4>.nested .nested_absmax .offset .nested_weight      with it
    <w>.int8.CB .SCB .weight                       as bitsandbytes' layers quantize: rounded to f16, then by rows
    <w>.blocks.codes .absmax .weight               quantize_blockwise, 256 weights a block
and map.signed, map.nf4, map.fp4, the tables.

bnb_<nf4|fp4|int8>/ is a tiny model of peft_base's size as transformers and bitsandbytes save it, with expected.safetensors: ids, and
the logits of the same model with its weights dequantized to f32 (the layers' own kernels round to bf16 on some processors).
"""
import pathlib
import shutil

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaForCausalLM

golden = pathlib.Path(__file__).resolve().parent
gen = torch.Generator().manual_seed(5)


def weights():
    yield "rows", torch.randn((6, 192), generator=gen)
    yield "cross", torch.randn((9, 40), generator=gen) * 1e-3  # blocks cross rows, the last one is short
    yield "odd", torch.randn((5, 33), generator=gen)  # an odd number of weights
    yield "many", (torch.randn((320, 64), generator=gen) * torch.rand((320, 1), generator=gen)).bfloat16()  # two nested blocks
    special = torch.zeros((4, 64))
    special[1] = torch.linspace(-1, 1, 64)
    table = F.get_4bit_type("nf4", "cpu")
    special[2, 1:16] = (table[:-1] + table[1:]) / 2  # ties
    special[2, 0] = 1
    table = F.get_4bit_type("fp4", "cpu").sort().values
    special[3, 1:16] = (table[:-1] + table[1:]) / 2
    special[3, 0], special[3, 20] = -1, -1e-40
    yield "special", special
    zeros = torch.randn((3, 40), generator=gen)
    zeros.view(-1)[64:] = 0  # a short last block without a scale
    yield "zeros", zeros
    yield "division", division()


def division():
    """64 weights, and a short last block where x / absmax and x * (1 / absmax) have different codes."""
    bounds = [(t[:-1] + t[1:]) / 2 for t in (F.get_4bit_type(k, "cpu").sort().values for k in ("nf4", "fp4"))]
    for _ in range(1000):
        absmax = torch.rand((), generator=gen) + 1
        near = torch.cat([torch.nextafter(b * absmax, torch.tensor(side)) for b in bounds for side in (-9.0, 9.0)] + [b * absmax for b in bounds])
        differ = torch.zeros(len(near), dtype=torch.bool)
        for b in bounds:
            differ |= torch.bucketize(near / absmax, b) != torch.bucketize(near * (1 / absmax), b)
        if differ.sum() >= 4:
            return torch.cat([torch.randn(64, generator=gen), absmax.view(1), near[differ][:3]]).view(4, 17)
    raise AssertionError("no such block")


def make_tensors():
    out = {"map.signed": F.create_dynamic_map(), "map.nf4": F.get_4bit_type("nf4", "cpu"), "map.fp4": F.get_4bit_type("fp4", "cpu")}
    for name, w in weights():
        out[name] = w
        for kind in ("nf4", "fp4"):
            key = f"{name}.{kind}"
            codes, state = F.quantize_4bit(w, quant_type=kind)
            out[f"{key}.codes"], out[f"{key}.absmax"] = codes.flatten(), state.absmax

            # The compiled kernel takes wrong scales where blocks cross rows; this is the other one of the same release.
            def dense(absmax):
                return _dequantize_4bit_compute(codes.flatten(), absmax, state.code, 64, w.shape, torch.float32)

            out[f"{key}.weight"] = dense(state.absmax)
            if w.shape[1] % 64 == 0:
                assert torch.equal(out[f"{key}.weight"], F.dequantize_4bit(codes, state).float()) or w.dtype != torch.float32
            again, state = F.quantize_4bit(w, quant_type=kind, compress_statistics=True)
            assert torch.equal(codes, again)
            out[f"{key}.nested"], out[f"{key}.nested_absmax"], out[f"{key}.offset"] = state.absmax, state.state2.absmax, state.offset.view(1)
            out[f"{key}.nested_weight"] = dense(F.dequantize_blockwise(state.absmax, state.state2) + state.offset)
        layer = bnb.nn.Int8Params(w.clone(), requires_grad=False)._quantize("cpu")
        out[f"{name}.int8.CB"], out[f"{name}.int8.SCB"] = layer.CB, layer.SCB
        out[f"{name}.int8.weight"] = F.int8_vectorwise_dequant(layer.CB, layer.SCB)
        codes, state = F.quantize_blockwise(w, blocksize=256)
        out[f"{name}.blocks.codes"], out[f"{name}.blocks.absmax"] = codes.flatten(), state.absmax
        out[f"{name}.blocks.weight"] = F.dequantize_blockwise(codes, state)
    large = {k for k in out if k.startswith("many.") and k.endswith("weight") and k != "many.nf4.nested_weight"}
    save_file({k: v.contiguous().clone() for k, v in out.items() if k not in large}, golden / "bnb.safetensors")


def dense_twin(model):
    """The same model with plain f32 weights."""
    plain = LlamaForCausalLM(model.config).eval()
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            q = module.weight.quant_state
            absmax = F.dequantize_blockwise(q.absmax, q.state2) + q.offset if q.nested else q.absmax
            state[f"{name}.weight"] = _dequantize_4bit_compute(module.weight.data.flatten(), absmax, q.code, 64, q.shape, torch.float32)
        elif isinstance(module, bnb.nn.Linear8bitLt):
            state[f"{name}.weight"] = F.int8_vectorwise_dequant(module.weight.data, module.weight.SCB if module.weight.SCB is not None else module.state.SCB)
    for name, value in model.state_dict().items():
        if name in plain.state_dict() and name not in state:
            state[name] = value.float()
    plain.load_state_dict(state)
    return plain


def make_models():
    ids = torch.tensor([[1, 5, 9, 30, 12, 47, 3]])
    for kind in ("nf4", "fp4", "int8"):
        config = (BitsAndBytesConfig(load_in_8bit=True) if kind == "int8" else
                  BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=kind == "nf4"))
        out = golden / f"bnb_{kind}"
        shutil.rmtree(out, ignore_errors=True)
        model = AutoModelForCausalLM.from_pretrained(golden / "peft_base", quantization_config=config, dtype=torch.float32, device_map="cpu")
        model.save_pretrained(out)
        (out / "generation_config.json").unlink(missing_ok=True)
        model = AutoModelForCausalLM.from_pretrained(out, device_map="cpu", dtype=torch.float32)
        with torch.no_grad():
            logits = dense_twin(model)(ids).logits[0]
        save_file({"ids": ids[0], "logits": logits}, out / "expected.safetensors")


if __name__ == "__main__":
    make_tensors()
    make_models()
