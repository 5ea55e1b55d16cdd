"""Answers to the exercises of chapter 05."""

import copy
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from wrong_answers.bank import Bank

from mtl_lib.data import BatchStream, sorted_batches
from mtl_lib.evaluation import predict
from mtl_lib.handbook.checks import chapter_05

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# multitask_loss


@right("multitask_loss")
def torch_losses(outputs, batch):
    if batch.task.kind == "classes":
        return F.cross_entropy(outputs, batch.labels)
    if batch.task.kind == "binary":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], batch.labels)
    return F.mse_loss(outputs.squeeze(-1), batch.labels)


@right("multitask_loss")
def by_hand(outputs, batch):
    y = batch.labels
    if batch.task.kind == "classes":
        log_p = outputs - outputs.logsumexp(dim=1, keepdim=True)
        return -log_p.gather(1, y[:, None]).mean()
    z = outputs.flatten()
    if batch.task.kind == "binary":
        return (F.softplus(z) - y * z).mean()
    return ((z - y) ** 2).sum() / len(y)


@right("multitask_loss")
def labels_as_columns(outputs, batch):
    y = batch.labels[:, None]
    match batch.task.kind:
        case "classes":
            return F.nll_loss(F.log_softmax(outputs, dim=-1), batch.labels)
        case "binary":
            return torch.nn.BCEWithLogitsLoss()(outputs, y)
        case "score":
            return torch.nn.MSELoss()(outputs, y)


@right("multitask_loss")
def example_by_example(outputs, batch):
    losses = []
    for z, y in zip(outputs, batch.labels, strict=True):
        if batch.task.kind == "classes":
            losses.append(torch.logsumexp(z, 0) - z[y])
        elif batch.task.kind == "binary":
            losses.append(-F.logsigmoid(z[0] if y == 1 else -z[0]))
        else:
            losses.append((z[0] - y).pow(2))
    return sum(losses) / len(losses)


def _three(outputs, batch, classes=None, binary=None, score=None):
    """The right losses, except where another is given."""
    z, y, kind = outputs, batch.labels, batch.task.kind
    if kind == "classes":
        return classes(z, y) if classes else F.cross_entropy(z, y)
    if kind == "binary":
        return binary(z, y) if binary else F.binary_cross_entropy_with_logits(z[:, 0], y)
    return score(z, y) if score else F.mse_loss(z[:, 0], y)


@wrong("multitask_loss", "softmax comes before")
def softmax_twice(outputs, batch):
    return _three(outputs, batch, classes=lambda z, y: F.cross_entropy(F.softmax(z, -1), y))


@wrong("multitask_loss", "sigmoid comes before")
def sigmoid_twice(outputs, batch):
    return _three(
        outputs,
        batch,
        binary=lambda z, y: F.binary_cross_entropy_with_logits(torch.sigmoid(z[:, 0]), y),
    )


@wrong("multitask_loss", "[B, 1] minus [B] is [B, B]")
def broadcast_square(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: F.mse_loss(z, y))


@wrong("multitask_loss", "in the binary loss as in")
def broadcast_both(outputs, batch):
    def binary(z, y):
        return (F.softplus(z) - y * z).mean()

    return _three(outputs, batch, binary=binary, score=lambda z, y: ((z - y) ** 2).mean())


@wrong("multitask_loss", None)
def broadcast_binary(outputs, batch):
    return _three(outputs, batch, binary=lambda z, y: (F.softplus(z) - y * z).mean())


@wrong("multitask_loss", "divided by the batch size again")
def mean_of_mean(outputs, batch):
    return torch_losses(outputs, batch) / outputs.shape[0]


@wrong("multitask_loss", "sum over the examples")
def summed(outputs, batch):
    y, kind = batch.labels, batch.task.kind
    if kind == "classes":
        return F.cross_entropy(outputs, y, reduction="sum")
    if kind == "binary":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="sum")
    return F.mse_loss(outputs[:, 0], y, reduction="sum")


@wrong("multitask_loss", "whole numbers: 4.6 becomes 4")
def whole_scores(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: ((z[:, 0] - y.int()) ** 2).mean())


@wrong("multitask_loss", "rounded")
def rounded_scores(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: F.mse_loss(z[:, 0], torch.round(y)))


@wrong("multitask_loss", "absolute error")
def absolute_error(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: (z[:, 0] - y).abs().mean())


@wrong("multitask_loss", "sigmoid bends the score")
def bent_score(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: F.mse_loss(torch.sigmoid(z.squeeze(1)) * 5, y))


@wrong("multitask_loss", "right for small outputs only")
def log_of_softmax(outputs, batch):
    return _three(
        outputs,
        batch,
        classes=lambda z, y: -torch.log(torch.softmax(z, 1))[torch.arange(len(y)), y].mean(),
    )


@wrong("multitask_loss", "right for small outputs only")
def log_of_sum_of_exp(outputs, batch):
    def classes(z, y):
        return (torch.log(torch.exp(z).sum(1)) - z[torch.arange(len(y)), y]).mean()

    return _three(outputs, batch, classes=classes)


@wrong("multitask_loss", "right for small outputs only")
def bce_of_sigmoid(outputs, batch):
    return _three(
        outputs, batch, binary=lambda z, y: F.binary_cross_entropy(torch.sigmoid(z[:, 0]), y)
    )


@wrong("multitask_loss", "right for small outputs only")
def both_naive(outputs, batch):
    return _three(
        outputs,
        batch,
        classes=lambda z, y: F.nll_loss(torch.log(F.softmax(z, dim=1)), y),
        binary=lambda z, y: torch.nn.BCELoss()(z.sigmoid().flatten(), y),
    )


@wrong("multitask_loss", None)
def log_plus_epsilon(outputs, batch):
    return _three(
        outputs,
        batch,
        classes=lambda z, y: -(z.softmax(1) + 1e-8).log()[range(len(y)), y].mean(),
    )


