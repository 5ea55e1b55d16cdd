"""The same numbers, faster; opt-in by `Trainer(..., engine="fast")`.

packed.py   sentence vectors without padding
joint.py    one gradient per task from one backward pass
engine.py   both, as an engine of the trainer
fused.py    AdamW in one fused kernel
"""

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32: recent GPUs and server CPUs."""
    if device.type != "cpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public name for these; without them, float32.
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asks)
