"""All tasks in one forward and one backward pass, and still one gradient per task.

`gradients.py` runs one backward pass per task. But the gradient of a weight is a sum over the rows
that went through it, and every row belongs to one task: cut the rows into tasks, and the same sum,
taken task by task, gives T gradients for the price of one. For a linear layer y = x W^T that is

    dL/dW = sum_t  dy_t^T x_t        x_t, dy_t: the rows of task t

which needs neither T backward passes nor more arithmetic than a single summed loss.

Shapes as in `packed.py`: T tasks, S sentences, N tokens; besides, P shared parameters that are not
word embeddings, and U distinct words in the step.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from mtl_lib.bert import BertEmbeddings, BertModel
from mtl_lib.fast.packed import Layers, Pack, packed_vectors
from mtl_lib.weighting import float64

_CHUNK = 2**12  # elements of an inner product in float32; their sums are added up in float64


class JointGradients(Layers):
    """The shared parameters' gradients, one per task, from one backward pass.

        gradients = JointGradients(encoder, tasks=3)
        vectors = gradients.vectors(Pack.of(...))        # [S, H], by task
        sum(losses).backward()
        gradients.combine(pcgrad_weights(gradients.gram()))
        optimizer.step()

    Same results as `TaskGradients`: several backward passes before one `combine` add up, a
    parameter that none of them reaches counts as zero, and a frozen one neither counts nor moves.
    Of the word embeddings, half of a small BERT, only the rows of words that occur in the step are
    kept and read: all others have gradient zero.

    Args:
        encoder: may be frozen in part, and otherwise from step to step.
        tasks: how many there are, T.
        shared: the parameters that the tasks share; all of the encoder's by default. Of the others
            the backward pass leaves the plain gradient in `.grad`, as ever.

    Raises:
        ValueError: if a shared parameter is none of the encoder's.
    """

    def __init__(
        self, encoder: BertModel, tasks: int, shared: Iterable[nn.Parameter] | None = None
    ) -> None:
        self.encoder = encoder
        self.tasks = tasks
        self._table = encoder.embeddings.word_embeddings  # [V, H]
        ours = list(encoder.parameters())
        shared = dict.fromkeys(ours if shared is None else shared)  # each once, in their order
        if strange := shared.keys() - set(ours):
            shapes = sorted(tuple(parameter.shape) for parameter in strange)
            raise ValueError(f"shared parameters of shapes {shapes} are none of the encoder's")
        self._with_table = self._table.weight in shared
        dense = [parameter for parameter in shared if parameter is not self._table.weight]
        sizes = [parameter.numel() for parameter in dense]
        self._rows = self._table.weight.new_zeros(tasks, sum(sizes))  # [T, P]
        self._total = self._table.weight.new_zeros(sum(sizes))  # [P], the combined gradient
        pieces = zip(dense, self._rows.split(sizes, dim=1), self._total.split(sizes), strict=True)
        self._dense = {}  # by parameter its gradients and the combined one
        for parameter, rows, total in pieces:
            of_tasks = _ByTask(rows.view(tasks, *parameter.shape))
            self._dense[parameter] = of_tasks, total.view(parameter.shape)
        self._table_total = torch.zeros_like(self._table.weight)  # [V, H]
        self._combined = self._total.new_zeros(0, dtype=torch.long)  # its rows that are not zero
        self._version = self._table_total._version
        self.clear()

    def clear(self) -> None:
        """Forget the gradients of a step that was not finished by `combine`."""
        for of_tasks, _ in self._dense.values():
            of_tasks.clear()
        self._clear_words()

    def _clear_words(self) -> None:
        self._words = self._total.new_zeros(0, dtype=torch.long)  # [U], those of this step
        self._word_rows = self._total.new_zeros(self.tasks, 0, self._table.embedding_dim)

    def vectors(self, pack: Pack, kind: str = "pooler") -> Tensor:
        """Sentence vectors, `[S, H]` or `[S, 2H]`, whose backward pass fills in the gradients.

        The batches of the pack are those of the T tasks, in the order of the Gram matrix; `kind` is
        one of `bert.SENTENCE_VECTORS`.

        Raises:
            ValueError: if the pack holds another number of batches, or there is no such kind.
        """
        if len(pack.tokens) != self.tasks:
            raise ValueError(f"the pack holds {len(pack.tokens)} batches for {self.tasks} tasks")
        return packed_vectors(self.encoder, pack, self, kind)

    def gram(self) -> Tensor:
        """Inner products of the tasks' gradients over all shared parameters, `[T, T]`, float64."""
        self._settle()
        with self._exactly():
            return _gram(self._rows) + _gram(self._word_rows.flatten(1))

    def _exactly(self) -> AbstractContextManager[Any]:
        """What is done with finished gradients keeps their type under an autocast, too."""
        return torch.autocast(self._total.device.type, enabled=False)

    def combine(self, weights: Tensor) -> None:
        """Write sum_t weights[t] g_t into the shared parameters' `.grad`, then forget the g_t.

        A parameter that is frozen or was not reached has the gradient None.

        Args:
            weights: one per task, `[T]`.

        Raises:
            ValueError: if the number of weights is not the number of tasks.
        """
        if weights.shape != (self.tasks,):
            raise ValueError(f"weights {tuple(weights.shape)} for {self.tasks} tasks")
        self._settle()
        weights = weights.to(self._rows)
        torch.mv(self._rows.T, weights, out=self._total)
        for parameter, (of_tasks, total) in self._dense.items():
            parameter.grad = total if of_tasks.reached else None
        if self._with_table:
            self._table.weight.grad = self._combined_table(weights) if len(self._words) else None
        self.clear()

    def _combined_table(self, weights: Tensor) -> Tensor:
        """The combined gradient of the word embeddings, `[V, H]`: zero but for the step's words."""
        if self._table_total._version == self._version:
            self._table_total.index_fill_(0, self._combined, 0)  # the rows of the last step
        else:  # somebody clipped it, or added noise
            self._table_total.zero_()
        self._combined = self._words
        with self._exactly():
            combined = torch.tensordot(weights, self._word_rows, dims=1)  # [U, H]
        self._table_total.index_copy_(0, self._words, combined)
        self._version = self._table_total._version
        return self._table_total

    def add(self, task: int) -> None:
        """Add to one task's gradient what an ordinary backward pass left in `.grad`.

        For a loss term with a graph of its own.
        """
        for parameter, (of_tasks, _) in self._dense.items():
            if parameter.grad is not None:
                of_tasks.add(task, parameter.grad.to_dense())
                parameter.grad = None
        if self._with_table and self._table.weight.grad is not None:
            gradient = self._table.weight.grad.to_dense()
            words = gradient.any(dim=1).nonzero().flatten()  # not only those of the sentences
            places = self._places(words)
            self._word_rows[task].index_add_(0, places, gradient[words])
            self._table.weight.grad = None

    def _add_words(self, words: Tensor, rows: Tensor) -> Tensor | None:
        """Take in a pass's gradients of its words, `[T, U, H]`; what is to go into `.grad`."""
        if not self._with_table:
            total = torch.zeros_like(self._table.weight)
            return total.index_copy_(0, words, rows.sum(dim=0))
        if len(self._words):
            places = self._places(words)
            self._word_rows.index_add_(1, places, rows)
        else:
            self._words, self._word_rows = words, rows
        return None

    def _places(self, words: Tensor) -> Tensor:
        """Where words stand among those of the step; new ones join them, with gradients of zero."""
        known = len(self._words)
        union, places = torch.cat([self._words, words]).unique(return_inverse=True)
        if len(union) > known:
            rows = self._total.new_zeros(self.tasks, len(union), self._table.embedding_dim)
            self._word_rows = rows.index_copy_(1, places[:known], self._word_rows)
            self._words = union
        return places[known:]

    def words_beyond(self, words: Tensor) -> Tensor:
        """Words with gradients in this step that are none of these, `[U]`."""
        return self._words[~torch.isin(self._words, words.to(self._words))]

    def exchange(self, words: Tensor, add_up: Callable[..., None]) -> None:
        """Let a function add up the gradients of several processes, in place.

        Args:
            words: those that any process reached, `[U]`.
            add_up: is given the buffers `[T, P]` and `[T, U, H]`, the same in every process.
        """
        self._settle()
        if self._with_table and self._table.weight.requires_grad:
            self._places(words.to(self._words))
        add_up(self._rows, self._word_rows)

    def _settle(self) -> None:
        """What is frozen, or was not reached, counts as zero."""
        for parameter, (of_tasks, _) in self._dense.items():
            if of_tasks.reached and not parameter.requires_grad:
                of_tasks.clear()
            of_tasks.fill()
        if not self._table.weight.requires_grad:
            self._clear_words()

    def _into(self, parameter: nn.Parameter) -> "_ByTask | None":
        """Where a backward pass writes the gradients of a parameter; None where it is frozen."""
        if not parameter.requires_grad:
            return None
        if parameter in self._dense:
            return self._dense[parameter][0]
        return _ByTask(parameter.new_empty(self.tasks, *parameter.shape), shared=False)

    def embed(self, embeddings: BertEmbeddings, pack: Pack) -> Tensor:
        """As `Layers.embed`, `[N, H]`."""
        position, segment = embeddings.position_embeddings, embeddings.token_type_embeddings
        tables: list[Any] = [position.weight, segment.weight]
        into = [self._into(table) for table in tables]
        return _Embed.apply(self._table.weight, *tables, pack, self, into)

    def linears(self, modules: Sequence[nn.Linear], x: Tensor, rows: list[int]) -> Sequence[Tensor]:
        """`[R, in]` -> for each module `[R, out]`; `rows`: how many of the R are of each task."""
        parameters: list[Any] = [p for m in modules for p in (m.weight, m.bias)]
        return _Linears.apply(x, rows, [self._into(p) for p in parameters], *parameters)

    def norm(self, module: nn.LayerNorm, x: Tensor, rows: list[int]) -> Tensor:
        """`[R, H]` -> `[R, H]`; `rows` says how many of the R belong to each task."""
        into = [self._into(module.weight), self._into(module.bias)]
        return _LayerNorm.apply(x, module.weight, module.bias, module.eps, rows, into)


