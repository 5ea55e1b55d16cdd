"""Answers to the exercises of chapter 07, as people write them."""

import math

import numpy as np
import torch
from torch import nn

from mtl_lib.methods.regularizers import lp_penalty

WRONG, RIGHT = [], []


def wrong(exercise, text):
    return lambda answer: WRONG.append((exercise, answer, text)) or answer


def right(exercise):
    return lambda answer: RIGHT.append((exercise, answer)) or answer


# lp_penalty


@wrong("lp_penalty", "may belong to a negative one")
def maximum_without_size(weights, p):
    w = torch.cat([weight.reshape(-1) for weight in weights])
    if p == math.inf:
        return w.max()
    return w.abs().sum() if p == 1 else w.pow(2).sum().sqrt()


@wrong("lp_penalty", "squared norm")
def squared_l2(weights, p):
    w = torch.cat([weight.reshape(-1) for weight in weights])
    if p == 2:
        return torch.sum(w * w)
    return torch.linalg.vector_norm(w, p)


@wrong("lp_penalty", "squared norm")
def half_squared_l2(weights, p):
    if p == 2:
        return sum(0.5 * weight.square().sum() for weight in weights)
    return torch.linalg.vector_norm(torch.cat([weight.flatten() for weight in weights]), p)


@wrong("lp_penalty", "single matrices")
def sum_of_norms(weights, p):
    return sum(torch.linalg.vector_norm(weight, ord=p) for weight in weights)


@wrong("lp_penalty", "operator norm")
def norms_of_matrices(weights, p):
    total = 0
    for weight in weights:
        total = total + torch.linalg.norm(weight, p)
    return total


@wrong("lp_penalty", "with their signs")
def sum_without_sizes(weights, p):
    w = torch.cat([weight.flatten() for weight in weights])
    if p == 1:
        return w.sum()
    return w.norm() if p == 2 else w.abs().max()


@wrong("lp_penalty", "first matrix only")
def first_matrix(weights, p):
    return weights[0].flatten().norm(p)


@wrong("lp_penalty", None)
def last_matrix(weights, p):
    for weight in weights:
        penalty = weight.flatten().norm(p)
    return penalty


@wrong("lp_penalty", "same for every p")
def frobenius(weights, p):
    return sum((weight**2).sum() for weight in weights) ** 0.5


@wrong("lp_penalty", "detached")
def as_a_float(weights, p):
    return torch.cat([weight.flatten() for weight in weights]).norm(p).item()


@wrong("lp_penalty", "detached")
def in_numpy(weights, p):
    w = np.concatenate([weight.numpy().ravel() for weight in weights])
    return np.linalg.norm(w, p)


@wrong("lp_penalty", "detached")
def of_the_data(weights, p):
    return torch.cat([weight.data.flatten() for weight in weights]).norm(p)


@wrong("lp_penalty", "the mean size")
def mean_size(weights, p):
    w = torch.cat([weight.flatten() for weight in weights])
    return w.abs().mean() if p == 1 else w.norm(p)


@wrong("lp_penalty", "0.05")
def with_the_factor(weights, p):
    return 0.05 * torch.cat([weight.flatten() for weight in weights]).norm(p)


@wrong("lp_penalty", None)
def infinity_by_a_high_power(weights, p):
    w = torch.cat([weight.flatten() for weight in weights]).abs()
    q = 8.0 if p == math.inf else p
    return (w**q).sum() ** (1 / q)


@wrong("lp_penalty", None)
def largest_is_smallest(weights, p):
    w = torch.cat([weight.flatten() for weight in weights]).abs()
    return w.min() if p == math.inf else w.norm(p)


@wrong("lp_penalty", None)
def no_root_at_all(weights, p):
    w = torch.cat([weight.flatten() for weight in weights])
    return torch.dot(w, w) if p == 2 else w.abs().sum() if p == 1 else w.abs().max() ** 2


@wrong("lp_penalty", "NaN where all weights are 0")
def literal(weights, p):
    w = torch.cat([weight.flatten() for weight in weights]).abs()
    return w.max() if p == math.inf else (w**p).sum() ** (1 / p)


@wrong("lp_penalty", "NaN where all weights are 0")
def root_of_all_matrices(weights, p):
    if p == float("inf"):
        return torch.stack([weight.abs().max() for weight in weights]).max()
    if p == 1:
        return sum(weight.abs().sum() for weight in weights)
    return torch.sqrt(sum(weight.pow(2).sum() for weight in weights))


@wrong("lp_penalty", "takes means")
def means(weights, p):
    w = torch.cat([weight.flatten() for weight in weights])
    return w.abs().max() if p == math.inf else (w.abs() ** p).mean() ** (1 / p)


