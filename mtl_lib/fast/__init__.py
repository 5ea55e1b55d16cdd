"""The same numbers, faster; opt-in by `Trainer(..., engine="fast")`.

packed.py   sentence vectors without padding
joint.py    one gradient per task from one backward pass
engine.py   both, as an engine of the trainer
fused.py    AdamW in one fused kernel
"""

import torch
from torch import nn

from mtl_lib import bert
from mtl_lib.model import ACTIVATIONS, Head, MultitaskModel

# What a `BertModel` is built of: the fast engine reads its parameters, without calling it.
_KNOWN = {nn.Linear, nn.Embedding, nn.LayerNorm, nn.Dropout, nn.ModuleList, bert.BertModel}
_KNOWN |= {bert.BertEmbeddings, bert.BertSelfAttention, bert.AddNorm, bert.BertAttention}
_KNOWN |= {bert.BertIntermediate, bert.BertLayer, bert.BertEncoder, bert.BertPooler}


def knows(model: MultitaskModel) -> bool:
    """Whether the encoder is a `BertModel` as it was built: no part of it exchanged, no hooks, and
    none of its parameters a head's as well."""
    encoder, of_heads = model.encoder, set(model.heads.parameters())
    return (
        as_built(encoder)
        and not any(_hooked(module) or _has_options(module) for module in encoder.modules())
        and not any(
            p._backward_hooks or p._post_accumulate_grad_hooks or p in of_heads
            for p in encoder.parameters()
        )
    )


def as_built(part: nn.Module) -> bool:
    """Whether an encoder is a `BertModel`, or a head a `Head`, its parts those that it was built
    of, hooks or none."""
    known = _KNOWN
    if type(part) is Head:
        known = known | {Head, ACTIVATIONS[part.config.activation]}
    return isinstance(part, bert.BertModel | Head) and all(
        type(module) in known and "forward" not in vars(module) for module in part.modules()
    )


def _hooked(module: nn.Module) -> bool:
    forward, backward = module._forward_hooks, module._backward_hooks
    return bool(forward or backward or module._forward_pre_hooks or module._backward_pre_hooks)


def _has_options(module: nn.Module) -> bool:
    """Whether it lacks a weight or a bias, or is an embedding with rules of its own."""
    if isinstance(module, nn.Embedding):
        return module.max_norm is not None or module.scale_grad_by_freq or module.sparse
    return isinstance(module, nn.Linear | nn.LayerNorm) and (
        module.weight is None or module.bias is None
    )


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32: recent GPUs and server CPUs."""
    if device.type != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public name for these; without them, float32.
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asks)