class _ByTask:
    """One parameter's gradients, one per task: the first of a step is written, later ones added."""

    def __init__(self, gradients: Tensor, shared: bool = True) -> None:  # [T, ...]
        self.gradients = gradients.unbind()  # T tensors
        self.shared = shared
        self.clear()

    def clear(self) -> None:
        self.reached = False
        self.written = [False] * len(self.gradients)

    def add(self, task: int, gradient: Tensor) -> None:
        into = self.gradients[task]
        into.add_(gradient) if self.written[task] else into.copy_(gradient)
        self.reached = self.written[task] = True

    def add_product(self, task: int, a: Tensor, b: Tensor) -> None:
        """`add(task, a @ b)`, in place where the types agree; under autocast they do not."""
        into = self.gradients[task]
        if a.dtype != into.dtype:
            self.add(task, a @ b)
        else:
            torch.addmm(into, a, b, beta=int(self.written[task]), out=into)
            self.reached = self.written[task] = True

    def fill(self) -> None:
        """A task of which nothing arrived has the gradient zero."""
        for task, gradient in enumerate(self.gradients):
            if not self.written[task]:
                gradient.zero_()
                self.written[task] = True


def _unshared(into: list[_ByTask | None]) -> list[Tensor | None]:
    """What goes into `.grad`: for parameters that are not shared the sum over the tasks."""
    totals: list[Tensor | None] = []
    for of_tasks in into:
        if of_tasks is None or of_tasks.shared:
            totals.append(None)
        else:
            totals.append(torch.stack(of_tasks.gradients).sum(dim=0))
            of_tasks.clear()  # the graph may be kept for another pass
    return totals