@right("lp_penalty")
def matrix_by_matrix(weights, p):
    if p == float("inf"):
        return torch.stack([weight.abs().max() for weight in weights]).max()
    if p == 1:
        return sum(weight.abs().sum() for weight in weights)
    return torch.stack([weight.norm() for weight in weights]).norm()


@right("lp_penalty")
def norm_of_norms(weights, p):
    return torch.norm(torch.stack([torch.norm(weight.reshape(-1), p) for weight in weights]), p)


@right("lp_penalty")
def one_by_one(weights, p):
    sizes = [entry.abs() for weight in weights for row in weight for entry in row]
    if p == math.inf:
        largest = sizes[0]
        for size in sizes:
            largest = torch.maximum(largest, size)
        return largest
    total = sum(size**p for size in sizes)
    return total if p == 1 or total == 0 else total**0.5


@wrong("lp_penalty", "any number to the power 0")
def one_formula_for_all(weights, p):
    entries = torch.cat([matrix.flatten() for matrix in weights]).abs()
    return (entries**p).sum() ** (1 / p)


# sorted_weights_over_time


@wrong("sorted_weights_over_time", "every weight's history")
def columns(run):
    return torch.sort(run.abs(), dim=0, descending=True)[0]


@wrong("sorted_weights_over_time", "every weight's history")
def numpy_default_axis_wrong(run):
    return -np.sort(-np.abs(run.numpy()), axis=0)


@wrong("sorted_weights_over_time", "Signs are kept")
def signed(run):
    return torch.sort(run, descending=True).values


@wrong("sorted_weights_over_time", "smallest come first")
def ascending(run):
    return np.sort(np.abs(run.numpy()))


@wrong("sorted_weights_over_time", "the first step's order")
def order_of_the_start(run):
    order = torch.argsort(run[0].abs(), descending=True)
    return run[:, order].abs()


@wrong("sorted_weights_over_time", "still have their signs")
def sorted_by_size(run):
    return torch.stack([row[row.abs().argsort(descending=True)] for row in run])


@wrong("sorted_weights_over_time", "sizes are not in order")
def abs_too_late(run):
    return abs(run.sort(descending=True)[0])


@wrong("sorted_weights_over_time", "all steps together")
def everything(run):
    return run.abs().reshape(-1).sort(descending=True)[0].reshape(run.shape)


@wrong("sorted_weights_over_time", None)
def steps_across(run):
    return run.abs().T.sort(dim=0, descending=True).values


@wrong("sorted_weights_over_time", None)
def squares(run):
    return (run**2).sort(dim=1, descending=True).values


@wrong("sorted_weights_over_time", None)
def places(run):
    return run.abs().argsort(dim=1, descending=True)


@wrong("sorted_weights_over_time", None)
def without_the_zeros(run):
    return [sorted((abs(w) for w in row if w), reverse=True) for row in run.tolist()]


@wrong("sorted_weights_over_time", "changes its input")
def abs_in_place(run):
    return run.abs_().sort(dim=1, descending=True).values


@wrong("sorted_weights_over_time", "got shape (2, 3, 3)")
def the_pair_that_sort_returns(run):
    return run.abs().sort(dim=1, descending=True)


@right("sorted_weights_over_time")
def numpy_sort(run):
    return np.sort(np.abs(np.asarray(run)), axis=1)[:, ::-1]


@right("sorted_weights_over_time")
def lists(run):
    return [sorted(map(abs, row), reverse=True) for row in run.tolist()]


@right("sorted_weights_over_time")
def flipped(run):
    return torch.stack([torch.flip(row.abs().sort().values, dims=[0]) for row in run])


@right("sorted_weights_over_time")
def topk(run):
    return run.abs().topk(run.shape[1], dim=1).values


# dropout


@wrong("dropout", "too small")
def not_rescaled(x, kept, p, training):
    if not training:
        return x
    return x * kept


@wrong("dropout", "divides by p")
def by_the_share_that_goes(x, kept, p, training):
    return x * kept / p if training else x


@wrong("dropout", "original dropout")
def shrinks_in_eval(x, kept, p, training):
    if training:
        return x * kept
    return x * (1 - p)


@wrong("dropout", "predictions would be random")
def mode_ignored(x, kept, p, training):
    return torch.where(kept.bool(), x / (1 - p), torch.zeros_like(x))


@wrong("dropout", "in eval mode and not in training")
def modes_exchanged(x, kept, p, training):
    if training:
        return x
    return kept * x / (1 - p)


@wrong("dropout", "divides by p")
def divided_by_p(x, kept, p, training):
    if not training or p == 0:
        return x
    return x * kept / p


@wrong("dropout", "drops what `kept` says to keep")
def mask_inverted(x, kept, p, training):
    return x.masked_fill(kept.bool(), 0) / (1 - p) if training else x


@wrong("dropout", "makes what stays smaller")
def scaled_down(x, kept, p, training):
    return kept * x * (1 - p) if training else x


