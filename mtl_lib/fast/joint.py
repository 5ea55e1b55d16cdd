"""All tasks in one forward and one backward pass, and still one gradient per task.

`gradients.py` runs one backward pass per task. But the gradient of a weight is a sum over the rows
that went through it, and every row belongs to one task: cut the rows into tasks, and the same sum,
taken task by task, gives T gradients for the price of one. For a linear layer y = x W^T that is

    dL/dW = sum_t  dy_t^T x_t        x_t, dy_t: the rows of task t

which needs neither T backward passes nor more arithmetic than a single summed loss.

Shapes as in `packed.py`: T tasks, S sentences, N tokens; besides, P shared parameters that are not
word embeddings, and U distinct words in the step.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from mtl_lib.bert import BertEmbeddings, BertModel
from mtl_lib.fast.packed import Layers, Pack, packed_vectors

_CHUNK = 2**12  # elements of an inner product in float32; their sums are added up in float64


class JointGradients(Layers):
    """The shared parameters' gradients, one per task, from one backward pass.

        gradients = JointGradients(encoder, tasks=3)
        vectors = gradients.vectors(Pack.of(...))        # [S, H], by task
        sum(losses).backward()
        gradients.combine(pcgrad_weights(gradients.gram()))
        optimizer.step()

    Same results as `TaskGradients`. Of the word embeddings, half of a small BERT, only the rows
    of words that occur in the step are kept and read: all others have gradient zero.

    Args:
        encoder: none of its parameters may be frozen.
        tasks: how many there are, T.
        shared: the parameters that the tasks share; all of the encoder's by default.
    """

    def __init__(
        self, encoder: BertModel, tasks: int, shared: Iterable[nn.Parameter] | None = None
    ) -> None:
        self.encoder = encoder
        self._table = encoder.embeddings.word_embeddings  # [V, H]
        shared = list(encoder.parameters() if shared is None else shared)
        self._dense = [p for p in shared if p is not self._table.weight]
        size = sum(parameter.numel() for parameter in self._dense)
        self._rows = self._dense[0].new_zeros(tasks, size)  # [T, P]
        self._total = self._dense[0].new_zeros(size)  # [P], the combined gradient
        self._views, self._totals, start = {}, [], 0
        for parameter in self._dense:
            stop = start + parameter.numel()
            of_tasks = self._rows[:, start:stop].view(tasks, *parameter.shape)
            self._views[parameter] = of_tasks.unbind()  # T tensors
            self._totals.append(self._total[start:stop].view(parameter.shape))
            start = stop
        self._table_total = torch.zeros_like(self._table.weight)  # [V, H]
        self._words = self._total.new_zeros(0, dtype=torch.long)  # [U], those of this step
        self._word_rows = self._total.new_zeros(tasks, 0, self._table.embedding_dim)  # [T, U, H]

    def vectors(self, pack: Pack, kind: str = "pooler") -> Tensor:
        """Sentence vectors `[S, H]` whose backward pass fills in the tasks' gradients.

        The batches of the pack are those of the T tasks, in the order of the Gram matrix; `kind` is
        one of `bert.SENTENCE_VECTORS`.
        """
        return packed_vectors(self.encoder, pack, self, kind)

    def gram(self) -> Tensor:
        """Inner products of the tasks' gradients over all shared parameters, `[T, T]`, float64."""
        return _gram(self._rows) + _gram(self._word_rows.flatten(1))

    def combine(self, weights: Tensor) -> None:
        """Write sum_t weights[t] g_t into the shared parameters' `.grad`.

        Args:
            weights: one per task, `[T]`.

        Raises:
            ValueError: if the number of weights is not the number of tasks.
        """
        if weights.shape != (len(self._rows),):
            raise ValueError(f"weights {tuple(weights.shape)} for {len(self._rows)} tasks")
        weights = weights.to(self._rows)
        torch.mv(self._rows.T, weights, out=self._total)
        for parameter, total in zip(self._dense, self._totals, strict=True):
            parameter.grad = total
        combined = torch.tensordot(weights, self._word_rows, dims=1)  # [U, H]
        self._table_total.index_copy_(0, self._words, combined)
        self._table.weight.grad = self._table_total

    def add(self, task: int) -> None:
        """Add to one task's gradient what an ordinary backward pass left in `.grad`.

        For a loss term with a graph of its own, over words of this step.
        """
        for parameter in self._dense:
            if parameter.grad is not None:
                self._views[parameter][task].add_(parameter.grad)
                parameter.grad = None
        if self._table.weight.grad is not None:
            self._word_rows[task] += self._table.weight.grad[self._words]
            self._table.weight.grad = None

    def embed(self, embeddings: BertEmbeddings, pack: Pack) -> Tensor:
        """As `Layers.embed`, `[N, H]`; begins a step, so that the last step's words are dropped."""
        self._table_total.index_fill_(0, self._words, 0)  # the rows of the last step
        self._words = pack.words
        size = (len(self._rows), len(pack.words), self._table.embedding_dim)
        self._word_rows = self._total.new_zeros(size)
        position, segment = embeddings.position_embeddings, embeddings.token_type_embeddings
        into = self._word_rows, self._views[position.weight], self._views[segment.weight]
        weights = self._table.weight, position.weight, segment.weight
        return _Embed.apply(*weights, pack, self._table.padding_idx, *into)

    def linears(self, modules: Sequence[nn.Linear], x: Tensor, rows: list[int]) -> Sequence[Tensor]:
        """`[R, in]` -> for each module `[R, out]`; `rows`: how many of the R are of each task."""
        parameters = [p for module in modules for p in (module.weight, module.bias)]
        return _Linears.apply(x, rows, [self._views[p] for p in parameters], *parameters)

    def norm(self, module: nn.LayerNorm, x: Tensor, rows: list[int]) -> Tensor:
        """`[R, H]` -> `[R, H]`; `rows` says how many of the R belong to each task."""
        into = self._views[module.weight], self._views[module.bias]
        return _LayerNorm.apply(x, module.weight, module.bias, module.eps, rows, *into)


