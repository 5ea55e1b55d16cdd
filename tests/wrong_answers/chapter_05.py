"""Answers to the exercises of chapter 05."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from wrong_answers.bank import Bank

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