@wrong("multitask_loss", "squared error: cross-entropy")
def square_of_sigmoid(outputs, batch):
    return _three(outputs, batch, binary=lambda z, y: ((z[:, 0].sigmoid() - y) ** 2).mean())


@wrong("multitask_loss", "logarithm is missing")
def nll_of_softmax(outputs, batch):
    return _three(outputs, batch, classes=lambda z, y: F.nll_loss(z.softmax(dim=1), y))


@wrong("multitask_loss", None)
def softmax_over_the_batch(outputs, batch):
    return _three(outputs, batch, classes=lambda z, y: F.nll_loss(z.log_softmax(dim=0), y))


@wrong("multitask_loss", "always 1")
def softmax_over_one_output(outputs, batch):
    return _three(
        outputs,
        batch,
        binary=lambda z, y: F.binary_cross_entropy(z.softmax(dim=1).squeeze(1), y),
    )


@wrong("multitask_loss", None)
def cross_entropy_over_one_output(outputs, batch):
    return _three(
        outputs, batch, binary=lambda z, y: F.cross_entropy(z, torch.zeros_like(y).long())
    )


@wrong("multitask_loss", 'Case "score, labels from 0 to 1"')
def kind_guessed_from_the_labels(outputs, batch):
    if outputs.shape[1] > 1:
        return F.cross_entropy(outputs, batch.labels)
    if batch.labels.max() <= 1:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], batch.labels)
    return F.mse_loss(outputs[:, 0], batch.labels)


@wrong("multitask_loss", None)
def labels_flipped(outputs, batch):
    return _three(
        outputs,
        batch,
        binary=lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], 1 - y),
    )


@wrong("multitask_loss", None)
def clamped_outputs(outputs, batch):
    return torch_losses(outputs.clamp(-20, 20), batch)


@wrong("multitask_loss", None)
def half_square(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: 0.5 * F.mse_loss(z[:, 0], y))


@wrong("multitask_loss", None)
def root_of_mean_square(outputs, batch):
    return _three(outputs, batch, score=lambda z, y: F.mse_loss(z[:, 0], y).sqrt())


@wrong("multitask_loss", None)
def always_the_first_task(outputs, batch):
    return F.cross_entropy(outputs, batch.labels.long().clamp(max=outputs.shape[1] - 1))


@wrong("multitask_loss", "detached")
def as_a_number(outputs, batch):
    return torch_losses(outputs, batch).item()


@wrong("multitask_loss", "expected a single number")
def not_reduced(outputs, batch):
    y, kind = batch.labels, batch.task.kind
    if kind == "classes":
        return F.cross_entropy(outputs, y, reduction="none")
    return (outputs[:, 0] - y) ** 2


@wrong("multitask_loss", None)
def right_for_one_batch_size(outputs, batch):
    return torch_losses(outputs, batch) * len(batch.labels) / 6


# task_gradients


@right("task_gradients")
def autograd(model, losses):
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, model.shared_parameters(), materialize_grads=True)
        rows.append(torch.cat([g.reshape(-1) for g in gradients]))
    return torch.stack(rows)


@right("task_gradients")
def backward_and_clear(model, losses):
    rows = []
    for loss in losses:
        model.zero_grad()
        loss.backward()
        row = []
        for p in model.shared_parameters():
            row += (torch.zeros_like(p) if p.grad is None else p.grad).flatten().tolist()
        rows.append(row)
    return rows


@right("task_gradients")
def differences_of_sums(model, losses):
    shared = model.shared_parameters()

    def flat():
        return torch.cat(
            [torch.zeros(p.numel()) if p.grad is None else p.grad.view(-1) for p in shared]
        )

    before, rows = flat().clone(), []
    for loss in losses:
        loss.backward()
        rows.append(flat() - before)
        before = flat().clone()
    return torch.vstack(rows)


@right("task_gradients")
def filled_in_numpy(model, losses):
    shared = list(model.shared_parameters())
    result = np.zeros((len(losses), sum(p.numel() for p in shared)))
    for t, loss in enumerate(losses):
        start = 0
        gradients = torch.autograd.grad(loss, shared, allow_unused=True)
        for p, g in zip(shared, gradients, strict=True):
            if g is not None:
                result[t, start : start + p.numel()] = g.numpy().ravel()
            start += p.numel()
    return result


@wrong("task_gradients", "heads are included")
def of_all_parameters(model, losses):
    rows = []
    for loss in losses:
        model.zero_grad()
        loss.backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


@wrong("task_gradients", "no loss has reached yet")
def never_cleared_and_as_found(model, losses):
    rows = []
    for loss in losses:
        loss.backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.shared_parameters()]))
    return torch.stack(rows)


@wrong("task_gradients", "accumulate over the tasks")
def never_cleared(model, losses):
    rows = []
    for loss in losses:
        loss.backward()
        grads = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in model.shared_parameters()
        ]
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


@wrong("task_gradients", "gradients are summed")
def of_the_sum(model, losses):
    gradients = torch.autograd.grad(sum(losses), model.shared_parameters(), materialize_grads=True)
    return torch.cat([g.flatten() for g in gradients])


@wrong("task_gradients", "gradient of the summed loss")
def total_in_every_row(model, losses):
    sum(losses).backward()
    row = torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten()
            for p in model.shared_parameters()
        ]
    )
    return torch.stack([row for _ in losses])


@wrong("task_gradients", "length 1")
def unit_rows(model, losses):
    rows = autograd(model, losses)
    return rows / rows.norm(dim=1, keepdim=True)


@wrong("task_gradients", "divided by the number of tasks")
def averaged(model, losses):
    return autograd(model, [loss / len(losses) for loss in losses])