class _Embed(Function):
    """Word, position and segment embedding of every token."""

    @staticmethod
    def forward(
        ctx: Any, words: Any, positions: Any, segments: Any, pack: Any, gradients: Any, into: Any
    ) -> Any:
        ctx.pack, ctx.gradients, ctx.into = pack, gradients, into
        return words[pack.words][pack.spelled] + positions[pack.positions] + segments[pack.segments]

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        pack, gradients, (positions, segments) = ctx.pack, ctx.gradients, ctx.into
        words = dy.new_zeros(len(pack.tokens), len(pack.words), dy.shape[1])  # [T, U, H]
        of_tokens = dy, pack.spelled, pack.positions, pack.segments
        pieces = (rows.split(pack.tokens) for rows in of_tokens)
        for t, (dy_t, spelled, position, segment) in enumerate(zip(*pieces, strict=True)):
            if ctx.needs_input_grad[0]:
                words[t].index_add_(0, spelled, dy_t)
            if positions:
                of_table = torch.zeros_like(positions.gradients[t])
                positions.add(t, of_table.index_add_(0, position, dy_t))
            if segments:
                of_table = torch.zeros_like(segments.gradients[t])
                for number in range(len(of_table)):
                    of_table[number] = dy_t[segment == number].sum(dim=0)
                segments.add(t, of_table)
        of_words = None
        if ctx.needs_input_grad[0]:
            padding = gradients._table.padding_idx
            if padding is not None:  # as in nn.Embedding: the padding word is not trained
                words[:, pack.words == padding] = 0
            of_words = gradients._add_words(pack.words, words)
        return of_words, *_unshared(ctx.into), None, None, None