@wrong("dropout", None)
def own_mask(x, kept, p, training):
    return torch.nn.functional.dropout(x, p, training)


@wrong("dropout", None)
def scaled_by_what_is_kept(x, kept, p, training):
    return x * kept / kept.mean() if training else x


@wrong("dropout", None)
def rescaled_in_eval_too(x, kept, p, training):
    return x * kept / (1 - p) if training else x / (1 - p)


@wrong("dropout", "detached")
def without_graph(x, kept, p, training):
    with torch.no_grad():
        return x * kept / (1 - p) if training else x * 1


@wrong("dropout", "in place")
def zeroed_in_place(x, kept, p, training):
    if training:
        x *= kept
        x /= 1 - p
    return x


@wrong("dropout", None)
def noise_in_place_of_zeros(x, kept, p, training):
    return torch.where(kept > 0, x / (1 - p), x) if training else x


@right("dropout")
def with_where(x, kept, p, training):
    return torch.where(kept == 1, x / (1 - p), 0.0) if training else x


@right("dropout")
def with_a_scale(x, kept, p, training):
    scale = kept * (1 / (1 - p)) if training else torch.ones_like(x)
    return scale * x


@right("dropout")
def filled(x, kept, p, training):
    if not training:
        return x
    out = x.clone()
    out[kept == 0] = 0
    return out / (1.0 - p)


# InvertedDropout