@wrong("task_gradients", "Tasks run across")
def across(model, losses):
    return torch.stack(list(autograd(model, losses)), dim=1)


@wrong("task_gradients", "another order")
def reversed_tensors(model, losses):
    rows = []
    for loss in losses:
        shared = model.shared_parameters()[::-1]
        gradients = torch.autograd.grad(loss, shared, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


@wrong("task_gradients", "RuntimeError")
def unused_forgotten(model, losses):
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, model.shared_parameters())
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


@wrong("task_gradients", None)
def unused_skipped(model, losses):
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, model.shared_parameters(), allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in gradients if g is not None]))
    width = max(len(row) for row in rows)
    return torch.stack([F.pad(row, (0, width - len(row))) for row in rows])


@wrong("task_gradients", None)
def steps_on_the_way(model, losses):
    rows = autograd(model, losses)
    with torch.no_grad():
        for p in model.shared_parameters():
            p -= 0.1
    return rows


@wrong("task_gradients", None)
def weights_only(model, losses):
    weights = [p for p in model.shared_parameters() if p.dim() > 1]
    rows = [torch.autograd.grad(loss, weights)[0].flatten() for loss in losses]
    return torch.stack(rows)


@wrong("task_gradients", None)
def transposed_tensors(model, losses):
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, model.shared_parameters(), materialize_grads=True)
        rows.append(torch.cat([g.T.flatten() if g.dim() > 1 else g for g in gradients]))
    return torch.stack(rows)


@wrong("task_gradients", None)
def first_loss_again_and_again(model, losses):
    return autograd(model, losses[:1]).repeat(len(losses), 1)


@wrong("task_gradients", None)
def climbing(model, losses):
    return -autograd(model, losses)


@wrong("task_gradients", None)
def alias_of_one_row(model, losses):
    row = torch.zeros(sum(p.numel() for p in model.shared_parameters()))
    rows = []
    for loss in losses:
        row.copy_(autograd(model, [loss])[0])
        rows.append(row)
    return rows


# is_additive


@right("is_additive")
def random_fours(score, vectors):
    fours = torch.randint(len(vectors), (4, 500), generator=torch.Generator().manual_seed(5))
    a, b, c, d = vectors[fours]
    left, right = score(a, b) + score(c, d), score(a, d) + score(c, b)
    return torch.allclose(left, right, rtol=1e-4, atol=1e-4)


@right("is_additive")
def every_four(score, vectors):
    n = len(vectors)
    table = np.array([[score(u[None], v[None]).item() for v in vectors] for u in vectors])
    for a, c in itertools.combinations(range(n), 2):
        for b, d in itertools.combinations(range(n), 2):
            if abs(table[a, b] + table[c, d] - table[a, d] - table[c, b]) > 1e-4:
                return False
    return True


@right("is_additive")
def rank_of_the_differences(score, vectors):
    n = len(vectors)
    rows = torch.stack([score(u.expand(n, -1), vectors) for u in vectors])
    differences = rows - rows[0]
    return (differences - differences[:, :1]).abs().max() < 1e-4


@right("is_additive")
def numpy_table(score, vectors):
    n = len(vectors)
    u, v = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    table = score(vectors[u.flatten()], vectors[v.flatten()]).numpy().reshape(n, n)
    return np.allclose(table[1:, 1:] + table[0, 0], table[1:, :1] + table[:1, 1:], atol=1e-4)


@wrong("is_additive", "tries one four")
def one_four(score, vectors):
    a, b, c, d = (vectors[i : i + 1] for i in range(4))
    return torch.allclose(score(a, b) + score(c, d), score(a, d) + score(c, b), atol=1e-4)


@wrong("is_additive", "both sentences are the same")
def equal_pairs(score, vectors):
    n = len(vectors)
    for i in range(n):
        for j in range(n):
            a, b = vectors[i][None], vectors[j][None]
            if not torch.allclose(score(a, a) + score(b, b), score(a, b) + score(b, a), atol=1e-4):
                return False
    return True


@wrong("is_additive", "may be exchanged")
def symmetric(score, vectors):
    n = len(vectors)
    u, v = vectors.repeat(n, 1), vectors.repeat_interleave(n, 0)
    return torch.allclose(score(u, v), score(v, u), rtol=1e-4, atol=1e-4)


@wrong("is_additive", "whether the score is linear")
def homogeneous(score, vectors):
    u, v = vectors, vectors.flip(0)
    return torch.allclose(score(2 * u, 2 * v), 2 * score(u, v), rtol=1e-4, atol=1e-4)