class _Linears(Function):
    """`F.linear` by several weights, the gradients of weights and biases written task by task."""

    @staticmethod
    def forward(ctx: Any, x: Any, rows: Any, into: Any, *parameters: Any) -> Any:
        ctx.rows, ctx.into, ctx.dtype, kind = rows, into, x.dtype, x.device.type
        if torch.is_autocast_enabled(kind):  # cast once, for both passes
            low = torch.get_autocast_dtype(kind)
            x, parameters = x.to(low), tuple(parameter.to(low) for parameter in parameters)
        weights, biases = parameters[::2], parameters[1::2]
        ctx.save_for_backward(x, *weights)
        return tuple(F.linear(x, *of_layer) for of_layer in zip(weights, biases, strict=True))

    @staticmethod
    def backward(ctx: Any, *dys: Any) -> Any:
        (x, *weights), dx = ctx.saved_tensors, None
        # Under autocast all of these are bfloat16, the gradients that they give are float32.
        for dy, weight, of_weight, of_bias in zip(
            dys, weights, ctx.into[::2], ctx.into[1::2], strict=True
        ):
            pieces = zip(x.split(ctx.rows), dy.split(ctx.rows), strict=True)
            for t, (x_t, dy_t) in enumerate(pieces):
                if of_weight:
                    of_weight.add_product(t, dy_t.T, x_t)
                if of_bias:
                    of_bias.add(t, dy_t.sum(dim=0, dtype=of_bias.gradients[t].dtype))
            if ctx.needs_input_grad[0]:
                of_layer = dy @ weight
                dx = of_layer.to(ctx.dtype) if dx is None else dx.add_(of_layer)
        return dx, None, None, *_unshared(ctx.into)


class _LayerNorm(Function):
    """`F.layer_norm`, the gradients of weight and bias written task by task."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, eps: Any, rows: Any, into: Any) -> Any:
        y, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        ctx.rows, ctx.into = rows, into
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        *of_rows, weight, bias = ctx.saved_tensors
        needed, dx = list(ctx.needs_input_grad[:3]), []
        pieces = zip(*(rows.split(ctx.rows) for rows in (dy, *of_rows)), strict=True)
        for t, (dy_t, x_t, mean, rstd) in enumerate(pieces):
            dx_t, *of_parameters = torch.ops.aten.native_layer_norm_backward(
                dy_t, x_t, weight.shape, mean, rstd, weight, bias, needed
            )
            dx.append(dx_t)
            for of_tasks, gradient in zip(ctx.into, of_parameters, strict=True):
                if of_tasks:
                    of_tasks.add(t, gradient)
        return torch.cat(dx) if needed[0] else None, *_unshared(ctx.into), None, None, None


def _gram(rows: Tensor) -> Tensor:
    """Inner products of the rows, `[T, P]` -> `[T, T]`: short ones in float32, summed in float64.

    One float32 product over all P would be off by up to 3e-3 in the cosine; this is at 1e-7.
    """
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # of half precision, too
    whole = rows.shape[1] // _CHUNK * _CHUNK
    pieces = rows[:, :whole].view(len(rows), -1, _CHUNK).transpose(0, 1)  # [K, T, _CHUNK]
    products = float64(pieces @ pieces.transpose(1, 2)).sum(dim=0)  # [T, T]
    rest = float64(rows[:, whole:])
    return products + rest @ rest.T
