"""A model a quarter its size on disk: every matrix in whole numbers of 8 bits.

Row w of a matrix is stored as q = round(w / s) in int8, with the scale s = max |w| / 127 of its
own, so that no weight moves by more than s / 2 (Jacob et al., 2018, section 2.1, without a zero
point). It is a form to store and to send: what is loaded computes in float32.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mtl_lib.errors import ConfigError
from mtl_lib.fast import as_built
from mtl_lib.model import MultitaskModel
from mtl_lib.tasks import Task

SCALE = ".scale"  # behind the name of a matrix


def save_quantized(
    model: MultitaskModel, directory: str | Path, tokenizer: Tokenizer | None = None
) -> None:
    """Write the folder that `MultitaskModel.save` writes, its matrices in int8.

    Vectors (biases, LayerNorm) stay in float32. A pooler whose output no head sees is left out.

    Args:
        tokenizer: kept beside it; the model's own by default.

    Raises:
        ConfigError: if the encoder is no `BertModel` as it is built, a head is none of ours, or a
            weight is not finite.
    """
    if not all(map(as_built, [model.encoder, *model.heads.values()])):
        raise ConfigError("the encoder or a head is one's own: write the model by its `save`")
    _seen_as(_Quantized, model).save(directory, tokenizer)


def load_quantized(directory: str | Path, *, tasks: Iterable[Task] = ()) -> MultitaskModel:
    """Read a model that `save_quantized` wrote; returned in float32 and in eval mode.

    A pooler that was left out is zero.

    Args:
        tasks: those with functions of one's own: loss, metric or prediction.

    Raises:
        EncoderError: as `MultitaskModel.load`.
    """
    with _Undrawn():
        model = _Dequantized.load(directory, tasks=tasks)
    return _seen_as(MultitaskModel, model).eval()


def _seen_as(kind: type[MultitaskModel], model: MultitaskModel) -> MultitaskModel:
    """The same encoder, heads and tokenizer as a model of another class."""
    heads = {task: model.heads[name] for name, task in model.tasks.items()}
    same = kind(model.encoder, heads, model.sentence_vector)
    same.tokenizer = model.tokenizer
    return same


class _Undrawn(TorchFunctionMode):
    """Modules made in its block keep the memory of their weights as it is: to draw what will be
    replaced takes longer than to read it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") != "torch.nn.init":
            return func(*args, **(kwargs or {}))


class _Quantized(MultitaskModel):
    """Looks at a model, its state in int8."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        unused = _unused(self)
        state = super().state_dict(*args, **kwargs)
        return quantize({name: tensor for name, tensor in state.items() if name not in unused})


class _Dequantized(MultitaskModel):
    """Takes a state in int8."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        zeros = {name: torch.zeros(shape) for name, shape in _unused(self).items()}
        # Copied, not assigned: the file's numbers lie at any address, which changes last bits.
        return super().load_state_dict(zeros | dequantize(state_dict), strict, assign)


def _unused(model: MultitaskModel) -> dict[str, torch.Size]:
    """Names and shapes of the encoder's parameters that no head needs: an unread pooler's."""
    shared = set(model.shared_parameters())
    parameters = model.encoder.named_parameters(prefix="encoder")
    return {name: p.shape for name, p in parameters if p not in shared}


def quantize(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each matrix `[R, C]` as int8 and its scales `[R]` in float32; other tensors in float32.

    Raises:
        ConfigError: if a number is not finite.
    """
    small: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.float().clone()  # tied tensors are stored apart
        if not tensor.isfinite().all():
            raise ConfigError(f"{name} holds numbers that are not finite: train the model again")
        if tensor.dim() != 2:
            small[name] = tensor
            continue
        largest = tensor.abs().amax(dim=1)  # [R]
        scales = torch.where(largest > 0, largest / 127, 1.0)
        small[name] = (tensor / scales[:, None]).round().to(torch.int8)
        small[name + SCALE] = scales
    return small


def dequantize(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `quantize`, up to its rounding."""
    whole = {name: tensor for name, tensor in state.items() if not name.endswith(SCALE)}
    for name in whole:
        if name + SCALE in state:
            whole[name] = whole[name] * state[name + SCALE][:, None]
    return whole