@wrong("InvertedDropout", "All three faults")
class TheColleaguesLayer(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p
        self.mask = None

    def forward(self, x):
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = (torch.rand_like(x) < self.p).to(x)
        return x * self.mask / (1 - self.p)


@wrong("InvertedDropout", "The mode is in `self.training`")
class OnInBothModes(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)


@wrong("InvertedDropout", "drawn once and kept")
class MaskOfTheFirstCall(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p, self.masks = p, {}

    def forward(self, x):
        if not self.training:
            return x
        mask = self.masks.setdefault(x.shape, torch.rand(x.shape) >= self.p)
        return x * mask / (1 - self.p)


@wrong("InvertedDropout", "p is the share that goes")
class KeepsAShareP(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) < self.p) / (1 - self.p)


@wrong("InvertedDropout", "every prediction would be random")
class AlwaysAtWork(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return torch.nn.functional.dropout(x, self.p)


@wrong("InvertedDropout", "not made larger")
class Unscaled(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x.masked_fill(torch.rand_like(x) < self.p, 0.0) if self.training else x


@wrong("InvertedDropout", "drops whole rows")
class RowByRow(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand(len(x), 1) > self.p) / (1 - self.p)


@wrong("InvertedDropout", None)
class RescaledByWhatStayed(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        kept = (torch.rand_like(x) >= self.p).double()
        return x * kept / kept.mean()


@wrong("InvertedDropout", "detached")
class CutFromTheGraph(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    @torch.no_grad()
    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty_like(x).bernoulli_(1 - self.p) / (1 - self.p)


@right("InvertedDropout")
class AroundTorchs(nn.Dropout):
    pass


@right("InvertedDropout")
class WithWhere(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.rate = p

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        return torch.where(torch.rand(x.shape) < self.rate, 0.0, x / (1 - self.rate))


@right("InvertedDropout")
class FromADistribution(nn.Module):
    def __init__(self, p: float):
        super().__init__()
        self.stay = 1 - p

    def forward(self, x):
        if self.training:
            draws = torch.distributions.Bernoulli(self.stay).sample(x.shape)
            x = x * draws / self.stay
        return x


# penalised


def _matrices_of(model, task):
    return [w for name, w in model.heads[task].named_parameters() if name.endswith("weight")]


@wrong("penalised", "biases are penalised")
def biases_too(backward, task, p, strength):
    def with_penalty(losses, model):
        names = list(model.heads)
        extra = strength * lp_penalty(model.heads[task].parameters(), p)
        new = [loss + extra * (name == task) for name, loss in zip(names, losses, strict=True)]
        backward(new, model)

    return with_penalty


@wrong("penalised", "counts three times")
def in_every_loss(backward, task, p, strength):
    def with_penalty(losses, model):
        extra = strength * lp_penalty(_matrices_of(model, task), p)
        backward([loss + extra for loss in losses], model)

    return with_penalty


@wrong("penalised", "writes into the caller's loss")
def added_in_place(backward, task, p, strength):
    def with_penalty(losses, model):
        i = list(model.heads.keys()).index(task)
        losses[i] += strength * lp_penalty(_matrices_of(model, task), p)
        backward(losses, model)

    return with_penalty


@wrong("penalised", "the caller's list")
def in_the_given_list(backward, task, p, strength):
    def with_penalty(losses, model):
        for i, name in enumerate(model.heads):
            if name == task:
                losses[i] = losses[i] + strength * lp_penalty(_matrices_of(model, task), p)
        return backward(losses, model)

    return with_penalty


@wrong("penalised", "behind the given one")
def its_own_backward(backward, task, p, strength):
    def with_penalty(losses, model):
        backward(losses, model)
        penalty = strength * lp_penalty(_matrices_of(model, task), p)
        penalty.backward()

    return with_penalty


@wrong("penalised", "sums the losses itself")
def sums_itself(backward, task, p, strength):
    def with_penalty(losses, model):
        penalty = strength * lp_penalty(_matrices_of(model, task), p)
        (sum(losses) + penalty).backward()

    return with_penalty


@wrong("penalised", "always changes the last loss")
def the_last_one(backward, task, p, strength):
    def with_penalty(losses, model):
        *others, last = losses
        backward([*others, last + strength * lp_penalty(_matrices_of(model, task), p)], model)

    return with_penalty


@wrong("penalised", "heads of all tasks")
def every_head(backward, task, p, strength):
    def with_penalty(losses, model):
        weights = [w for w in model.heads.parameters() if w.dim() > 1]
        i = list(model.heads).index(task)
        new = list(losses)
        new[i] = new[i] + strength * lp_penalty(weights, p)
        backward(new, model)

    return with_penalty


@wrong("penalised", "plain number")
def without_a_gradient(backward, task, p, strength):
    def with_penalty(losses, model):
        i = list(model.heads).index(task)
        new = list(losses)
        new[i] = new[i] + strength * float(lp_penalty(_matrices_of(model, task), p))
        backward(new, model)

    return with_penalty


@wrong("penalised", "is a return missing?")
def no_return(backward, task, p, strength):
    def with_penalty(losses, model):
        i = list(model.heads).index(task)
        new = list(losses)
        new[i] = new[i] + strength * lp_penalty(_matrices_of(model, task), p)
        backward(new, model)


@wrong("penalised", None)
def twice_as_strong(backward, task, p, strength):
    def with_penalty(losses, model):
        i = list(model.heads).index(task)
        new = list(losses)
        new[i] = new[i] + 2 * strength * lp_penalty(_matrices_of(model, task), p)
        backward(new, model)

    return with_penalty


@right("penalised")
def by_name(backward, task, p, strength):
    def with_penalty(losses, model):
        by_task = dict(zip(model.heads, losses, strict=True))
        by_task[task] = by_task[task] + strength * lp_penalty(_matrices_of(model, task), p)
        backward(list(by_task.values()), model)

    return with_penalty


@right("penalised")
class AsAClass:
    def __init__(self, backward, task, p, strength):
        self.backward, self.task, self.p, self.strength = backward, task, p, strength

    def __call__(self, losses, model):
        vector = torch.cat(
            [w.reshape(-1) for w in model.heads[self.task].parameters() if w.ndim > 1]
        )
        penalty = torch.linalg.vector_norm(vector, self.p) * self.strength
        new = [
            loss + penalty if name == self.task else loss
            for name, loss in zip(model.heads.keys(), losses, strict=True)
        ]
        return self.backward(new, model)


@right("penalised")
def with_a_lambda(backward, task, p, strength):
    return lambda losses, model: backward(
        [
            loss + (strength * lp_penalty(_matrices_of(model, task), p) if name == task else 0)
            for name, loss in zip(model.heads, losses, strict=True)
        ],
        model,
    )


# of the bug hunt, one fault found of three; and two more


@wrong("InvertedDropout", "the mask is drawn once and kept, and p is the share that stays")
class OnlyTheModeMended(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p, self.mask = p, None

    def forward(self, x):
        if not self.training:
            return x
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = (torch.rand_like(x) < self.p).float()
        return x * self.mask / (1 - self.p)


@wrong("InvertedDropout", "the mask is drawn once and kept, and eval mode drops as well")
class OnlyTheShareMended(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p, self.mask = p, None

    def forward(self, x):
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = (torch.rand_like(x) >= self.p).float()
        return x * self.mask / (1 - self.p)


@wrong("InvertedDropout", "p is the share that stays, and eval mode drops as well")
class OnlyTheMaskMended(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return x * (torch.rand_like(x) < self.p).float() / (1 - self.p)


@wrong("InvertedDropout", "writes into its input")
class WritesIntoItsInput(nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if self.training:
            x *= (torch.rand_like(x) >= self.p).float()
            x /= 1 - self.p
        return x


@wrong("penalised", "is never called")
def returns_the_losses(backward, task, p, strength):
    def with_penalty(losses, model):
        matrices = [w for w in model.heads[task].parameters() if w.dim() == 2]
        changed = list(losses)
        place = list(model.heads).index(task)
        changed[place] = losses[place] + strength * lp_penalty(matrices, p)
        return changed

    return with_penalty