class _Embed(Function):
    """Word, position and first segment embedding of every token."""

    @staticmethod
    def forward(ctx, words, positions, segments, pack, padding, *into):
        ctx.pack, ctx.padding, ctx.into = pack, padding, into
        return words[pack.words][pack.spelled] + positions[pack.positions] + segments[0]

    @staticmethod
    def backward(ctx, dy):
        pack, (words, positions, segments) = ctx.pack, ctx.into
        pieces = (rows.split(pack.tokens) for rows in (dy, pack.spelled, pack.positions))
        for t, (dy_t, spelled, position) in enumerate(zip(*pieces, strict=True)):
            words[t].index_add_(0, spelled, dy_t)
            positions[t].zero_().index_add_(0, position, dy_t)
            torch.sum(dy_t, dim=0, out=segments[t][0])
        if ctx.padding is not None:  # as in nn.Embedding: the padding word is not trained
            words[:, pack.words == ctx.padding] = 0
        return (None,) * 8


class _Linears(Function):
    """`F.linear` by several weights, the gradients of weights and biases written task by task."""

    @staticmethod
    def forward(ctx, x, rows, into, *parameters):
        ctx.rows, ctx.into, ctx.dtype, kind = rows, into, x.dtype, x.device.type
        if torch.is_autocast_enabled(kind):  # cast once, for both passes
            low = torch.get_autocast_dtype(kind)
            x, parameters = x.to(low), [parameter.to(low) for parameter in parameters]
        weights, biases = parameters[::2], parameters[1::2]
        ctx.save_for_backward(x, *weights)
        return tuple(F.linear(x, *of_layer) for of_layer in zip(weights, biases, strict=True))

    @staticmethod
    def backward(ctx, *dys):
        (x, *weights), dx = ctx.saved_tensors, None
        # Under autocast all of these are bfloat16, the gradients that they give are float32.
        for dy, weight, of_weight, of_bias in zip(
            dys, weights, ctx.into[::2], ctx.into[1::2], strict=True
        ):
            pieces = zip(x.split(ctx.rows), dy.split(ctx.rows), strict=True)
            for t, (x_t, dy_t) in enumerate(pieces):
                if dy.dtype == of_weight[t].dtype:
                    torch.mm(dy_t.T, x_t, out=of_weight[t])
                else:
                    of_weight[t].copy_(dy_t.T @ x_t)
                torch.sum(dy_t, dim=0, out=of_bias[t])
            of_layer = dy @ weight
            dx = of_layer.to(ctx.dtype) if dx is None else dx.add_(of_layer)
        return dx, None, None, *(None,) * (2 * len(weights))


class _LayerNorm(Function):
    """`F.layer_norm`, the gradients of weight and bias written task by task."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps, rows, *into):
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.rows, ctx.into = rows, into
        return y

    @staticmethod
    def backward(ctx, dy):
        *of_rows, weight, bias = ctx.saved_tensors
        of_weight, of_bias = ctx.into
        dx = []
        pieces = zip(*(rows.split(ctx.rows) for rows in (dy, *of_rows)), strict=True)
        for t, (dy_t, x_t, mean, rstd) in enumerate(pieces):
            dx_t, dw, db = torch.ops.aten.native_layer_norm_backward(
                dy_t, x_t, weight.shape, mean, rstd, weight, bias, [True, True, True]
            )
            of_weight[t].copy_(dw)
            of_bias[t].copy_(db)
            dx.append(dx_t)
        return torch.cat(dx), *(None,) * 6


def _gram(rows: Tensor) -> Tensor:
    """Inner products of the rows, `[T, P]` -> `[T, T]`: short ones in float32, summed in float64.

    One float32 product over all P would be off by up to 3e-3 in the cosine; this is at 1e-7.
    """
    whole = rows.shape[1] // _CHUNK * _CHUNK
    pieces = rows[:, :whole].view(len(rows), -1, _CHUNK).transpose(0, 1)  # [K, T, _CHUNK]
    products = (pieces @ pieces.transpose(1, 2)).double().sum(dim=0)  # [T, T]
    rest = rows[:, whole:].double()
    return products + rest @ rest.T