@wrong("is_additive", "put in second place")
def wrong_partners(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return torch.allclose(score(a, b) + score(c, d), score(a, c) + score(b, d), atol=1e-4)


@wrong("is_additive", "exchanged")
def the_other_way_round(score, vectors):
    return not random_fours(score, vectors)


@wrong("is_additive", None)
def always(score, vectors):
    return True


@wrong("is_additive", None)
def never(score, vectors):
    return False


@wrong("is_additive", None)
def very_tolerant(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return torch.allclose(score(a, b) + score(c, d), score(a, d) + score(c, b), atol=0.5)


@wrong("is_additive", None)
def on_average(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    difference = score(a, b) + score(c, d) - score(a, d) - score(c, b)
    return abs(difference.mean().item()) < 0.2


@wrong("is_additive", None)
def any_four_will_do(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return bool(torch.isclose(score(a, b) + score(c, d), score(a, d) + score(c, b)).any())


@wrong("is_additive", "expected True")
def the_largest_difference(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return (score(a, b) + score(c, d) - score(a, d) - score(c, b)).abs().max().item()


@wrong("is_additive", "Rounding alone")
def by_torchs_defaults(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return torch.allclose(score(a, b) + score(c, d), score(a, d) + score(c, b))


@wrong("is_additive", "but for a thousandth")
def to_one_hundredth(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return (score(a, b) + score(c, d) - score(a, d) - score(c, b)).abs().max().item() < 0.01


@wrong("is_additive", "Rounding alone")
def exactly_equal(score, vectors):
    a, b, c, d = vectors[torch.randint(len(vectors), (4, 500))]
    return bool((score(a, b) + score(c, d) == score(a, d) + score(c, b)).all())


@wrong("is_additive", None)
def first_six_vectors(score, vectors):
    return random_fours(score, vectors[:4])


@wrong("is_additive", None)
def ten_fours(score, vectors):
    fours = torch.randint(5, (4, 10), generator=torch.Generator().manual_seed(0))
    a, b, c, d = vectors[fours]
    return torch.allclose(score(a, b) + score(c, d), score(a, d) + score(c, b), atol=1e-4)


@wrong("is_additive", None)
def is_it_a_constant(score, vectors):
    values = score(vectors, vectors.flip(0))
    return math.isclose(values.min().item(), values.max().item(), abs_tol=1e-4)


@wrong("is_additive", None)
def sum_with_zero(score, vectors):
    zero = torch.zeros_like(vectors)
    left = score(vectors, vectors.flip(0))
    return torch.allclose(left, score(vectors, zero) + score(zero, vectors.flip(0)), atol=1e-4)


# Head


class _Head(nn.Module):
    """A head whose parts the answers below change."""

    def __init__(self, task, hidden_size, dropout=0.3):
        super().__init__()
        self.n = task.sentences
        self.task = task
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.n * hidden_size, task.outputs)


@right("Head")
class HalvesByIndex(_Head):
    def forward(self, vectors):
        size = len(vectors) // self.n
        if self.n == 1:
            return self.linear(self.dropout(vectors))
        pair = torch.hstack([vectors[:size], vectors[size:]])
        return self.linear(self.dropout(pair))


@right("Head")
class DropsBeforeJoining(_Head):
    def forward(self, vectors):
        parts = self.dropout(vectors).view(self.n, -1, vectors.shape[1])  # [n, B, H]
        return self.linear(parts.transpose(0, 1).flatten(start_dim=1))


@right("Head")
class TwoProducts(_Head):
    def forward(self, vectors):
        parts = F.dropout(vectors, self.dropout.p, self.training).chunk(self.n)
        weights = self.linear.weight.chunk(self.n, dim=1)
        return self.linear.bias + sum(p @ w.T for p, w in zip(parts, weights, strict=True))


@wrong("Head", "rows 0 and 1 for a pair")
class ViewedHead(_Head):
    def forward(self, vectors):
        return self.linear(self.dropout(vectors.view(-1, self.linear.in_features)))


@wrong("Head", "rows 0 and 1 for a pair")
class EverySecondRow(_Head):
    def forward(self, vectors):
        parts = [vectors[place :: self.n] for place in range(self.n)]
        return self.linear(self.dropout(torch.cat(parts, 1)))


@wrong("Head", "second sentence comes first")
class Exchanged(_Head):
    def forward(self, vectors):
        if self.n == 2:
            u, v = vectors.chunk(2)
            vectors = torch.cat([v, u], dim=1)
        return self.linear(self.dropout(vectors))


@wrong("Head", "never used")
class NoDropout(DropsBeforeJoining):
    def forward(self, vectors):
        return self.linear(torch.cat(vectors.chunk(self.n), dim=-1))


@wrong("Head", "drops in evaluation mode too")
class AlwaysDrops(_Head):
    def forward(self, vectors):
        vectors = torch.cat(vectors.chunk(self.n), dim=1)
        return self.linear(F.dropout(vectors, p=self.dropout.p, training=True))


@wrong("Head", "sets outputs to 0")
class DropsOutputs(_Head):
    def forward(self, vectors):
        return self.dropout(self.linear(torch.cat(vectors.chunk(self.n), dim=1)))


@wrong("Head", "always 0.3")
class RateOfThePaper(HalvesByIndex):
    def __init__(self, task, hidden_size, dropout=0.3):
        super().__init__(task, hidden_size)
        self.dropout = nn.Dropout(0.3)


@wrong("Head", "are added up")
class MeanOfThePair(_Head):
    def __init__(self, task, hidden_size, dropout=0.3):
        super().__init__(task, hidden_size, dropout)
        self.linear = nn.Linear(hidden_size, task.outputs)

    def forward(self, vectors):
        return self.linear(self.dropout(torch.stack(vectors.chunk(self.n)).mean(dim=0)))


@wrong("Head", "softmax or a sigmoid")
class ProbabilityHead(HalvesByIndex):
    def forward(self, vectors):
        out = super().forward(vectors)
        return F.softmax(out, dim=-1) if self.task.kind == "classes" else out


@wrong("Head", "keep [B, 1]")
class FlatHead(HalvesByIndex):
    def forward(self, vectors):
        out = super().forward(vectors)
        return out[:, 0] if self.task.outputs == 1 else out


@wrong("Head", None)
class DifferenceHead(_Head):
    def forward(self, vectors):
        if self.n == 2:
            u, v = vectors.chunk(2)
            vectors = torch.cat([u, (u - v).abs()], dim=1)
        return self.linear(self.dropout(vectors))


@wrong("Head", None)
class HalvedHead(HalvesByIndex):
    def forward(self, vectors):
        return super().forward(vectors) / 2


@wrong("Head", "not done yet")
class EmptyHead(nn.Module):
    def __init__(self, task, hidden_size, dropout=0.3):
        super().__init__()
        raise NotImplementedError


@wrong("Head", "linear.weight is missing")
class OtherName(nn.Module):
    def __init__(self, task, hidden_size, dropout=0.3):
        super().__init__()
        self.n = task.sentences
        self.layer = nn.Linear(self.n * hidden_size, task.outputs)

    def forward(self, vectors):
        return self.layer(torch.cat(vectors.chunk(self.n), dim=1))


# MultitaskModel


class _Model(nn.Module):
    """A model whose parts the answers below change."""

    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict()
        for task in tasks:
            self.heads[task.name] = HalvesByIndex(task, hidden_size, dropout)

    def forward(self, batch):
        hidden, pooled = self.encoder(batch.input_ids, batch.attention_mask)
        return self.heads[batch.task.name](pooled)

    def shared_parameters(self):
        return list(self.encoder.parameters())


@right("MultitaskModel")
class PlainModel(_Model):
    def shared_parameters(self):
        return [p for name, p in self.named_parameters() if name.startswith("encoder.")]


@right("MultitaskModel")
class HalfByHalf(_Model):
    def forward(self, batch):
        halves = zip(
            batch.input_ids.chunk(batch.task.sentences),
            batch.attention_mask.chunk(batch.task.sentences),
            strict=True,
        )
        vectors = torch.cat([self.encoder(ids, mask)[1] for ids, mask in halves])
        return self.heads[batch.task.name](vectors)

    def shared_parameters(self):
        return [*self.encoder.parameters()]


@wrong("MultitaskModel", "plain dict")
class DictOfHeads(_Model):
    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        nn.Module.__init__(self)
        self.encoder = encoder
        self.heads = {task.name: HalvesByIndex(task, hidden_size, dropout) for task in tasks}


@wrong("MultitaskModel", "copy of the encoder")
class ThreeEncoders(_Model):
    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        super().__init__(None, hidden_size, tasks, dropout)
        self.encoder = nn.ModuleDict({task.name: copy.deepcopy(encoder) for task in tasks})

    def forward(self, batch):
        _, pooled = self.encoder[batch.task.name](batch.input_ids, batch.attention_mask)
        return self.heads[batch.task.name](pooled)


@wrong("MultitaskModel", "use the one that is handed in")
class AnotherEncoder(_Model):
    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        super().__init__(copy.deepcopy(encoder), hidden_size, tasks, dropout)


@wrong("MultitaskModel", "behind the pooler")
class ClsVector(_Model):
    def forward(self, batch):
        hidden, _ = self.encoder(batch.input_ids, batch.attention_mask)
        return self.heads[batch.task.name](hidden[:, 0, :])


@wrong("MultitaskModel", "which is padding")
class LastVector(_Model):
    def forward(self, batch):
        hidden = self.encoder(batch.input_ids, batch.attention_mask)[0]
        return self.heads[batch.task.name](hidden[:, -1])


@wrong("MultitaskModel", "padding among them")
class MeanVector(_Model):
    def forward(self, batch):
        hidden = self.encoder(batch.input_ids, batch.attention_mask)[0]
        return self.heads[batch.task.name](hidden.sum(1) / hidden.shape[1])


@wrong("MultitaskModel", None)
class MeanOfTheWords(_Model):
    def forward(self, batch):
        hidden = self.encoder(batch.input_ids, batch.attention_mask)[0]
        mask = batch.attention_mask[:, :, None]
        return self.heads[batch.task.name]((hidden * mask).sum(1) / mask.sum(1))


@wrong("MultitaskModel", "mask does not reach")
class Unmasked(_Model):
    def forward(self, batch):
        vectors = self.encoder(batch.input_ids, torch.ones(batch.input_ids.shape).long())[1]
        return self.heads[batch.task.name](vectors)


@wrong("MultitaskModel", "head of the first task")
class OneHead(_Model):
    def forward(self, batch):
        head = list(self.heads.values())[0]  # noqa: RUF015 - as people write it
        return head(self.encoder(batch.input_ids, batch.attention_mask)[1])


@wrong("MultitaskModel", "heads count as shared")
class EverythingShared(_Model):
    def shared_parameters(self):
        return [p for p in self.parameters()]


@wrong("MultitaskModel", "empty after one pass")
class SharedOnce(_Model):
    def shared_parameters(self):
        return (p for p in self.encoder.parameters())


@wrong("MultitaskModel", "does not reach the heads")
class OwnRate(_Model):
    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        super().__init__(encoder, hidden_size, tasks, 0.3)


@wrong("MultitaskModel", "only the heads would learn")
class FrozenEncoder(_Model):
    def forward(self, batch):
        with torch.no_grad():
            _, pooled = self.encoder(batch.input_ids, batch.attention_mask)
        return self.heads[batch.task.name](pooled)


@wrong("MultitaskModel", "switches to evaluation mode")
class EvaluatingModel(_Model):
    def forward(self, batch):
        self.eval()
        return super().forward(batch)


@wrong("MultitaskModel", None)
class OneHeadForAllPairs(_Model):
    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        super().__init__(encoder, hidden_size, tasks, dropout)
        if "paraphrase" in self.heads and "similarity" in self.heads:
            self.heads["similarity"] = self.heads["paraphrase"]


@wrong("MultitaskModel", "AttributeError")
class ForgottenSuper(_Model):
    def __init__(self, encoder, hidden_size, tasks, dropout=0.3):
        self.encoder = encoder


# joint_step


def _given_losses(model, batches):
    return [chapter_05.multitask_loss(model(b), b) for b in batches]


@right("joint_step")
def by_the_book(model, batches, optimizer, backward):
    model.train()
    losses = []
    for batch in batches:
        losses.append(batch.task.loss(model(batch), batch.labels))
    optimizer.zero_grad()
    backward(losses, model)
    optimizer.step()
    return [float(loss) for loss in losses]


@right("joint_step")
def cleared_before_and_after(model, batches, optimizer, backward):
    model.train(True)
    for p in model.parameters():
        p.grad = None
    losses = _given_losses(model, batches)
    backward(losses, model)
    optimizer.step()
    optimizer.zero_grad()
    return torch.stack(losses).tolist()


@right("joint_step")
def returns_plain_tensors(model, batches, optimizer, backward):
    optimizer.zero_grad()
    model.train()
    losses = _given_losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return [loss.detach() for loss in losses]


@wrong("joint_step", "never cleared")
def no_zero_grad(model, batches, optimizer, backward):
    model.train()
    losses = _given_losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return [loss.item() for loss in losses]


@wrong("joint_step", "clears after the step")
def cleared_afterwards(model, batches, optimizer, backward):
    losses = no_zero_grad(model, batches, optimizer, backward)
    model.zero_grad()
    return losses


@wrong("joint_step", "between `backward` and the step")
def cleared_too_late(model, batches, optimizer, backward):
    model.train()
    losses = _given_losses(model, batches)
    backward(losses, model)
    model.zero_grad()
    optimizer.step()
    return [loss.item() for loss in losses]


@wrong("joint_step", "once for each task: one step")
def a_step_for_each(model, batches, optimizer, backward):
    values = []
    for batch in batches:
        values += by_the_book(model, [batch], optimizer, backward)
    return values


@wrong("joint_step", "`backward` is called once for each task")
def backward_for_each(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    values = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        backward([loss], model)
        values.append(loss.item())
    optimizer.step()
    return values


@wrong("joint_step", "Only the last task")
def last_loss_only(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    backward([losses[-1]], model)
    optimizer.step()
    return [loss.item() for loss in losses]


@wrong("joint_step", "does not call `backward`")
def own_sum(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    for loss in losses:
        loss.backward()
    optimizer.step()
    return [loss.item() for loss in losses]


@wrong("joint_step", "divided by the number of tasks")
def mean_of_losses(model, batches, optimizer, backward):
    return by_the_book(
        model,
        batches,
        optimizer,
        lambda losses, m: backward([loss / len(losses) for loss in losses], m),
    )


@wrong("joint_step", "trains in evaluation mode")
def mode_as_it_comes(model, batches, optimizer, backward):
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return [loss.item() for loss in losses]


@wrong("joint_step", "hold their graphs")
def losses_as_they_are(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    backward(losses, model)
    optimizer.step()
    return losses


@wrong("joint_step", "measured after the step")
def measured_again(model, batches, optimizer, backward):
    by_the_book(model, batches, optimizer, backward)
    return [loss.item() for loss in _given_losses(model, batches)]


@wrong("joint_step", "never steps")
def no_step(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    backward(losses, model)
    return [loss.item() for loss in losses]


@wrong("joint_step", "before `backward` has filled")
def step_first(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    optimizer.step()
    backward(losses, model)
    return [loss.item() for loss in losses]


@wrong("joint_step", "second time")
def backward_twice(model, batches, optimizer, backward):
    model.train()
    optimizer.zero_grad()
    losses = _given_losses(model, batches)
    sum(losses).backward()
    backward(losses, model)
    optimizer.step()
    return [loss.item() for loss in losses]


@wrong("joint_step", None)
def two_steps(model, batches, optimizer, backward):
    by_the_book(model, batches, optimizer, backward)
    return by_the_book(model, batches, optimizer, backward)


@wrong("joint_step", None)
def without_the_last_batch(model, batches, optimizer, backward):
    return by_the_book(model, batches[:-1] or batches, optimizer, backward)


# evaluate


@right("evaluate")
def with_sorted_batches(model, splits):
    was, scores = model.training, {}
    model.eval()
    for name, of_task in splits.items():
        dev = of_task["dev"]
        out = torch.empty(len(dev), dev.task.outputs)
        with torch.no_grad():
            for indices, batch in sorted_batches(dev, 8):
                out[indices] = model(batch)
        if dev.task.kind == "score":
            both = torch.stack([out[:, 0], dev.labels]).double()  # float32 would round
            scores[name] = torch.corrcoef(both)[0, 1].item()
        else:
            yes = out.argmax(1) if dev.task.kind == "classes" else (out[:, 0] > 0).long()
            scores[name] = (yes == dev.labels).float().mean().item()
    model.train(was)
    return scores


@right("evaluate")
def in_numpy(model, splits):
    scores = {}
    for name in splits:
        dev = splits[name]["dev"]
        was = model.training
        model.train(False)
        with torch.inference_mode():
            parts = [
                model(dev.batch(range(i, min(i + 10, len(dev))))) for i in range(0, len(dev), 10)
            ]
        model.train(was)
        out, labels = torch.cat(parts).numpy(), dev.labels.numpy()
        match dev.task.kind:
            case "classes":
                scores[name] = np.mean(np.argmax(out, axis=1) == labels)
            case "binary":
                probability = 1 / (1 + np.exp(-out.ravel()))
                scores[name] = np.mean((probability > 0.5) == (labels == 1))
            case "score":
                scores[name] = np.corrcoef(out.ravel(), labels)[0, 1]
    return scores


@right("evaluate")
def r_from_its_formula(model, splits):
    scores = {}
    for name, of_task in splits.items():
        task, dev = of_task["dev"].task, of_task["dev"]
        out = torch.from_numpy(np.array(predict(model, dev, 64))).double()
        if task.kind != "score":
            scores[name] = float((task.predict(out) == dev.labels).double().mean())
            continue
        x, y = out[:, 0] - out[:, 0].mean(), dev.labels - dev.labels.mean()
        scores[name] = ((x * y).sum() / (x.norm() * y.norm())).item()
    return scores


def _scores(model, splits, score=None, part="dev", outputs=predict):
    """The right scores, except where another is given for a kind of task."""
    scores = {}
    for name, of_task in splits.items():
        split = of_task[part]
        task, y = split.task, split.labels.numpy()
        out = torch.from_numpy(np.array(outputs(model, split)))
        own = (score or {}).get(task.kind)
        if own:
            scores[name] = float(own(out, y))
        elif task.kind == "score":
            scores[name] = float(np.corrcoef(out[:, 0], y)[0, 1])
        else:
            scores[name] = float(np.mean(task.predict(out).numpy() == y))
    return scores


@wrong("evaluate", "classes have names")
def correlated_classes(model, splits):
    return _scores(model, splits, {"classes": lambda z, y: np.corrcoef(z.argmax(1), y)[0, 1]})


@wrong("evaluate", "for every task")
def r_for_all(model, splits):
    def r(z, y):
        return np.corrcoef(z.argmax(1), y)[0, 1]

    def binary(z, y):
        return np.corrcoef(z[:, 0] > 0, y)[0, 1]

    return _scores(model, splits, {"classes": r, "binary": binary})


@wrong("evaluate", "hardly ever hit")
def accuracy_for_all(model, splits):
    return _scores(
        model, splits, {"score": lambda z, y: np.mean(np.rint(z[:, 0].numpy()) == np.rint(y))}
    )


@wrong("evaluate", "less is better")
def squared_error(model, splits):
    return _scores(model, splits, {"score": lambda z, y: np.square(z[:, 0].numpy() - y).mean()})


@wrong("evaluate", "r squared")
def r_squared(model, splits):
    return _scores(model, splits, {"score": lambda z, y: np.corrcoef(z[:, 0], y)[0, 1] ** 2})


@wrong("evaluate", None)
def negative_r(model, splits):
    return _scores(model, splits, {"score": lambda z, y: -np.corrcoef(z[:, 0], y)[0, 1]})


@wrong("evaluate", None)
def kendall(model, splits):
    return _scores(model, splits, {"score": lambda z, y: stats.kendalltau(z[:, 0], y)[0]})


@wrong("evaluate", "rounded before the correlation")
def rounded_labels(model, splits):
    return _scores(model, splits, {"score": lambda z, y: np.corrcoef(z[:, 0], np.rint(y))[0, 1]})


@wrong("evaluate", "say NaN")
def zero_for_a_constant(model, splits):
    def r(z, y):
        return 0.0 if z.std() == 0 else np.corrcoef(z[:, 0], y)[0, 1]

    return _scores(model, splits, {"score": r})


@wrong("evaluate", "one half is 0")
def one_half(model, splits):
    return _scores(model, splits, {"binary": lambda z, y: np.mean((z[:, 0] >= 0.5).numpy() == y)})


@wrong("evaluate", "argmax over one output")
def argmax_of_one(model, splits):
    return _scores(model, splits, {"binary": lambda z, y: np.mean(z.argmax(-1).numpy() == y)})


@wrong("evaluate", "in the order of length")
def by_length(model, splits):
    def outputs(model, split):
        was = model.training
        model.eval()
        with torch.no_grad():
            out = np.vstack([model(batch).numpy() for _, batch in sorted_batches(split, 16)])
        model.train(was)
        return out

    return _scores(model, splits, outputs=outputs)


@wrong("evaluate", "predicts in train mode")
def in_train_mode(model, splits):
    def outputs(model, split):
        was = model.training
        model.train()
        with torch.no_grad():
            out = model(split.batch(range(len(split)))).numpy()
        model.train(was)
        return out

    return _scores(model, splits, outputs=outputs)


@wrong("evaluate", "in which the model comes")
def in_any_mode(model, splits):
    def outputs(model, split):
        with torch.no_grad():
            return model(split.batch(range(len(split)))).numpy()

    return _scores(model, splits, outputs=outputs)


@wrong("evaluate", "Gradients are recorded")
def with_gradients(model, splits):
    def outputs(model, split):
        was = model.training
        out = model.eval()(split.batch(range(len(split)))).detach().numpy()
        model.train(was)
        return out

    return _scores(model, splits, outputs=outputs)


@wrong("evaluate", "stays in evaluation mode")
def left_in_eval(model, splits):
    model.eval()
    return _scores(model, splits)


@wrong("evaluate", "scores the training set")
def of_the_training_set(model, splits):
    return _scores(model, splits, part="train")


@wrong("evaluate", "percentages")
def percent(model, splits):
    return {
        name: value if splits[name]["dev"].task.kind == "score" else 100 * value
        for name, value in _scores(model, splits).items()
    }


@wrong("evaluate", None)
def mean_of_batches(model, splits):
    scores = _scores(model, splits)
    for name, of_task in splits.items():
        dev = of_task["dev"]
        if dev.task.kind == "classes":
            out, y = predict(model, dev), dev.labels.numpy()
            right = out.argmax(1) == y
            scores[name] = np.mean([right[i : i + 8].mean() for i in range(0, len(y), 8)])
    return scores


def averaged_over_batches(batches):
    def mean_score(model, splits):
        scores = {}
        was = model.training
        model.eval()
        for name, of_task in splits.items():
            dev, found = of_task["dev"], []
            for batch in batches(dev):
                with torch.no_grad():
                    out, y = model(batch), batch.labels
                if dev.task.kind == "classes":
                    found.append((out.argmax(1) == y).double().mean().item())
                elif dev.task.kind == "binary":
                    found.append(((out[:, 0] > 0) == y).double().mean().item())
                else:
                    same = np.ptp(out.numpy()) == 0
                    found.append(np.nan if same else np.corrcoef(out[:, 0], y)[0, 1])
            scores[name] = sum(found) / len(found)
        model.train(was)
        return scores

    return mean_score


for size in (8, 32, 64, 256):
    wrong("evaluate", "scores of single batches are averaged")(
        averaged_over_batches(lambda dev, n=size: (b for _, b in sorted_batches(dev, n)))
    )
    wrong("evaluate", "scores of single batches are averaged")(
        averaged_over_batches(lambda dev, n=size: map(dev.batch, torch.arange(len(dev)).split(n)))
    )
wrong("evaluate", None)(averaged_over_batches(lambda dev: (b for _, b in sorted_batches(dev, 100))))


@wrong("evaluate", "expected a dict")
def mean_of_the_tasks(model, splits):
    return float(np.mean(list(_scores(model, splits).values())))


# train_tasks

sum_of_losses = chapter_05.sum_of_losses


@right("train_tasks")
def streams_by_name(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    streams = {
        name: BatchStream(splits[name]["train"], batch_size, 1000 * seed + n)
        for n, name in enumerate(splits)
    }
    history = []
    for _ in range(steps):
        batches = [next(streams[name]) for name in splits]
        history.append(by_the_book(model, batches, optimizer, backward))
    return history


@right("train_tasks")
def zipped_streams(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    numbers = itertools.count(1000 * seed)
    streams = [BatchStream(s["train"], batch_size, next(numbers)) for s in splits.values()]
    batches = itertools.islice(zip(*streams, strict=True), steps)
    return [by_the_book(model, list(of_step), optimizer, backward) for of_step in batches]


def _loop(splits, steps, batch_size, seeds, part="train"):
    streams = [
        BatchStream(of_task[part], batch_size, seed)
        for of_task, seed in zip(splits.values(), seeds, strict=True)
    ]
    for _ in range(steps):
        yield [next(stream) for stream in streams]


@wrong("train_tasks", "made anew in every step")
def streams_in_the_loop(
    model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses
):
    history = []
    for _ in range(steps):
        batches = [
            next(BatchStream(of_task["train"], batch_size, 1000 * seed + n))
            for n, of_task in enumerate(splits.values())
        ]
        history.append(by_the_book(model, batches, optimizer, backward))
    return history


@wrong("train_tasks", "All streams have the same seed")
def one_seed(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    batches = _loop(splits, steps, batch_size, [seed] * len(splits))
    return [by_the_book(model, b, optimizer, backward) for b in batches]


@wrong("train_tasks", "`seed` is not used")
def no_seed(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    batches = _loop(splits, steps, batch_size, range(len(splits)))
    return [by_the_book(model, b, optimizer, backward) for b in batches]


@wrong("train_tasks", None)
def counted_from_one(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    batches = _loop(
        splits, steps, batch_size, range(1000 * seed + 1, 1000 * seed + len(splits) + 1)
    )
    return [by_the_book(model, b, optimizer, backward) for b in batches]


@wrong("train_tasks", "on the development set")
def on_dev(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    seeds = range(1000 * seed, 1000 * seed + len(splits))
    batches = _loop(splits, steps, batch_size, seeds, "dev")
    return [by_the_book(model, b, optimizer, backward) for b in batches]


@wrong("train_tasks", "always hold 8")
def eight(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    return streams_by_name(model, splits, optimizer, steps, 8, seed, backward)


@wrong("train_tasks", "always sums")
def own_backward(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    return streams_by_name(model, splits, optimizer, steps, batch_size, seed)


@wrong("train_tasks", "take turns")
def in_turns(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    seeds = range(1000 * seed, 1000 * seed + len(splits))
    return [
        by_the_book(model, [b[n % len(b)]], optimizer, backward)
        for n, b in enumerate(_loop(splits, steps, batch_size, seeds))
    ]


@wrong("train_tasks", "seen once")
def one_pass(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    steps = min([steps] + [len(s["train"]) // batch_size for s in splits.values()])
    return streams_by_name(model, splits, optimizer, steps, batch_size, seed, backward)


@wrong("train_tasks", "summed: keep them apart")
def totals(*arguments, **options):
    return [sum(losses) for losses in streams_by_name(*arguments, **options)]


@wrong("train_tasks", None)
def last_step_only(*arguments, **options):
    return streams_by_name(*arguments, **options)[-1:]


@wrong("train_tasks", None)
def step_per_task(model, splits, optimizer, steps, batch_size=8, seed=0, backward=sum_of_losses):
    seeds = range(1000 * seed, 1000 * seed + len(splits))
    return [
        a_step_for_each(model, b, optimizer, backward)
        for b in _loop(splits, steps, batch_size, seeds)
    ]


# pair_batch


def _padded(rows):
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


@right("pair_batch")
def by_lists(first, second, labels):
    rows = first + second
    width = max(map(len, rows))
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return _padded(rows), torch.tensor(mask), torch.tensor(labels, dtype=torch.float32)


@right("pair_batch")
def bool_mask(first, second, labels):
    ids = _padded(first + second)
    lengths = torch.tensor([len(row) for row in first + second])
    return ids, torch.arange(ids.shape[1])[None] < lengths[:, None], torch.tensor(labels)


@wrong("pair_batch", "All three bugs")
def as_it_was(first, second, labels):
    ids = _padded([row for pair in zip(first, second, strict=True) for row in pair])
    lengths = torch.tensor([len(row) for row in first + first])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).int()
    return ids, mask, torch.tensor(labels).int()


@wrong("pair_batch", "One bug is left: the labels")
def whole_labels(first, second, labels):
    return *by_lists(first, second, labels)[:2], torch.tensor(labels).long()


@wrong("pair_batch", "One bug is left: each second sentence")
def interleaved(first, second, labels):
    rows = [row for pair in zip(first, second, strict=True) for row in pair]
    ids = _padded(rows)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long(), torch.tensor(labels)


@wrong("pair_batch", "takes every 0 for padding")
def mask_from_ids(first, second, labels):
    ids = _padded(first + second)
    return ids, (ids > 0).long(), torch.tensor(labels)


@wrong("pair_batch", None)
def mask_the_wrong_way(first, second, labels):
    ids, mask, values = by_lists(first, second, labels)
    return ids, 1 - mask, values


@wrong("pair_batch", None)
def second_before_first(first, second, labels):
    return by_lists(second, first, labels)
