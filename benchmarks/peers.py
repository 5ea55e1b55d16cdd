"""What people run today: `transformers` with torch's AdamW; gradient surgery from two packages.

The encoder runs on padded batches, one forward pass for each sentence set (five for the three
tasks), as in the class's starter code.
"""

import importlib.util
import sys
import types
from functools import lru_cache

import torch
import torchjd.aggregation
import torchjd.autojac
import transformers
from common import DEVICE, encoder_config
from torch import Tensor, nn

from mtl_lib.data import Batch, BatchStream, TokenizedSplit
from mtl_lib.tasks import TASKS


class PeerModel(nn.Module):
    """`transformers.BertModel` under one linear head per task, dropout 0.3 before each."""

    def __init__(self, size: str):
        super().__init__()
        config = vars(encoder_config(size))
        self.encoder = transformers.BertModel(transformers.BertConfig(**config))
        hidden = config["hidden_size"]
        self.heads = nn.ModuleDict(
            {t.name: nn.Linear(t.sentences * hidden, t.outputs) for t in TASKS}
        )
        self.dropout = nn.Dropout(0.3)

    def features(self, batch: Batch) -> Tensor:
        """[u; v] of every example, `[B, n*H]`: each sentence set padded to its own longest."""
        vectors = []
        sets = zip(
            batch.input_ids.chunk(batch.task.sentences),
            batch.attention_mask.chunk(batch.task.sentences),
            strict=True,
        )
        for ids, mask in sets:
            length = int(mask.sum(dim=1).max())
            ids, mask = ids[:, :length].to(DEVICE), mask[:, :length].to(DEVICE)
            vectors.append(self.encoder(ids, mask).pooler_output)
        return torch.cat(vectors, dim=1)

    def loss(self, batch: Batch, features: Tensor) -> Tensor:
        logits = self.heads[batch.task.name](self.dropout(features))
        return batch.task.loss(logits, batch.labels.to(DEVICE))


class Peer:
    """One multi-task step of `PeerModel`; `surgery` is None, "torchjd" or "libmtl"."""

    def __init__(self, size: str, splits: dict[str, TokenizedSplit], batch_size: int, surgery=None):
        self.model = PeerModel(size).to(DEVICE).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.streams = [BatchStream(split, batch_size, seed=0) for split in splits.values()]
        self.backward = getattr(self, f"_{surgery or 'plain'}")
        if surgery == "libmtl":
            self.pcgrad = libmtl_pcgrad(self.model.encoder, len(splits))

    def step(self) -> None:
        self.optimizer.zero_grad()
        batches = [next(stream) for stream in self.streams]
        features = [self.model.features(batch) for batch in batches]
        losses = [self.model.loss(b, f) for b, f in zip(batches, features, strict=True)]
        self.backward(losses, features)
        self.optimizer.step()

    def _plain(self, losses, features) -> None:
        sum(losses).backward()

    def _torchjd(self, losses, features) -> None:
        torchjd.autojac.mtl_backward(losses, features)
        shared = [p for p in self.model.encoder.parameters() if getattr(p, "jac", None) is not None]
        torchjd.autojac.jac_to_grad(shared, torchjd.aggregation.PCGrad())

    def _libmtl(self, losses, features) -> None:
        self.pcgrad.backward(losses)


@lru_cache
def libmtl_class():
    """LibMTL's PCGrad class.

    The package's `__init__` imports image models that want an old torchvision; its weightings
    need neither.
    """
    package = types.ModuleType("LibMTL")
    package.__path__ = importlib.util.find_spec("LibMTL").submodule_search_locations
    sys.modules["LibMTL"] = package
    from LibMTL.weighting.PCGrad import PCGrad

    return PCGrad


def libmtl_pcgrad(encoder: nn.Module, tasks: int):
    """LibMTL's PCGrad, told what its own trainer tells it."""
    pcgrad = libmtl_class()()
    pcgrad.rep_grad, pcgrad.task_num, pcgrad.device = False, tasks, DEVICE
    pcgrad.get_share_params = lambda: [p for p in encoder.parameters() if p.requires_grad]
    pcgrad.zero_grad_share_params = lambda: encoder.zero_grad(set_to_none=False)
    return pcgrad


def predict(model: PeerModel, split: TokenizedSplit, batch_size: int) -> Tensor:
    """Logits in file order: batches as they come, padded."""
    model.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            batch = split.batch(range(start, min(start + batch_size, len(split))))
            logits.append(model.heads[batch.task.name](model.features(batch)))
    return torch.cat(logits)
