"""The same numbers, faster; opt-in by `Trainer(..., engine="fast")`.

packed.py   sentence vectors without padding
joint.py    one gradient per task from one backward pass
engine.py   both, as an engine of the trainer
fused.py    AdamW in one fused kernel
"""

import torch
from torch import nn

from mtl_lib import bert

# What the fast engine reads the parameters of, without calling it.
_KNOWN = {nn.Linear, nn.Embedding, nn.LayerNorm, nn.Dropout, nn.ModuleList, bert.BertModel}
_KNOWN |= {bert.BertEmbeddings, bert.BertSelfAttention, bert.AddNorm, bert.BertAttention}
_KNOWN |= {bert.BertIntermediate, bert.BertLayer, bert.BertEncoder, bert.BertPooler}


def knows(encoder: nn.Module) -> bool:
    """Whether an encoder is a `BertModel` as it was built: no part of it exchanged, no hooks."""
    return isinstance(encoder, bert.BertModel) and all(
        type(module) in _KNOWN and not (module._forward_hooks or module._forward_pre_hooks)
        for module in encoder.modules()
    )


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32: recent GPUs and server CPUs."""
    if device.type != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public name for these; without them, float32.
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asks)
