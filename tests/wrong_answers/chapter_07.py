"""Answers to the exercises of chapter 07, as people write them."""

import math

import numpy as np
import torch

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


@right("lp_penalty")
def literal(weights, p):
    w = torch.cat([weight.flatten() for weight in weights]).abs()
    return w.max() if p == math.inf else (w**p).sum() ** (1 / p)


@right("lp_penalty")
def matrix_by_matrix(weights, p):
    if p == float("inf"):
        return torch.stack([weight.abs().max() for weight in weights]).max()
    if p == 1:
        return sum(weight.abs().sum() for weight in weights)
    return torch.sqrt(sum(weight.pow(2).sum() for weight in weights))


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
    return total if p == 1 else total**0.5


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
