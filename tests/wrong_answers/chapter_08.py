"""Answers to the exercises of chapter 08, as people write them."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mtl_lib.handbook.checks.chapter_08 import smart_penalty

WRONG, RIGHT = [], []


def wrong(exercise, text):
    return lambda answer: WRONG.append((exercise, answer, text)) or answer


def right(exercise):
    return lambda answer: RIGHT.append((exercise, answer)) or answer


# clip_to_ball


@wrong("clip_to_ball", "Euclidean norm")
def rescaled_to_the_sphere(delta, radius):
    norm = torch.linalg.vector_norm(delta)
    if norm > radius:
        delta = delta / norm * radius
    return delta


@wrong("clip_to_ball", "whole change smaller")
def rescaled_by_the_largest(delta, radius):
    largest = delta.abs().max()
    return delta * (radius / largest) if largest > radius else delta


@wrong("clip_to_ball", "whole change smaller")
def rescaled_per_sentence(delta, radius):
    largest = delta.abs().amax(dim=tuple(range(1, delta.dim())), keepdim=True)
    return delta * torch.clamp(radius / largest.clamp(min=1e-30), max=1)


@wrong("clip_to_ball", "two sides")
def from_above_only(delta, radius):
    return torch.minimum(delta, torch.tensor(radius, dtype=delta.dtype))


@wrong("clip_to_ball", "two sides")
def cut_at_zero(delta, radius):
    return torch.clamp(delta, min=0.0, max=radius)


@wrong("clip_to_ball", "on the wall")
def corners(delta, radius):
    return torch.sign(delta) * radius


@wrong("clip_to_ball", "set to zero")
def dropped(delta, radius):
    return delta * (delta.abs() <= radius)


@wrong("clip_to_ball", "Nothing is clipped")
def nothing(delta, radius):
    return delta


@wrong("clip_to_ball", "in place")
def clamped_in_place(delta, radius):
    return delta.clamp_(-radius, radius)


@wrong("clip_to_ball", None)
def sizes(delta, radius):
    return delta.abs().clamp(max=radius)


@wrong("clip_to_ball", None)
def radius_of_one(delta, radius):
    return delta.clamp(-1, 1) * radius


@wrong("clip_to_ball", "Euclidean norm")
def rescaled_token_by_token(delta, radius):
    norm = delta.norm(dim=-1, keepdim=True)
    return torch.where(norm > radius, delta / norm * radius, delta)


@wrong("clip_to_ball", "two sides")
def from_below_only(delta, radius):
    return delta.clamp(min=-radius)


@wrong("clip_to_ball", "positive wall")
def sign_forgotten(delta, radius):
    return torch.where(delta.abs() > radius, torch.full_like(delta, radius), delta)


@wrong("clip_to_ball", "in place")
def by_index_in_place(delta, radius):
    delta[delta > radius] = radius
    delta[delta < -radius] = -radius
    return delta


@wrong("clip_to_ball", "is a return missing?")
def nothing_returned(delta, radius):
    delta.clamp_(-radius, radius)


@wrong("clip_to_ball", None)
def soft_threshold(delta, radius):
    return F.softshrink(delta, radius)


@wrong("clip_to_ball", None)
def remainder(delta, radius):
    return torch.fmod(delta, radius)


@right("clip_to_ball")
def min_and_max(delta, radius):
    return torch.maximum(
        torch.minimum(delta, torch.full_like(delta, radius)), torch.full_like(delta, -radius)
    )


@right("clip_to_ball")
def numpy_clip(delta, radius):
    return np.clip(delta.numpy(), -radius, radius)


@right("clip_to_ball")
def sign_times_size(delta, radius):
    return delta.sign() * delta.abs().clip(max=radius)


@right("clip_to_ball")
def by_absolute_values(delta, radius):
    return ((delta + radius).abs() - (delta - radius).abs()) / 2


@right("clip_to_ball")
def what_is_left_of_the_threshold(delta, radius):
    return delta - F.softshrink(delta, radius)


@right("clip_to_ball")
def middle_of_three(delta, radius):
    wall = torch.full_like(delta, radius)
    return torch.stack([delta, wall, -wall]).median(dim=0).values


# symmetric_kl


@wrong("symmetric_kl", "KL(P||Q) alone")
def one_direction(a, b):
    p = F.softmax(a, dim=-1)
    return (p * (p.log() - F.log_softmax(b, dim=-1))).sum(-1).mean()


@wrong("symmetric_kl", "KL(Q||P) alone")
def kl_div_alone(a, b):
    return F.kl_div(F.log_softmax(a, 1), F.softmax(b, 1), reduction="batchmean")


def kl_div_both(a, b, reduction, cut=lambda x: x):
    return F.kl_div(
        a.log_softmax(1), cut(b.log_softmax(1)), reduction=reduction, log_target=True
    ) + F.kl_div(b.log_softmax(1), cut(a.log_softmax(1)), reduction=reduction, log_target=True)


@wrong("symmetric_kl", "over classes too")
def reduction_mean(a, b):
    return kl_div_both(a, b, "mean")


@wrong("symmetric_kl", "adds up the batch")
def reduction_sum(a, b):
    return kl_div_both(a, b, "sum")


@wrong("symmetric_kl", "its target as fixed")
def targets_detached(a, b):
    return kl_div_both(a, b, "batchmean", cut=torch.Tensor.detach)


@wrong("symmetric_kl", "its target as fixed")
def like_the_popular_port(a, b):
    total = 0
    for logits, target in ((a, b), (b, a)):
        log_q = F.log_softmax(logits, dim=-1)
        p = F.softmax(target.detach(), dim=-1)
        total = total + F.kl_div(log_q, p, reduction="batchmean")
    return total


@wrong("symmetric_kl", "adds up the batch, and each divergence treats its target as fixed")
def as_in_the_port(a, b):
    pairs = ((a, b), (b, a))
    return sum(
        F.kl_div(one.log_softmax(dim=-1), other.detach().softmax(dim=-1), reduction="sum")
        for one, other in pairs
    )


@wrong("symmetric_kl", "no gradient flows into b")
def one_side_detached(a, b):
    b = b.detach()
    return kl_div_both(a, b, "batchmean")


@wrong("symmetric_kl", "detached")
def both_sides_detached(a, b):
    with torch.no_grad():
        return kl_div_both(a, b, "batchmean")


@wrong("symmetric_kl", "not the sum")
def halved(a, b):
    return 0.5 * kl_div_both(a, b, "batchmean")


@wrong("symmetric_kl", "log-odds")
def stable_kl_with_log_odds(a, b):
    p, q = torch.softmax(a, dim=1), torch.softmax(b, dim=1)
    odds_p = -(1.0 / p - 1).detach().log()
    odds_q = -(1.0 / q - 1).detach().log()
    return 2 * (p * (odds_p - odds_q)).sum() / len(a)


@wrong("symmetric_kl", "Jensen-Shannon")
def jensen_shannon(a, b):
    p, q = a.softmax(1), b.softmax(1)
    m = 0.5 * (p + q)
    return 0.5 * ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)).mean()


@wrong("symmetric_kl", "over the batch")
def softmax_over_the_batch(a, b):
    p, q = a.softmax(0), b.softmax(0)
    return ((p * (p / q).log()) + (q * (q / p).log())).sum() / len(a)


@wrong("symmetric_kl", "squared difference")
def brier(a, b):
    return (a.softmax(1) - b.softmax(1)).pow(2).sum(1).mean()


@wrong("symmetric_kl", None)
def of_the_logits(a, b):
    return ((a - b) ** 2).mean()


@wrong("symmetric_kl", None)
def without_softmax(a, b):
    return F.kl_div(a, b, reduction="batchmean") + F.kl_div(b, a, reduction="batchmean")


@wrong("symmetric_kl", "given probabilities twice")
def logarithm_forgotten(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return F.kl_div(p, q, reduction="batchmean") + F.kl_div(q, p, reduction="batchmean")


@wrong("symmetric_kl", "overflows")
def exponentials_as_they_are(a, b):
    p = a.exp() / a.exp().sum(dim=1, keepdim=True)
    q = b.exp() / b.exp().sum(dim=1, keepdim=True)
    return ((p - q) * (p / q).log()).sum(dim=1).mean()


@wrong("symmetric_kl", "overflows")
def log_of_a_sum_of_exponentials(a, b):
    log_p = a - a.exp().sum(1, keepdim=True).log()
    log_q = b - b.exp().sum(1, keepdim=True).log()
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1).mean()


@wrong("symmetric_kl", "floor under them")
def with_a_small_floor(a, b):
    p, q = a.softmax(1).clamp(min=1e-8), b.softmax(1).clamp(min=1e-8)
    return ((p - q) * (p.log() - q.log())).sum(1).mean()


@wrong("symmetric_kl", "floor under them")
def with_an_epsilon_in_the_logarithm(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return ((p - q) * ((p + 1e-6).log() - (q + 1e-6).log())).sum(1).mean()


@wrong("symmetric_kl", "cross-entropies")
def two_cross_entropies(a, b):
    return F.cross_entropy(a, b.softmax(1)) + F.cross_entropy(b, a.softmax(1))


@wrong("symmetric_kl", "softmax twice")
def softmax_of_a_softmax(a, b):
    return kl_div_both(a.softmax(1), b.softmax(1), "batchmean")


@wrong("symmetric_kl", "`log_target` says otherwise")
def log_target_forgotten(a, b):
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    return F.kl_div(log_p, log_q, reduction="batchmean") + F.kl_div(
        log_q, log_p, reduction="batchmean"
    )


@wrong("symmetric_kl", "batch twice")
def divided_once_more(a, b):
    return kl_div_both(a, b, "batchmean") / a.shape[0]


@wrong("symmetric_kl", "KL(P||Q) twice")
def doubled(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return 2 * (p * (p / q).log()).sum(1).mean()


@wrong("symmetric_kl", "its target as fixed")
def probabilities_detached(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return ((p - q).detach() * (p.log() - q.log())).sum(1).mean()


@wrong("symmetric_kl", None)
def difference_of_the_two(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return ((p * (p / q).log()).sum(1) - (q * (q / p).log()).sum(1)).mean()


@wrong("symmetric_kl", None)
def with_a_floor(a, b):
    p, q = a.softmax(1).clamp(min=1e-2), b.softmax(1).clamp(min=1e-2)
    return ((p - q) * (p.log() - q.log())).sum(1).mean()


@wrong("symmetric_kl", None)
def one_number_per_example(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return ((p - q) * (p.log() - q.log())).sum(1)


@wrong("symmetric_kl", None)
def base_two(a, b):
    p, q = a.softmax(1), b.softmax(1)
    return ((p - q) * (p.log2() - q.log2())).sum(1).mean()


@right("symmetric_kl")
def by_kl_div(a, b):
    return kl_div_both(a, b, "batchmean")


@right("symmetric_kl")
def by_distributions(a, b):
    p, q = (torch.distributions.Categorical(logits=x) for x in (a, b))
    kl = torch.distributions.kl_divergence
    return (kl(p, q) + kl(q, p)).mean()


@right("symmetric_kl")
def row_by_row(a, b):
    total = 0
    for one, other in zip(a, b, strict=True):
        p, q = (one - one.max()).exp(), (other - other.max()).exp()
        p, q = p / p.sum(), q / q.sum()
        for c in range(len(p)):
            total = total + p[c] * torch.log(p[c] / q[c]) + q[c] * torch.log(q[c] / p[c])
    return total / len(a)


@right("symmetric_kl")
def einsum(a, b):
    # the normalisers cancel: sum_c (P_c - Q_c) = 0
    return torch.einsum("bc,bc->b", a.softmax(1) - b.softmax(1), a - b).mean()


@right("symmetric_kl")
def cross_entropies_less_entropies(a, b):
    def beyond(x, y):
        target = y.softmax(1)
        return F.cross_entropy(x, target) - F.cross_entropy(y, target)

    return beyond(a, b) + beyond(b, a)


@right("symmetric_kl")
def in_float32_by_logsumexp(a, b):
    a, b = a.float(), b.float()
    log_p, log_q = (x - x.logsumexp(dim=1, keepdim=True) for x in (a, b))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / len(a)


@right("symmetric_kl")
def trace_of_a_product(a, b):
    return ((a.softmax(1) - b.softmax(1)) @ (a - b).T).trace() / len(a)


# divergence


def kl(a, b):
    return einsum(a, b)


@wrong("divergence", "always 1")
def softmax_over_one_logit(a, b, loss):
    return F.mse_loss(a, b) if loss == "score" else kl(a, b)


@wrong("divergence", "whatever the loss")
def one_formula(a, b, loss):
    p, q = a.softmax(dim=1), b.softmax(dim=1)
    return (p * (p / q).log() + q * (q / p).log()).sum(dim=1).mean()


@wrong("divergence", "two sides")
def heads_only(a, b, loss):
    if loss == "classes":
        return kl(a, b)
    if loss == "score":
        return F.mse_loss(a, b)
    p, q = torch.sigmoid(a), torch.sigmoid(b)
    return (p * (p / q).log() + q * (q / p).log()).mean()


@wrong("divergence", "every example with every other")
def broadcasts(a, b, loss):
    if loss == "score":
        return ((a.squeeze(-1) - b) ** 2).mean()
    return by_distributions(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "every example with every other")
def broadcasts_in_mse_loss(a, b, loss):
    if loss == "score":
        return F.mse_loss(a.flatten(), b)
    return by_distributions(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "compares the logits themselves")
def mse_for_one_output(a, b, loss):
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "not 0 for equal predictions")
def cross_entropy(a, b, loss):
    if loss == "binary":
        return F.binary_cross_entropy(a.sigmoid(), b.sigmoid())
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "squares the difference of the probabilities")
def squared_probabilities(a, b, loss):
    if loss == "binary":
        return (a.sigmoid() - b.sigmoid()).pow(2).mean()
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "no gradient flows into b")
def clean_side_detached(a, b, loss):
    b = b.detach()
    if loss == "score":
        return F.mse_loss(a, b)
    return kl(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "absolute differences")
def l1_for_scores(a, b, loss):
    if loss == "score":
        return F.l1_loss(a, b)
    return kl(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "adds up the batch")
def sum_for_scores(a, b, loss):
    if loss == "score":
        return F.mse_loss(a, b, reduction="sum")
    return kl(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "one of the two divergences")
def one_way_coin(a, b, loss):
    if loss == "binary":
        p, q = a.sigmoid(), b.sigmoid()
        return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "a coin with logit 2 z")
def logit_stacked_with_its_negative(a, b, loss):
    if loss == "binary":
        return kl(torch.cat([a, -a], dim=1), torch.cat([b, -b], dim=1))
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "sure coins give NaN")
def both_sides_by_sigmoid(a, b, loss):
    if loss == "binary":
        p, q = a.sigmoid(), b.sigmoid()
        heads = (p - q) * (p / q).log()
        tails = (q - p) * ((1 - p) / (1 - q)).log()
        return (heads + tails).mean()
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "sure coins give NaN or infinity")
def with_bernoulli(a, b, loss):
    if loss == "score":
        return F.mse_loss(a.flatten(), b.flatten())
    make = {
        "classes": lambda x: torch.distributions.Categorical(logits=x),
        "binary": lambda x: torch.distributions.Bernoulli(logits=x.squeeze(1)),
    }[loss]
    p, q = make(a), make(b)
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    return both.mean()


@wrong("divergence", "overflows")
def own_softmax(a, b, loss):
    if loss == "score":
        return F.mse_loss(a, b)
    if loss == "binary":
        a, b = F.pad(a, (0, 1)), F.pad(b, (0, 1))
    return exponentials_as_they_are(a, b)


@wrong("divergence", "no gradient flows into b")
def clean_score_detached(a, b, loss):
    if loss == "score":
        return F.mse_loss(a, b.detach())
    return kl(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "no gradient flows into a")
def coin_of_a_number(a, b, loss):
    if loss == "binary":
        return coin(a.detach(), b)
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "its target as fixed")
def targets_detached_for_classes(a, b, loss):
    if loss == "classes":
        return targets_detached(a, b)
    return coin(a, b) if loss == "binary" else F.mse_loss(a, b)


@wrong("divergence", "its target as fixed")
def targets_detached_throughout(a, b, loss):
    if loss == "score":
        return F.mse_loss(a, b)
    if loss == "binary":
        a, b = F.pad(a, (0, 1)), F.pad(b, (0, 1))
    return like_the_popular_port(a, b)


@wrong("divergence", "one of the two divergences")
def one_way_everywhere(a, b, loss):
    if loss == "score":
        return F.mse_loss(a, b)
    if loss == "binary":
        a, b = F.pad(a, (0, 1)), F.pad(b, (0, 1))
    return kl_div_alone(a, b)


@wrong("divergence", "takes the root")
def root_mean_square(a, b, loss):
    if loss == "score":
        return F.mse_loss(a, b).sqrt()
    return kl(a, b) if loss == "classes" else coin(a, b)


@wrong("divergence", "squared differences whatever the loss")
def squares_only(a, b, loss):
    return ((a - b) ** 2).mean()


@wrong("divergence", "two sides of the coin")
def mean_over_the_sides(a, b, loss):
    if loss == "binary":
        return kl_div_both(F.pad(a, (0, 1)), F.pad(b, (0, 1)), "mean")
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "changes sure coins")
def coins_on_a_floor(a, b, loss):
    if loss == "binary":
        p, q = (torch.cat([z.sigmoid(), 1 - z.sigmoid()], dim=1) for z in (a, b))
        logs = torch.log(p + 1e-8) - torch.log(q + 1e-8)
        return ((p - q) * logs).sum(dim=1).mean()
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", None)
def one_minus_the_logit(a, b, loss):
    if loss == "binary":
        return kl(torch.cat([a, 1 - a], dim=1), torch.cat([b, 1 - b], dim=1))
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", "hands probabilities")
def softmax_of_the_two_sides(a, b, loss):
    if loss == "binary":
        a, b = (torch.cat([z.sigmoid(), (-z).sigmoid()], dim=1) for z in (a, b))
        return kl(a, b)
    return kl(a, b) if loss == "classes" else F.mse_loss(a, b)


@wrong("divergence", None)
def forgets_to_return_scores(a, b, loss):
    if loss == "classes":
        return kl(a, b)
    if loss == "binary":
        return coin(a, b)


def coin(a, b):
    p, q = a.sigmoid(), b.sigmoid()
    return ((p - q) * (a - b)).sum() / len(a)


@right("divergence")
def by_difference_of_logits(a, b, loss):
    if loss == "classes":
        return kl(a, b)
    return coin(a, b) if loss == "binary" else (a - b).square().mean()


@right("divergence")
def logarithms_of_both_sides(a, b, loss):
    if loss == "score":
        return torch.linalg.vector_norm(a - b) ** 2 / len(a)
    if loss == "binary":
        a, b = (torch.cat([F.logsigmoid(z), F.logsigmoid(-z)], dim=1) for z in (a, b))
    return in_float32_by_logsumexp(a, b)


@right("divergence")
def half_a_logit_for_each_side(a, b, loss):
    if loss == "score":
        return (a * a - 2 * a * b + b * b).mean()
    if loss == "binary":
        a, b = (torch.cat([z / 2, -z / 2], dim=1) for z in (a, b))
    return by_distributions(a, b)


@right("divergence")
def with_a_second_logit(a, b, loss):
    if loss == "binary":
        a, b = (torch.stack([torch.zeros(len(x)), x[:, 0]], dim=1) for x in (a, b))
    if loss == "score":
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))[0] / len(a)
    return row_by_row(a, b)


# smart_step


def per_sentence(g):
    return g.abs().flatten(1).max(dim=1).values.view(-1, 1, 1)


def unit(g, size):
    return g / torch.where(size == 0, torch.ones_like(size), size)


@wrong("smart_step", "downhill")
def descends(x_tilde, x, gradient, step_size, radius):
    new = x_tilde - step_size * unit(gradient, per_sentence(gradient))
    return x + (new - x).clamp(-radius, radius)


@wrong("smart_step", "not divided by its size")
def not_normalised(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "largest size in the whole batch")
def by_the_batch(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient / gradient.abs().max()
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "token by token")
def by_the_token(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * unit(gradient, gradient.abs().max(-1, keepdim=True).values)
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "token by token")
def by_the_token_as_a_first_draft(x_tilde, x, gradient, step_size, radius):
    step = step_size * gradient / gradient.abs().max(dim=-1, keepdim=True)[0]
    return x + torch.clamp(x_tilde + step - x, -radius, radius)


@wrong("smart_step", "Euclidean length; for this ball")
def by_the_l2_norm_as_a_first_draft(x_tilde, x, gradient, step_size, radius):
    norm = torch.sqrt((gradient**2).sum(dim=(1, 2), keepdim=True))
    return x + torch.clamp(x_tilde + step_size * gradient / (norm + 1e-8) - x, -radius, radius)


@wrong("smart_step", "may belong to a negative one")
def without_abs(x_tilde, x, gradient, step_size, radius):
    largest = gradient.flatten(1).max(dim=1).values[:, None, None]
    return x + torch.clamp(x_tilde + step_size * gradient / largest - x, -radius, radius)


@wrong("smart_step", "a matrix norm")
def matrix_norm(x_tilde, x, gradient, step_size, radius):
    norm = torch.linalg.norm(gradient, ord=float("inf"), dim=(1, 2))[:, None, None]
    return x + torch.clamp(x_tilde + step_size * unit(gradient, norm) - x, -radius, radius)


@wrong("smart_step", "divides the whole change")
def whole_change_as_in_the_port(x_tilde, x, gradient, step_size, radius):
    change = x_tilde - x + step_size * gradient
    return x + change / change.abs().amax(dim=-1, keepdim=True)


@wrong("smart_step", "Euclidean length; for this ball")
def by_the_l2_norm(x_tilde, x, gradient, step_size, radius):
    norm = gradient.flatten(1).norm(dim=1).view(-1, 1, 1)
    return x + torch.clamp(x_tilde + step_size * unit(gradient, norm) - x, -radius, radius)


@wrong("smart_step", "Euclidean length of the whole batch")
def by_the_l2_norm_of_the_batch(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient / gradient.norm()
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "takes the signs")
def fast_gradient_sign(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient.sign()
    return torch.max(torch.min(new, x + radius), x - radius)


@wrong("smart_step", "becomes NaN")
def zero_by_zero(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient / per_sentence(gradient)
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "a long step ends far away")
def without_a_ball(x_tilde, x, gradient, step_size, radius):
    return x_tilde + step_size * unit(gradient, per_sentence(gradient))


@wrong("smart_step", "clips the embeddings themselves")
def clips_x(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * unit(gradient, per_sentence(gradient))
    return torch.clamp(new, -radius, radius)


@wrong("smart_step", "around the old x_tilde")
def clips_the_step(x_tilde, x, gradient, step_size, radius):
    step = step_size * unit(gradient, per_sentence(gradient))
    return x_tilde + step.clamp(min=-radius, max=radius)


@wrong("smart_step", "returns the difference to x")
def returns_delta(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * unit(gradient, per_sentence(gradient))
    return torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "round ball")
def round_ball(x_tilde, x, gradient, step_size, radius):
    delta = x_tilde + step_size * unit(gradient, per_sentence(gradient)) - x
    norm = delta.flatten(1).norm(dim=1).view(-1, 1, 1)
    return x + torch.where(norm > radius, delta * radius / norm, delta)


@wrong("smart_step", "small number in the denominator")
def with_an_epsilon(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient / (per_sentence(gradient) + 1e-6)
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "starts from x")
def from_x(x_tilde, x, gradient, step_size, radius):
    new = x + step_size * unit(gradient, per_sentence(gradient))
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "whole change shorter")
def rescaled_into_the_ball(x_tilde, x, gradient, step_size, radius):
    delta = x_tilde + step_size * unit(gradient, per_sentence(gradient)) - x
    return x + delta * (radius / per_sentence(delta)).clamp(max=1)


@wrong("smart_step", "changes its input `x_tilde` in place")
def adds_in_place(x_tilde, x, gradient, step_size, radius):
    x_tilde += step_size * unit(gradient, per_sentence(gradient))
    return x + torch.clamp(x_tilde - x, -radius, radius)


@wrong("smart_step", "largest over the tokens")
def by_the_hidden_entry(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * unit(gradient, gradient.abs().amax(dim=1, keepdim=True))
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", "changed places")
def radius_for_a_step(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + radius * unit(gradient, per_sentence(gradient))
    return x + torch.clamp(new - x, -step_size, step_size)


@wrong("smart_step", "whole change shorter")
def shortened_into_the_ball(x_tilde, x, gradient, step_size, radius):
    delta = x_tilde + step_size * unit(gradient, per_sentence(gradient)) - x
    largest = delta.abs().max()
    return x + (delta * radius / largest if largest > radius else delta)


@wrong("smart_step", "small number in the denominator")
def with_a_floor_for_the_size(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient / per_sentence(gradient).clamp(min=1e-6)
    return x + torch.clamp(new - x, -radius, radius)


@wrong("smart_step", None)
def whole_batch_stays(x_tilde, x, gradient, step_size, radius):
    if (per_sentence(gradient) == 0).any():
        return x_tilde
    return min_max_around_x(x_tilde, x, gradient, step_size, radius)


@wrong("smart_step", None)
def nan_removed_at_the_end(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * gradient / per_sentence(gradient)
    return torch.nan_to_num(x + torch.clamp(new - x, -radius, radius))


@wrong("smart_step", None)
def by_the_mean_size(x_tilde, x, gradient, step_size, radius):
    size = gradient.abs().mean(dim=(1, 2), keepdim=True)
    return x + torch.clamp(x_tilde + step_size * unit(gradient, size) - x, -radius, radius)


@right("smart_step")
def min_max_around_x(x_tilde, x, gradient, step_size, radius):
    new = x_tilde + step_size * unit(gradient, per_sentence(gradient))
    return torch.max(torch.min(new, x + radius), x - radius)


@right("smart_step")
def sentence_by_sentence(x_tilde, x, gradient, step_size, radius):
    rows = []
    for at, clean, g in zip(x_tilde.numpy(), x.numpy(), gradient.numpy(), strict=True):
        largest = np.abs(g).max()
        step = step_size * g / largest if largest else np.zeros_like(g)
        rows.append(clean + np.clip(at + step - clean, -radius, radius))
    return np.stack(rows)


@right("smart_step")
def nan_to_num(x_tilde, x, gradient, step_size, radius):
    g = torch.nan_to_num(gradient / gradient.abs().amax((1, 2), keepdim=True))
    return x + (x_tilde - x + step_size * g).clamp(-radius, radius)


@right("smart_step")
def inf_norm(x_tilde, x, gradient, step_size, radius):
    norms = torch.linalg.vector_norm(gradient, ord=float("inf"), dim=(1, 2), keepdim=True)
    norms[norms == 0] = 1
    return torch.clamp(x_tilde + step_size * gradient / norms, x - radius, x + radius)


@right("smart_step")
def loop_over_sentences(x_tilde, x, gradient, step_size, radius):
    out = x_tilde.clone()
    for i, g in enumerate(gradient):
        if g.any():
            out[i] += step_size * g / max(g.max(), -g.min())
    return out.clamp(x - radius, x + radius)


@right("smart_step")
def normalized_flat(x_tilde, x, gradient, step_size, radius):
    g = F.normalize(gradient.flatten(1), p=float("inf"), dim=1).view_as(gradient)
    return x + (x_tilde - x + step_size * g).clamp(-radius, radius)


@right("smart_step")
def in_float32_by_median(x_tilde, x, gradient, step_size, radius):
    x_tilde, x, g = x_tilde.float(), x.float(), gradient.float()
    new = x_tilde + step_size * unit(g, per_sentence(g))
    return torch.stack([new, x - radius, x + radius]).median(dim=0).values


# smart_penalty


def penalty(model, x, start, step_size, radius):
    clean = model(x)
    point = (x + start).clone().requires_grad_(True)
    grad = torch.autograd.grad(kl(model(point), clean.detach()), point)[0]
    worst = min_max_around_x(point.detach(), x.detach(), grad, step_size, radius)
    return kl(model(x + (worst - x.detach())), clean)


@wrong("smart_penalty", "Dropout is on")
def mode_forgotten(model, x, start, step_size, radius):
    return penalty(model, x, start, step_size, radius)


@wrong("smart_penalty", "Dropout is on")
def mode_forgotten_and_backward(model, x, start, step_size, radius):
    clean = model(x)
    point = (x + start).detach().requires_grad_()
    kl(clean.detach(), model(point)).backward()
    delta = (start + step_size * unit(point.grad, per_sentence(point.grad))).clamp(-radius, radius)
    return kl(clean, model(x + delta))


@wrong("smart_penalty", None)
def train_mode_wanted(model, x, start, step_size, radius):
    model.train()
    return penalty(model, x, start, step_size, radius)


@wrong("smart_penalty", "leaves the model in eval mode")
def never_back_to_train(model, x, start, step_size, radius):
    model.eval()
    return penalty(model, x, start, step_size, radius)


@wrong("smart_penalty", "train mode, also where it came in eval")
def always_back_to_train(model, x, start, step_size, radius):
    model.eval()
    value = penalty(model, x, start, step_size, radius)
    model.train()
    return value


def in_eval(function):
    def answer(model, x, start, step_size, radius):
        mode = model.training
        model.eval()
        value = function(model, x, start, step_size, radius)
        model.train(mode)
        return value

    answer.__name__ = function.__name__
    return answer


@wrong("smart_penalty", "nobody has looked for the worst point")
@in_eval
def random_smoothing(model, x, start, step_size, radius):
    return kl(model(x + start.clamp(-radius, radius)), model(x))


@wrong("smart_penalty", "a search that starts at x itself")
@in_eval
def starts_at_x(model, x, start, step_size, radius):
    point = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x)), point)
    worst = min_max_around_x(point.detach(), x, grad, step_size, radius)
    return kl(model(worst), model(x))


@wrong("smart_penalty", "The start is clipped first")
@in_eval
def start_clipped_first(model, x, start, step_size, radius):
    return penalty(model, x, start.clamp(-radius, radius), step_size, radius)


@wrong("smart_penalty", "not divided by its size")
@in_eval
def gradient_as_it_is(model, x, start, step_size, radius):
    point = (x + start).requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x)), point)
    return kl(model(x + (start + step_size * grad).clamp(-radius, radius)), model(x))


@wrong("smart_penalty", None)
@in_eval
def multiplied_by_its_size(model, x, start, step_size, radius):
    point = (x + start).requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x)), point)
    change = start + step_size * grad * per_sentence(grad)
    return kl(model(x + change.clamp(-radius, radius)), model(x))


@wrong("smart_penalty", None)
@in_eval
def mean_of_the_wrong_axis(model, x, start, step_size, radius):
    return penalty(model, x, start, step_size, radius) * len(x) / model(x).shape[1]


@wrong("smart_penalty", "back into the ball")
@in_eval
def leaves_the_ball(model, x, start, step_size, radius):
    point = (x + start).requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x)), point)
    with torch.no_grad():
        point += step_size * unit(grad, per_sentence(grad))
    return kl(model(point.detach()), model(x))


@wrong("smart_penalty", "taken for a constant")
@in_eval
def clean_prediction_fixed(model, x, start, step_size, radius):
    with torch.no_grad():
        clean = model(x)
    point = (x + start).requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), clean), point)
    return kl(model(min_max_around_x(point.detach(), x, grad, step_size, radius)), clean)


@wrong("smart_penalty", "search changes the weights")
@in_eval
def backward_in_the_search(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    kl(model(point), model(x).detach()).backward()
    worst = min_max_around_x(point.detach(), x, point.grad, step_size, radius)
    return kl(model(worst), model(x))


@wrong("smart_penalty", "search changes the weights")
@in_eval
def clears_what_was_there(model, x, start, step_size, radius):
    value = backward_in_the_search(model, x, start, step_size, radius)
    model.zero_grad()
    return value


@wrong("smart_penalty", "a search that starts at x itself")
@in_eval
def compares_x_with_itself(model, x, start, step_size, radius):
    return kl(model(x), model(x))


@wrong("smart_penalty", "detached")
@in_eval
def a_number(model, x, start, step_size, radius):
    return penalty(model, x, start, step_size, radius).item()


@wrong("smart_penalty", "change found is not a constant")
@in_eval
def point_not_constant(model, x, start, step_size, radius):
    point = (x + start).requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x)), point, create_graph=True)
    return kl(model(min_max_around_x(point.detach(), x, grad, step_size, radius)), model(x))


@wrong("smart_penalty", "change found is not a constant")
@in_eval
def functional_gradient(model, x, start, step_size, radius):
    clean = model(x).detach()
    grad = torch.func.grad(lambda delta: kl(model(x.detach() + delta), clean))(start)
    change = start + step_size * grad / per_sentence(grad)
    return kl(model(x + change.clamp(-radius, radius)), model(x))


@wrong("smart_penalty", "not the gradient of x")
@in_eval
def x_detached(model, x, start, step_size, radius):
    return penalty(model, x.detach(), start, step_size, radius)


@wrong("smart_penalty", "not the gradient of x")
@in_eval
def clean_x_detached(model, x, start, step_size, radius):
    clean = model(x.detach())
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), clean.detach()), point)
    delta = (start + step_size * unit(grad, per_sentence(grad))).clamp(-radius, radius)
    return kl(model(x + delta), clean)


@wrong("smart_penalty", "not the gradient of x")
@in_eval
def point_detached(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
    worst = min_max_around_x(point, x, grad, step_size, radius).detach()
    return kl(model(worst), model(x))


@wrong("smart_penalty", "not the gradient of x")
@in_eval
def x_where_it_is_clipped(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
    return kl(model(min_max_around_x(point.detach(), x, grad, step_size, radius)), model(x))


@wrong("smart_penalty", "prediction at the point reached is taken for a constant")
@in_eval
def worst_prediction_fixed(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
    with torch.no_grad():
        worst = model(min_max_around_x(point, x, grad, step_size, radius))
    return kl(worst, model(x))


@wrong("smart_penalty", "its target as fixed")
@in_eval
def both_targets_fixed(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
    worst = min_max_around_x(point.detach(), x, grad, step_size, radius)
    return like_the_popular_port(model(worst), model(x))


@wrong("smart_penalty", "search climbs one of the two")
@in_eval
def climbs_one_way(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(like_the_popular_port(model(point), model(x)), point)
    return kl(model(min_max_around_x(point.detach(), x, grad, step_size, radius)), model(x))


@wrong("smart_penalty", "token by token")
@in_eval
def tokens_of_equal_size(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
    delta = start + step_size * unit(grad, grad.abs().amax(dim=2, keepdim=True))
    return kl(model(x + delta.clamp(-radius, radius)), model(x))


@wrong("smart_penalty", "largest size in the whole batch")
@in_eval
def one_size_for_the_batch(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
    delta = start + step_size * grad / grad.abs().max()
    return kl(model(x + delta.clamp(-radius, radius)), model(x))


@wrong("smart_penalty", "last pass")
def back_in_train_mode_too_early(model, x, start, step_size, radius):
    mode = model.training
    model.eval()
    clean = model(x)
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(model(point), clean.detach()), point)
    model.train(mode)
    return kl(model(min_max_around_x(point.detach(), x, grad, step_size, radius)), clean)


@wrong("smart_penalty", None)
@in_eval
def draws_its_own_start(model, x, start, step_size, radius):
    return penalty(model, x, 1e-5 * torch.randn_like(x), step_size, radius)


@wrong("smart_penalty", None)
def the_same_masks(model, x, start, step_size, radius):
    def seeded(y):
        torch.manual_seed(0)
        return model(y)

    clean = seeded(x)
    point = (x + start).detach().requires_grad_()
    (grad,) = torch.autograd.grad(kl(seeded(point), clean.detach()), point)
    change = min_max_around_x(point.detach(), x.detach(), grad, step_size, radius) - x.detach()
    return kl(seeded(x + change), clean)


@wrong("smart_penalty", None)
@in_eval
def two_steps(model, x, start, step_size, radius):
    point = x + start
    for _ in range(2):
        point = point.detach().requires_grad_()
        (grad,) = torch.autograd.grad(kl(model(point), model(x).detach()), point)
        point = min_max_around_x(point.detach(), x, grad, step_size, radius)
    return kl(model(point), model(x))


@wrong("smart_penalty", None)
def on_a_copy(model, x, start, step_size, radius):
    return penalty(copy.deepcopy(model).eval(), x, start, step_size, radius)


@wrong("smart_penalty", None)
def dropout_left_off(model, x, start, step_size, radius):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    return penalty(model, x, start, step_size, radius)


@wrong("smart_penalty", None)
@in_eval
def mean_over_classes(model, x, start, step_size, radius):
    return penalty(model, x, start, step_size, radius) / model(x).shape[1]


@right("smart_penalty")
@in_eval
def wrapped(model, x, start, step_size, radius):
    return penalty(model, x, start, step_size, radius)


@right("smart_penalty")
def module_by_module(model, x, start, step_size, radius):
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    delta = start.clone().requires_grad_()
    p, q = (F.log_softmax(model(y), dim=1) for y in (x, x + delta))
    distance = ((p.exp() - q.exp()) * (p - q)).sum() / len(x)
    (grad,) = torch.autograd.grad(distance, [delta])
    moved = delta.detach() + step_size * grad / grad.abs().amax((1, 2), keepdim=True)
    p, q = (F.log_softmax(model(y), dim=1) for y in (x, x + moved.clamp(-radius, radius)))
    for module, mode in modes.items():
        module.training = mode
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean()


@right("smart_penalty")
def weights_frozen_in_the_search(model, x, start, step_size, radius):
    mode, weights = model.training, list(model.parameters())
    model.eval()
    for weight in weights:
        weight.requires_grad_(False)
    clean = x.detach()
    point = (clean + start).requires_grad_()
    kl(model(point), model(clean)).backward()
    for weight in weights:
        weight.requires_grad_(True)
    worst = sentence_by_sentence(point.detach(), clean, point.grad, step_size, radius)
    value = kl(model(x + torch.from_numpy(worst - clean.numpy())), model(x))
    model.train(mode)
    return value


@right("smart_penalty")
@in_eval
def search_on_a_copy(model, x, start, step_size, radius):
    twin, point = copy.deepcopy(model), (x + start).detach().requires_grad_()
    kl(twin(point), twin(x).detach()).backward()
    change = start + step_size * point.grad / per_sentence(point.grad)
    return kl(model(x + change.clamp(-radius, radius)), model(x))


@right("smart_penalty")
@in_eval
def both_in_one_batch(model, x, start, step_size, radius):
    point = (x + start).detach().requires_grad_()
    kl(model(point), model(x)).backward(inputs=[point])
    with torch.no_grad():
        change = min_max_around_x(point, x, point.grad, step_size, radius) - x
    return kl(*model(torch.cat([x + change, x])).chunk(2))


@right("smart_penalty")
@in_eval
def weights_passed_as_constants(model, x, start, step_size, radius):
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def constant(y):
        return torch.func.functional_call(model, weights, y)

    clean = x.detach()
    grad = torch.func.grad(lambda delta: kl(constant(clean + delta), constant(clean)))(start)
    change = start + step_size * grad / per_sentence(grad)
    return kl(model(x + change.clamp(-radius, radius)), model(x))


# AfterEmbeddings


class Rest(nn.Module):
    """What the answers below have in common."""

    def __init__(self, model, task, attention_mask):
        super().__init__()
        self.model = model
        self.task = task
        self.mask = attention_mask

    def forward(self, x):
        bert = self.model.encoder
        return self.model.heads[self.task.name](bert.pooler(bert.encoder(x, self.mask)))


@wrong("AfterEmbeddings", "Positions and LayerNorm are applied once more")
class EmbeddedTwice(Rest):
    def forward(self, x):
        bert = self.model.encoder
        places = torch.arange(x.size(1))
        x = bert.embeddings.LayerNorm(x + bert.embeddings.position_embeddings(places)[None])
        return self.model.heads[self.task.name](bert.pooler(bert.encoder(x, self.mask)))


@wrong("AfterEmbeddings", "Words look at padding")
class MaskForgotten(Rest):
    def forward(self, x):
        bert = self.model.encoder
        everything = torch.ones(x.shape[:2], dtype=torch.long)
        return self.model.heads[self.task.name](bert.pooler(bert.encoder(x, everything)))


@wrong("AfterEmbeddings", "pooler is left out")
class BareFirstToken(Rest):
    def forward(self, x):
        hidden = self.model.encoder.encoder(x, self.mask)
        return self.model.heads[self.task.name](hidden[:, 0, :])


@wrong("AfterEmbeddings", "on a copy of the model")
class OnACopy(Rest):
    def __init__(self, model, task, attention_mask):
        super().__init__(copy.deepcopy(model), task, attention_mask)


@wrong("AfterEmbeddings", "do not reach the model")
class BehindAFunction(nn.Module):
    def __init__(self, model, task, attention_mask):
        super().__init__()
        rest = Rest(model, task, attention_mask)
        self.run = lambda x: rest(x)

    def forward(self, x):
        return self.run(x)


@wrong("AfterEmbeddings", "asked are logits")
class Probabilities(Rest):
    def forward(self, x):
        return F.softmax(super().forward(x), dim=-1)


@wrong("AfterEmbeddings", "`forward` puts the model into eval mode")
class EvalAtEachPass(Rest):
    def forward(self, x):
        self.eval()
        return super().forward(x)


@wrong("AfterEmbeddings", "into eval mode when it is made")
class EvalFromTheStart(Rest):
    def __init__(self, model, task, attention_mask):
        super().__init__(model, task, attention_mask)
        self.model.eval()


@wrong("AfterEmbeddings", "dropout once more")
class DroppedTwice(Rest):
    def forward(self, x):
        return super().forward(self.model.encoder.embeddings.dropout(x))


@wrong("AfterEmbeddings", None)
class FirstHead(Rest):
    def forward(self, x):
        bert = self.model.encoder
        return next(iter(self.model.heads.values()))(bert.pooler(bert.encoder(x, self.mask)))


@wrong("AfterEmbeddings", "expected an nn.Module")
def only_a_function(model, task, attention_mask):
    rest = Rest(model, task, attention_mask)
    return lambda x: rest(x)


@right("AfterEmbeddings")
class PartByPart(nn.Module):
    def __init__(self, model, task, attention_mask):
        super().__init__()
        self.layers, self.pooler = model.encoder.encoder, model.encoder.pooler
        self.head, self.whole = model.heads[task.name], model
        self.attention_mask = attention_mask

    def forward(self, x):
        return self.head(self.pooler(self.layers(x, self.attention_mask)))


@right("AfterEmbeddings")
class PartsOnly(nn.Module):
    def __init__(self, model, task, attention_mask):
        super().__init__()
        self.bert, self.head = model.encoder, model.heads[task.name]
        self.attention_mask = attention_mask

    def forward(self, x):
        return self.head(self.bert.pooler(self.bert.encoder(x, self.attention_mask)))


@right("AfterEmbeddings")
class LayersPoolerHead(nn.Module):
    def __init__(self, model, task, attention_mask):
        super().__init__()
        self.layers, self.pool = model.encoder.encoder, model.encoder.pooler
        self.head, self.attention_mask = model.heads[task.name], attention_mask

    def forward(self, x):
        return self.head(self.pool(self.layers(x, self.attention_mask)))


@right("AfterEmbeddings")
class LayerByLayer(Rest):
    def forward(self, x):
        for layer in self.model.encoder.encoder.layer:
            x = layer(x, self.mask)
        first = torch.tanh(self.model.encoder.pooler.dense(x[:, 0]))
        return self.model.heads[self.task.name](first)


# smart_term


@wrong("smart_term", "an x with holes in it")
def embedded_before_eval(model, batch, start, step_size, radius):
    training = model.training
    x = model.encoder.embeddings(batch.input_ids)
    model.eval()
    rest = Rest(model, batch.task, batch.attention_mask)
    value = smart_penalty(rest, x, start, step_size, radius)
    model.train(training)
    return value


@wrong("smart_term", "also where it came in eval mode")
def as_smart_penalty_leaves_it(model, batch, start, step_size, radius):
    model.eval()
    x = model.encoder.embeddings(batch.input_ids)
    rest = Rest(model, batch.task, batch.attention_mask)
    return smart_penalty(rest, x, start, step_size, radius)


@wrong("smart_term", "an x with holes in it")
def no_mode_at_all(model, batch, start, step_size, radius):
    x = model.encoder.embeddings(batch.input_ids)
    rest = Rest(model, batch.task, batch.attention_mask)
    return smart_penalty(rest, x, start, step_size, radius)


@wrong("smart_term", "without dropout")
def stays_in_eval(model, batch, start, step_size, radius):
    model.eval()
    x = model.encoder.embeddings(batch.input_ids)
    rest = Rest(model, batch.task, batch.attention_mask).eval()
    return smart_penalty(rest, x, start, step_size, radius)


@wrong("smart_term", "cut from what made it")
def embeddings_detached(model, batch, start, step_size, radius):
    training = model.training
    model.eval()
    with torch.no_grad():
        x = model.encoder.embeddings(batch.input_ids)
    rest = Rest(model, batch.task, batch.attention_mask)
    value = smart_penalty(rest, x, start, step_size, radius)
    model.train(training)
    return value


@wrong("smart_term", "have changed places")
def radius_and_step_exchanged(model, batch, start, step_size, radius):
    training = model.training
    model.eval()
    x = model.encoder.embeddings(batch.input_ids)
    rest = Rest(model, batch.task, batch.attention_mask)
    value = smart_penalty(rest, x, start, radius, step_size)
    model.train(training)
    return value


@wrong("smart_term", "the training step adds the two")
def with_the_task_loss(model, batch, start, step_size, radius):
    loss = F.cross_entropy(model(batch), batch.labels)
    return loss + right_term(model, batch, start, step_size, radius)


@wrong("smart_term", "detached")
def term_as_a_number(model, batch, start, step_size, radius):
    return right_term(model, batch, start, step_size, radius).item()


@wrong("smart_term", None)
def double(model, batch, start, step_size, radius):
    return 2 * right_term(model, batch, start, step_size, radius)


@right("smart_term")
def right_term(model, batch, start, step_size, radius):
    training = model.training
    model.eval()
    x = model.encoder.embeddings(batch.input_ids)
    rest = Rest(model, batch.task, batch.attention_mask)
    value = smart_penalty(rest, x, start, step_size, radius)
    model.train(training)
    return value


@right("smart_term")
def everything_at_once(model, batch, start, step_size, radius):
    rest = Rest(model, batch.task, batch.attention_mask)
    rest.train(model.training)
    mode, _ = model.training, rest.eval()
    embeddings = model.encoder.embeddings(batch.input_ids)
    try:
        return smart_penalty(rest, embeddings, start, step_size, radius)
    finally:
        model.train(mode)
