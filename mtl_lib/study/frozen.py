"""A frozen encoder that encodes a sentence once.

Shapes: B examples in the batch, n sentences per example (1 or 2), M sentences remembered, H hidden
size.
"""

from typing import Any

import torch
from torch import Tensor

from mtl_lib.data import Batch
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import Callback


class FrozenModel(MultitaskModel):
    """A `MultitaskModel` whose encoder is frozen and remembers the vectors of its sentences."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._memory: dict[bytes, Tensor] = {}
        self.freeze()

    def vectors(self, batch: Batch) -> Tensor:
        """Vectors `[n*B, H]` of a frozen encoder, by a sentence's token ids."""
        lengths = batch.attention_mask.sum(dim=1).tolist()
        rows = zip(batch.input_ids.cpu().numpy(), lengths, strict=True)
        keys = [row[:length].tobytes() for row, length in rows]
        if new := {key: i for i, key in enumerate(keys) if key not in self._memory}:
            rows = list(new.values())
            with torch.no_grad():
                vectors = self.encode(batch.input_ids[rows], batch.attention_mask[rows])
            self._memory.update(zip(new, map(torch.clone, vectors), strict=True))
        return torch.stack([self._memory[key] for key in keys])

    def remembered(self) -> dict[str, Tensor]:
        """What a frozen encoder remembers: token ids of M sentences one after the other, their
        lengths `[M]` and vectors `[M, H]`; empty if nothing."""
        if not self._memory:
            return {}
        tokens = [torch.frombuffer(bytearray(key), dtype=torch.int64) for key in self._memory]
        lengths = torch.tensor([len(row) for row in tokens])
        vectors = torch.stack(list(self._memory.values()))
        return {"tokens": torch.cat(tokens), "lengths": lengths, "vectors": vectors}

    def remember(self, state: dict[str, Tensor]) -> None:
        """Undo `remembered`."""
        self._memory.clear()
        if state:
            rows = state["tokens"].split(state["lengths"].tolist())
            vectors = state["vectors"].to(self._like.device)
            keys = (row.numpy().tobytes() for row in rows)
            self._memory.update(zip(keys, map(torch.clone, vectors), strict=True))


class Memory(Callback):
    """Carries what a frozen encoder remembers through a checkpoint: the last bits of a vector
    depend on the batch in which it was computed."""

    def __init__(self, model: FrozenModel):
        self._model = model

    def state_dict(self) -> dict[str, Tensor]:
        return self._model.remembered()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._model.remember(state)
