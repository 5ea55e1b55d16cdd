"""Answers to the exercises of chapter 06, as people write them."""

import copy
import math
import random

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector

WRONG, RIGHT = [], []


def wrong(exercise, text):
    return lambda answer: WRONG.append((exercise, answer, text)) or answer


def right(exercise):
    return lambda answer: RIGHT.append((exercise, answer)) or answer


# project


@wrong("project", "projects always")
def whatever_the_angle(g_i, g_j):
    return g_i - torch.dot(g_i, g_j) / torch.dot(g_j, g_j) * g_j


@wrong("project", "projects always")
def always_but_guarded(g_i, g_j):
    square = (g_j**2).sum()
    if square == 0:
        return g_i
    return g_i - (g_i * g_j).sum() * g_j / square


@wrong("project", "squared length of g_i")
def own_length(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    if dot < 0:
        return g_i - dot * g_j / g_i.norm() ** 2
    return g_i


@wrong("project", "not by its square")
def length_not_squared(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return g_i - dot / torch.linalg.norm(g_j) * g_j if dot < 0 else g_i


@wrong("project", "as it is")
def nothing_done(g_i, g_j):
    return g_i


@wrong("project", "look at the sign")
def where_they_agree(g_i, g_j):
    dot = g_i.dot(g_j)
    if dot > 0:
        g_i = g_i - dot / g_j.dot(g_j) * g_j
    return g_i


@wrong("project", "small number in the denominator")
def with_epsilon(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    if dot < 0:
        return g_i - dot / (g_j.pow(2).sum() + 1e-8) * g_j
    return g_i


@wrong("project", "small number in the denominator")
def clamped_length(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    if dot < 0:
        return g_i - dot / g_j.pow(2).sum().clamp(min=1e-10) * g_j
    return g_i


@wrong("project", "adds the conflicting part")
def plus(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return g_i + dot / torch.dot(g_j, g_j) * g_j if dot < 0 else g_i


@wrong("project", "drops the rest")
def the_projection_itself(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return dot / torch.dot(g_j, g_j) * g_j if dot < 0 else g_i


@wrong("project", "cosine times g_j")
def by_cosine(g_i, g_j):
    if g_i.norm() == 0 or g_j.norm() == 0:
        return g_i
    cosine = torch.nn.functional.cosine_similarity(g_i, g_j, dim=0, eps=0)
    return g_i - cosine * g_j if cosine < 0 else g_i


@wrong("project", "a multiple of g_i")
def right_share_of_the_wrong_arrow(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return g_i - dot / torch.dot(g_j, g_j) * g_i if dot < 0 else g_i


@wrong("project", None)
def entry_by_entry(g_i, g_j):
    return torch.where(g_i * g_j < 0, torch.zeros_like(g_i), g_i)


@wrong("project", None)
def flips_g_j(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return -g_i if dot < 0 else g_i


@wrong("project", None)
def a_clear_conflict_only(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return g_i - dot / torch.dot(g_j, g_j) * g_j if dot < -1e-6 else g_i


@wrong("project", None)
def unless_they_clearly_agree(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return g_i if dot >= 1 or not g_j.any() else g_i - dot / torch.dot(g_j, g_j) * g_j


@wrong("project", "changes its input `g_i` in place")
def writes_into_g_i(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    if dot < 0:
        g_i -= dot / torch.dot(g_j, g_j) * g_j
    return g_i


@wrong("project", None)
def both(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    if dot < 0:
        return g_i - dot / g_j.dot(g_j) * g_j, g_j - dot / g_i.dot(g_i) * g_i
    return g_i, g_j


@wrong("project", "zero by zero")
def right_angles_included(g_i, g_j):
    dot = torch.dot(g_i, g_j)
    return g_i - dot / torch.dot(g_j, g_j) * g_j if dot <= 0 else g_i


@wrong("project", "roles are exchanged")
def the_other_one(g_i, g_j):
    dot = g_i @ g_j
    return g_j - dot / (g_i @ g_i) * g_i if dot < 0 else g_i


@wrong("project", "divides by nothing")
def undivided(g_i, g_j):
    dot = g_i @ g_j
    return g_i - dot * g_j if dot < 0 else g_i


@wrong("project", "multiple of g_i")
def shortens_itself(g_i, g_j):
    dot = g_i @ g_j
    return g_i - dot / g_i.norm() ** 2 * g_i if dot < 0 else g_i


@wrong("project", "small number in the denominator")
def length_with_epsilon(g_i, g_j):
    dot = g_i @ g_j
    return g_i - dot / (g_j.norm() + 1e-8) ** 2 * g_j if dot < 0 else g_i


@wrong("project", "is a return missing?")
def nothing_without_conflict(g_i, g_j):
    dot = g_i @ g_j
    if dot < 0:
        return g_i - dot / (g_j @ g_j) * g_j


@wrong("project", None)
def reflected(g_i, g_j):
    dot = g_i @ g_j
    return g_i - 2 * dot / (g_j @ g_j) * g_j if dot < 0 else g_i


@wrong("project", None)
def as_long_as_before(g_i, g_j):
    dot = g_i @ g_j
    if dot >= 0:
        return g_i
    left = g_i - dot / (g_j @ g_j) * g_j
    return left / left.norm() * g_i.norm()


@right("project")
def with_minimum(g_i, g_j):
    square = g_j @ g_j
    if square == 0:
        return g_i
    return g_i - torch.clamp(g_i @ g_j, max=0) / square * g_j


@wrong("project", "right but no tensor")
def numpy_by_unit_vector(g_i, g_j):
    a, b = np.array(g_i), np.array(g_j)
    if a.dot(b) >= 0:
        return a
    unit = b / np.linalg.norm(b)
    return a - a.dot(unit) * unit


@wrong("project", "right but no tensor")
def loops(g_i, g_j):
    dot = square = 0.0
    for a, b in zip(g_i.tolist(), g_j.tolist(), strict=True):
        dot += a * b
        square += b * b
    if dot >= 0:
        return g_i
    return [a - dot / square * b for a, b in zip(g_i.tolist(), g_j.tolist(), strict=True)]


@right("project")
def least_squares(g_i, g_j):
    if torch.inner(g_i, g_j) >= 0:
        return g_i
    return g_i - g_j * torch.linalg.lstsq(g_j[:, None], g_i[:, None]).solution.item()


@right("project")
def in_float32(g_i, g_j):
    a, b = g_i.float(), g_j.float()
    dot = (a * b).sum()
    return a - dot / b.square().sum() * b if dot < 0 else a


@right("project")
def by_qr(g_i, g_j):
    if g_i.dot(g_j) >= 0:
        return g_i
    axis = torch.linalg.qr(g_j[:, None]).Q[:, 0]
    return g_i - axis * (axis @ g_i)


# pcgrad


@wrong("pcgrad", "the *original* g_i conflicts")
def asks_the_original(gradients, order):
    out = torch.zeros_like(gradients[0])
    for i in range(len(gradients)):
        g = gradients[i].clone()
        for j in order[i]:
            if torch.dot(gradients[i], gradients[j]) < 0:
                g = g - torch.dot(g, gradients[j]) / gradients[j].norm() ** 2 * gradients[j]
        out += g
    return out


@wrong("pcgrad", "start from what the first has left")
def all_parts_of_the_original(gradients, order):
    out = gradients.sum(0)
    for i, others in enumerate(order):
        for j in others:
            dot = gradients[i] @ gradients[j]
            if dot < 0:
                out = out - dot / (gradients[j] @ gradients[j]) * gradients[j]
    return out


@wrong("pcgrad", "projected before")
def works_in_one_list(gradients, order):
    projected = [g.clone() for g in gradients]
    for i, others in enumerate(order):
        for j in others:
            dot = torch.dot(projected[i], projected[j])
            if dot < 0:
                projected[i] -= dot / torch.dot(projected[j], projected[j]) * projected[j]
    return sum(projected)


@wrong("pcgrad", "projected before")
def writes_into_the_rows(gradients, order):
    for i, others in enumerate(order):
        for j in others:
            dot = gradients[i] @ gradients[j]
            if dot < 0:
                gradients[i] -= dot / (gradients[j] @ gradients[j]) * gradients[j]
    return gradients.sum(dim=0)


@wrong("pcgrad", "the mean")
def the_mean(gradients, order):
    rows = []
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            dot = g @ gradients[j]
            if dot < 0:
                g = g - dot / (gradients[j] @ gradients[j]) * gradients[j]
        rows.append(g)
    return torch.stack(rows).mean(0)


@wrong("pcgrad", "plain sum")
def no_surgery(gradients, order):
    return gradients.sum(dim=0)


@wrong("pcgrad", "projects the sum")
def surgery_after_summing(gradients, order):
    total = gradients.sum(dim=0)
    for i in range(len(gradients)):
        for j in order[i]:
            dot = total @ gradients[j]
            if dot < 0:
                total = total - dot / (gradients[j] @ gradients[j]) * gradients[j]
    return total


@wrong("pcgrad", "does not promise that all conflict is gone")
def until_nobody_conflicts(gradients, order):
    rows = []
    for i, others in enumerate(order):
        g, again = gradients[i].clone(), True
        rounds = 0
        while again and rounds < 1000:
            again, rounds = False, rounds + 1
            for j in others:
                dot = g @ gradients[j]
                if dot < -1e-15 * gradients[j].norm() * gradients[i].norm():
                    g, again = g - dot / (gradients[j] @ gradients[j]) * gradients[j], True
        rows.append(g)
    return torch.stack(rows).sum(dim=0)


@wrong("pcgrad", "by number")
def own_order(gradients, order):
    total = 0
    for i in range(len(gradients)):
        g = gradients[i]
        for j in range(len(gradients)):
            if j != i and g @ gradients[j] < 0:
                g = g - (g @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total = total + g
    return total


@wrong("pcgrad", None)
def draws_an_order(gradients, order):
    total = 0
    for i in range(len(gradients)):
        g = gradients[i]
        for j in torch.randperm(len(gradients)).tolist():
            if j != i and g @ gradients[j] < 0:
                g = g - (g @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total = total + g
    return total


@wrong("pcgrad", "small number in the denominator")
def pcgrad_with_epsilon(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            dot = g @ gradients[j]
            if dot < 0:
                g = g - dot * gradients[j] / (gradients[j].square().sum() + 1e-12)
        total += g
    return total


@wrong("pcgrad", "got shape")
def all_rows(gradients, order):
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            dot = rows[i] @ gradients[j]
            if dot < 0:
                rows[i] -= dot / (gradients[j] @ gradients[j]) * gradients[j]
    return rows


@wrong("pcgrad", "equally long first")
def of_unit_gradients(gradients, order):
    unit = torch.nn.functional.normalize(gradients, dim=1)
    total = torch.zeros_like(unit[0])
    for i, others in enumerate(order):
        g = unit[i]
        for j in others:
            g = g - torch.clamp(g @ unit[j], max=0) * unit[j]
        total += g
    return total


@wrong("pcgrad", "projects always")
def right_angles_to_all(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            if gradients[j].norm() > 0:
                g = g - (g @ gradients[j]) / gradients[j].norm() ** 2 * gradients[j]
        total += g
    return total


@wrong("pcgrad", None)
def with_itself_and_a_wrong_sign(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in [i, *others]:
            dot = g @ gradients[j]
            if dot != 0 and (dot < 0 or i == j):
                g = g - dot / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total


@wrong("pcgrad", None)
def entry_by_entry_vote(gradients, order):
    sign = torch.sign(gradients.sum(dim=0))
    return torch.where(gradients * sign > 0, gradients, 0.0).sum(dim=0)


@wrong("pcgrad", None)
def worst_conflict_only(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i].clone()
        if others:
            j = min(others, key=lambda j: float(g @ gradients[j]))
            dot = g @ gradients[j]
            if dot < 0:
                g -= dot / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total


@wrong("pcgrad", "squared length of g_i")
def divided_by_the_original_s_own_length(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            dot = g @ gradients[j]
            if dot < 0:
                g = g - dot / gradients[i].norm() ** 2 * gradients[j]
        total += g
    return total


@wrong("pcgrad", "starts from the original g_i again")
def forgets_the_first_projection(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            dot = gradients[i] @ gradients[j]
            if dot < 0:
                g = gradients[i] - dot / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total


@wrong("pcgrad", "stops at a task's first conflict")
def leaves_the_loop(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            dot = g @ gradients[j]
            if dot < 0:
                g = g - dot / (gradients[j] @ gradients[j]) * gradients[j]
                break
        total += g
    return total


@wrong("pcgrad", "one task's projected gradient")
def returns_inside_the_loop(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            dot = g @ gradients[j]
            if dot < 0:
                g = g - dot / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
        return total


@wrong("pcgrad", "zero by zero")
def unit_vector_of_zero(gradients, order):
    units = gradients / gradients.norm(dim=1, keepdim=True)
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            g = g - torch.clamp(g @ units[j], max=0) * units[j]
        total += g
    return total


@wrong("pcgrad", "divides by nothing")
def pcgrad_undivided(gradients, order):
    total = torch.zeros_like(gradients[0])
    for i, others in enumerate(order):
        g = gradients[i].clone()
        for j in others:
            dot = torch.dot(g, gradients[j])
            if dot < 0:
                g -= dot * gradients[j]
        total += g
    return total


@wrong("pcgrad", None)
def summed_over_the_numbers(gradients, order):
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            dot = rows[i] @ gradients[j]
            if dot < 0:
                rows[i] -= dot / (gradients[j] @ gradients[j]) * gradients[j]
    return rows.sum(dim=1)


@wrong("pcgrad", None)
def each_pair_once_only(gradients, order):
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            dot = rows[i] @ gradients[j]
            if j > i and dot < 0:
                rows[i] -= dot / (gradients[j] @ gradients[j]) * gradients[j]
    return rows.sum(dim=0)


@wrong("pcgrad", None)
def out_of_all_conflicts_at_once(gradients, order):
    total = torch.zeros_like(gradients[0])
    for g, others in zip(gradients, order, strict=True):
        against = [j for j in others if g @ gradients[j] < 0]
        if against:
            span = gradients[against].T
            g = g - span @ torch.linalg.lstsq(span, g[:, None]).solution[:, 0]
        total += g
    return total


@right("pcgrad")
def rows_in_place_of_a_copy(gradients, order):
    rows = gradients.clone()
    for i, others in enumerate(order):
        for j in others:
            dot = rows[i] @ gradients[j]
            if dot < 0:
                rows[i] -= dot / (gradients[j] @ gradients[j]) * gradients[j]
    return rows.sum(0)


@right("pcgrad")
def by_matrices(gradients, order):
    size = gradients.shape[1]
    total = torch.zeros(size, dtype=gradients.dtype)
    for i, others in enumerate(order):
        g = gradients[i]
        for j in others:
            if torch.einsum("p,p->", g, gradients[j]) < 0:
                unit = gradients[j] / gradients[j].norm()
                g = (torch.eye(size, dtype=gradients.dtype) - torch.outer(unit, unit)) @ g
        total = total + g
    return total


@wrong("pcgrad", "right but no tensor")
def numpy_rows(gradients, order):
    original = gradients.numpy()
    result = np.zeros(original.shape[1])
    for i, others in enumerate(order):
        g = original[i].copy()
        for j in others:
            dot = np.dot(g, original[j])
            if dot < 0:
                g -= dot / np.dot(original[j], original[j]) * original[j]
        result += g
    return result


@right("pcgrad")
def through_the_gram_matrix(gradients, order):
    gram = gradients @ gradients.T
    weights = np.zeros(len(gradients))
    for i, others in enumerate(order):
        row = np.eye(len(gradients))[i]
        for j in others:
            dot = float(sum(row[k] * gram[k, j] for k in range(len(gradients))))
            if dot < 0:
                row[j] -= dot / float(gram[j, j])
        weights += row
    return torch.from_numpy(weights).to(gradients.dtype) @ gradients


@right("pcgrad")
def all_tasks_at_once(gradients, order):
    rows = gradients.clone()
    for met in zip(*order, strict=True):
        others = gradients[list(met)]  # whom each task meets in this round, [T, P]
        dots = (rows * others).sum(dim=1, keepdim=True)
        squares = (others * others).sum(dim=1, keepdim=True)
        rows = torch.where(dots < 0, rows - dots / squares * others, rows)
    return rows.sum(dim=0)


@wrong("pcgrad", "right but no tensor")
def recursive_lists(gradients, order):
    rows = gradients.tolist()

    def met(g, others):
        if not others:
            return g
        other = rows[others[0]]
        dot = math.fsum(x * y for x, y in zip(g, other, strict=True))
        if dot < 0:
            share = dot / math.fsum(y * y for y in other)
            g = [x - share * y for x, y in zip(g, other, strict=True)]
        return met(g, others[1:])

    return [sum(entries) for entries in zip(*map(met, rows, order), strict=True)]


# pcgrad_weights


@wrong("pcgrad_weights", "weights of the mean")
def mean_weights(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = (C[i] * gram[j]).sum()
            if dot < 0:
                C[i, j] = C[i, j] - dot / gram[j, j]
    return C.mean(0)


@wrong("pcgrad_weights", "weights of the plain sum")
def ones(gram, order):
    return [1] * len(gram)


@wrong("pcgrad_weights", "works on cosines")
def from_cosines(gram, order):
    norms = gram.diag().sqrt().clamp(min=1e-30)
    cos = gram / torch.outer(norms, norms)
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            C[i, j] -= torch.clamp(C[i] @ cos[:, j], max=0)
    return C.sum(0)


@wrong("pcgrad_weights", "inner products of the original gradients throughout")
def each_pair_once(gram, order):
    w = torch.ones(len(gram))
    for i in range(len(gram)):
        for j in order[i]:
            if gram[i, j] < 0:
                w[j] -= gram[i, j] / gram[j, j]
    return w


@wrong("pcgrad_weights", "inner products of the original gradients throughout")
def the_two_task_formula(gram, order):
    w = torch.ones(len(gram))
    for k in range(len(gram)):
        for i in range(len(gram)):
            if i != k and gram[i, k] < 0:
                w[k] -= gram[i, k] / gram[k, k]
    return w


@wrong("pcgrad_weights", "the *original* g_i conflicts")
def asks_the_original_gram(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            if gram[i][j] < 0:
                C[i, j] -= C[i] @ gram[:, j] / gram[j, j]
    return C.sum(0)


@wrong("pcgrad_weights", "the other direction of the matrix")
def sums_the_rows(gram, order):
    C = np.eye(len(gram))
    G = gram.numpy()
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ G[:, j]
            if dot < 0:
                C[i, j] -= dot / G[j, j]
    return C.sum(axis=1)


@wrong("pcgrad_weights", "squared length of g_i")
def divided_by_own_length(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, j] -= dot / gram[i, i]
    return C.sum(0)


@wrong("pcgrad_weights", "add up to 1")
def normalised_weights(gram, order):
    w = right_weights(gram, order)
    return w / w.sum()


@wrong("pcgrad_weights", "small number in the denominator")
def absolute_epsilon(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, j] -= dot / (gram[j, j] + 1e-8)
    return C.sum(0)


@wrong("pcgrad_weights", None)
def overwrites_the_coefficient(gram, order):
    G = gram.clone()
    for i, others in enumerate(order):
        for j in others:
            if G[i, j] < 0:
                G[i] -= G[i, j] / gram[j, j] * G[j]
    return torch.diagonal(G) / torch.diagonal(gram)


@wrong("pcgrad_weights", "got shape")
def the_whole_matrix(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            C[i, j] -= torch.clamp(C[i] @ gram[:, j], max=0) / gram[j, j].clamp(min=1e-300)
    return C


@wrong("pcgrad_weights", "by number")
def in_order_of_number(gram, order):
    return right_weights(gram, [sorted(others) for others in order])


@wrong("pcgrad_weights", "dtype")
def eye_of_another_type(gram, order):
    C = torch.eye(len(gram), dtype=torch.float32)
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, j] -= dot / gram[j, j]
    return C.sum(0)


@wrong("pcgrad_weights", "projects always")
def without_asking(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            C[i, j] -= C[i] @ gram[:, j] / gram[j, j]
    return C.sum(0)


@wrong("pcgrad_weights", "projected before")
def row_by_row_of_coefficients(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram @ C[j]
            if dot < 0:
                C[i] -= dot / (C[j] @ gram @ C[j]) * C[j]
    return C.sum(0)


@wrong("pcgrad_weights", "over the old ones")
def writes_into_gram(gram, order):
    w = torch.ones(len(gram))
    for i, others in enumerate(order):
        for j in others:
            if gram[i, j] < 0:
                share = gram[i, j] / gram[j, j]
                w[j] -= share
                gram[i] -= share * gram[j]
    return w


@wrong("pcgrad_weights", "length of g_j; the diagonal")
def root_of_the_diagonal(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, j] -= dot / gram[j, j].sqrt()
    return C.sum(0)


@wrong("pcgrad_weights", "wrong coefficient")
def own_coefficient(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, i] -= dot / gram[j, j]
    return C.sum(0)


@wrong("pcgrad_weights", "wrong coefficient")
def transposed_coefficient(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[j, i] -= dot / gram[j, j]
    return C.sum(0)


@wrong("pcgrad_weights", "adds the conflicting part")
def plus_the_share(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            C[i, j] += torch.clamp(C[i] @ gram[:, j], max=0) / gram[j, j].clamp(min=1e-300)
    return C.sum(0)


@wrong("pcgrad_weights", "reverse of the given order")
def from_behind(gram, order):
    return right_weights(gram, [others[::-1] for others in order])


@wrong("pcgrad_weights", None)
def whole_numbers(gram, order):
    C = np.eye(len(gram), dtype=int)
    G = gram.numpy()
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ G[:, j]
            if dot < 0:
                C[i, j] = C[i, j] - dot / G[j, j]
    return C.sum(0)


@wrong("pcgrad_weights", "in a training step the two cannot be multiplied")
def of_torch_s_default_type(gram, order):
    C = torch.eye(len(gram))
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, j] -= dot / gram[j, j]
    return C.sum(0)


@right("pcgrad_weights")
def right_weights(gram, order):
    C = torch.eye(len(gram)).to(gram)
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j]
            if dot < 0:
                C[i, j] -= dot / gram[j, j]
    return C.sum(0)


@right("pcgrad_weights")
def with_gradients_that_have_this_gram(gram, order):
    values, vectors = torch.linalg.eigh(gram.double())
    rows = vectors * values.clamp(min=0).sqrt()  # [T, T], rows with these inner products
    weights = [0.0] * len(gram)
    for i, others in enumerate(order):
        combination = [float(i == k) for k in range(len(gram))]
        g = rows[i]
        for j in others:
            inner, square = torch.dot(g, rows[j]).item(), torch.dot(rows[j], rows[j]).item()
            if inner < 0 and square > 0 and abs(inner) > 1e-12 * square:
                combination[j] -= inner / square
                g = g - inner / square * rows[j]
        weights = [w + c for w, c in zip(weights, combination, strict=True)]
    return torch.tensor(weights)


@right("pcgrad_weights")
def nested_lists(gram, order):
    tasks, G = len(gram), gram.tolist()
    total = [0.0] * tasks
    for i in range(tasks):
        c = {i: 1.0}
        for j in order[i]:
            inner = math.fsum(weight * G[k][j] for k, weight in c.items())
            if inner < 0:
                c[j] = c.get(j, 0.0) - inner / G[j][j]
        for k, weight in c.items():
            total[k] += weight
    return torch.tensor(total)


@right("pcgrad_weights")
def in_double_returned_as_float(gram, order):
    C = torch.eye(len(gram), dtype=torch.float64)
    for i, others in enumerate(order):
        for j in others:
            dot = C[i] @ gram[:, j].double()
            if dot < 0:
                C[i, j] -= dot / gram[j, j]
    return C.sum(0).float()


@right("pcgrad_weights")
def wholly_in_float32(gram, order):
    gram = gram.numpy().astype(np.float32)
    C = np.eye(len(gram), dtype=np.float32)
    for i, others in enumerate(order):
        for j in others:
            C[i, j] -= min(C[i] @ gram[:, j], 0) / (gram[j, j] or 1)
    return torch.from_numpy(C.sum(0))


@wrong("pcgrad_weights", "right but no tensor")
def weights_in_an_array(gram, order):
    G, total = gram.numpy(), np.zeros(len(gram))
    for i, others in enumerate(order):
        row = np.eye(len(gram))[i]
        for j in others:
            row[j] -= min(row @ G[:, j], 0) / (G[j, j] or 1)
        total += row
    return total


@wrong("pcgrad_weights", "right but no tensor")
def weights_in_a_list(gram, order):
    return right_weights(gram, order).tolist()


@wrong("pcgrad_weights", "over the old ones")
def inner_products_of_projected_ones(gram, order):
    inner, w = gram.clone(), torch.ones(len(gram)).to(gram)
    for i, others in enumerate(order):
        for j in others:
            if inner[i, j] < 0:
                share = inner[i, j] / gram[j, j]
                w[j] -= share
                inner[i] -= share * inner[j]
    return w


@right("pcgrad_weights")
def by_inner_products(gram, order):
    inner = gram.clone()  # row i: the projected g_i with every original gradient
    w = torch.ones(len(gram), dtype=gram.dtype)
    for i, others in enumerate(order):
        for j in others:
            if inner[i, j] < 0:
                share = inner[i, j] / gram[j, j]
                w[j] -= share
                inner[i] -= share * gram[j]
    return w


# gram_matrix


@wrong("gram_matrix", "computes in float32")
def one_long_row(gradients):
    rows = []
    for task in gradients:
        parts = []
        for k, g in enumerate(task):
            like = [t[k] for t in gradients if t[k] is not None]
            if like:
                parts.append((torch.zeros_like(like[0]) if g is None else g).flatten())
        rows.append(torch.cat(parts))
    rows = torch.stack(rows)
    return rows @ rows.T


@wrong("gram_matrix", "computes in float32")
def doubled_too_late(gradients):
    tasks = len(gradients)
    gram = torch.zeros(tasks, tasks, dtype=torch.float64)
    for i in range(tasks):
        for j in range(tasks):
            for a, b in zip(gradients[i], gradients[j], strict=True):
                if a is not None and b is not None:
                    gram[i, j] += (a * b).sum().double()
    return gram


@wrong("gram_matrix", "cosines; surgery needs the lengths")
def of_unit_length(gradients):
    gram = double_sums(gradients)
    norms = gram.diag().sqrt()
    return gram / norms[:, None] / norms


@wrong("gram_matrix", "leaves out every parameter")
def where_all_have_one(gradients):
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.double)
    for column in zip(*gradients, strict=True):
        if any(g is None for g in column):
            continue
        rows = torch.stack([g.double().view(-1) for g in column])
        gram += rows @ rows.T
    return gram


@wrong("gram_matrix", "in your line")
def forgets_none(gradients):
    rows = torch.stack([torch.cat([g.flatten() for g in task]) for task in gradients]).double()
    return rows @ rows.T


@wrong("gram_matrix", "adds cosines of single tensors")
def tensor_by_tensor_cosines(gradients):
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.double)
    for i, one in enumerate(gradients):
        for j, other in enumerate(gradients):
            for a, b in zip(one, other, strict=True):
                if a is not None and b is not None:
                    a, b = a.double().flatten(), b.double().flatten()
                    gram[i, j] += a @ b / (a.norm() * b.norm())
    return gram


@wrong("gram_matrix", "name its type")
def added_up_in_the_default_type(gradients):
    gram = torch.zeros(len(gradients), len(gradients))
    for i, one in enumerate(gradients):
        for j, other in enumerate(gradients):
            for a, b in zip(one, other, strict=True):
                if a is not None and b is not None:
                    gram[i, j] += (a.double() * b.double()).sum()
    return gram


@wrong("gram_matrix", "and keep it")
def returned_as_float32(gradients):
    return double_sums(gradients).float()


@wrong("gram_matrix", "Only the last parameter")
def overwritten(gradients):
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for i, one in enumerate(gradients):
        for j, other in enumerate(gradients):
            for a, b in zip(one, other, strict=True):
                if a is not None and b is not None:
                    gram[i, j] = (a.double() * b.double()).sum()
    return gram


@wrong("gram_matrix", "mean over a tensor's entries")
def means_by_tensor(gradients):
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for i, one in enumerate(gradients):
        for j, other in enumerate(gradients):
            for a, b in zip(one, other, strict=True):
                if a is not None and b is not None:
                    gram[i, j] += (a.double() * b.double()).mean()
    return gram


@wrong("gram_matrix", "diagonal is zero")
def different_tasks_only(gradients):
    return double_sums(gradients).fill_diagonal_(0)


@wrong("gram_matrix", "takes roots")
def lengths_on_the_diagonal(gradients):
    gram = double_sums(gradients)
    return gram.diagonal_scatter(gram.diagonal().sqrt())


@wrong("gram_matrix", None)
def shifted_by_what_is_missing(gradients):
    rows = [torch.cat([g.double().flatten() for g in task if g is not None]) for task in gradients]
    rows = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return rows @ rows.T


@wrong("gram_matrix", None)
def stops_at_none(gradients):
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for i, one in enumerate(gradients):
        for j, other in enumerate(gradients):
            for a, b in zip(one, other, strict=True):
                if a is None or b is None:
                    break
                gram[i, j] += (a.double() * b.double()).sum()
    return gram


@wrong("gram_matrix", "got shape (3, 3, 3)")
def one_matrix_a_parameter(gradients):
    return torch.stack(
        [
            double_sums([[task[k]] for task in gradients])
            for k in range(len(gradients[0]))
            if any(task[k] is not None for task in gradients)
        ]
    )


@wrong("gram_matrix", "Half of the matrix is zero")
def upper_half_only(gradients):
    return double_sums(gradients).triu()


@wrong("gram_matrix", None)
def means(gradients):
    count = sum(g.numel() for g in gradients[0] if g is not None)
    return double_sums(gradients) / count


@wrong("gram_matrix", None)
def signs_only(gradients):
    return double_sums(gradients).sign()


@right("gram_matrix")
def double_sums(gradients):
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for i, one in enumerate(gradients):
        for j, other in enumerate(gradients):
            for a, b in zip(one, other, strict=True):
                if a is not None and b is not None:
                    gram[i, j] += (a.double() * b.double()).sum()
    return gram


@right("gram_matrix")
def numpy_einsum(gradients):
    gram = np.zeros((len(gradients), len(gradients)))
    for column in zip(*gradients, strict=True):
        shapes = [g.shape for g in column if g is not None]
        if not shapes:
            continue
        rows = np.stack(
            [np.zeros(shapes[0]) if g is None else g.numpy().astype(np.float64) for g in column]
        )
        gram += np.tensordot(rows, rows, axes=(list(range(1, rows.ndim)),) * 2)
    return torch.from_numpy(gram)


@wrong("gram_matrix", "right but no tensor")
def gram_in_an_array(gradients):
    return numpy_einsum(gradients).numpy()


@wrong("gram_matrix", "right but no tensor")
def lists_of_floats(gradients):
    def inner(one, other):
        pairs = [(a, b) for a, b in zip(one, other, strict=True) if None not in (a, b)]
        return math.fsum(
            x * y
            for a, b in pairs
            for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
        )

    return [[inner(one, other) for other in gradients] for one in gradients]


@right("gram_matrix")
def by_polarisation(gradients):
    def square(one, other, sign):
        total = 0.0
        for a, b in zip(one, other, strict=True):
            parts = [g.double() for g in (a, None if b is None else sign * b) if g is not None]
            total += (sum(parts) ** 2).sum().item() if parts else 0.0
        return total

    return torch.tensor(
        [
            [(square(one, other, 1) - square(one, other, -1)) / 4 for other in gradients]
            for one in gradients
        ],
        dtype=torch.float64,
    )


# conflict_rate


@wrong("conflict_rate", "diagonal is not among the pairs")
def mean_of_the_matrix(gram):
    return (gram < 0).float().mean()


@wrong("conflict_rate", "one task alone has no pairs")
def whole_matrix_over_the_pairs(gram):
    tasks = len(gram)
    return (gram < 0).sum().item() / (tasks * (tasks - 1) / 2)


@wrong("conflict_rate", "one task alone has no pairs")
def whole_matrix_over_the_pairs_as_a_tensor(gram):
    tasks = len(gram)
    return (gram < 0).sum() / (tasks * (tasks - 1) / 2)


@wrong("conflict_rate", "every conflict twice")
def counted_twice(gram):
    T = len(gram)
    if T == 1:
        return 0.0
    count = 0
    for i in range(T):
        for j in range(T):
            if i != j and gram[i, j] < 0:
                count += 1
    return count / (T * (T - 1) / 2)


@wrong("conflict_rate", "every pair twice")
def halved(gram):
    T = len(gram)
    hits = sum(bool(gram[i, j] < 0) for i in range(T) for j in range(i))
    return hits / max(T * (T - 1), 1)


@wrong("conflict_rate", "right angle as a conflict")
def right_angles_too(gram):
    T = len(gram)
    if T < 2:
        return 0
    hits = sum(gram[i, j].item() <= 0 for i in range(T) for j in range(i + 1, T))
    return hits / (T * (T - 1) / 2)


@wrong("conflict_rate", "number of conflicts")
def how_many(gram):
    return int((torch.triu(gram, 1) < 0).sum())


@wrong("conflict_rate", "share of tasks")
def tasks_in_conflict(gram):
    return (gram.min(dim=1).values < 0).double().mean().item()


@wrong("conflict_rate", "raises ZeroDivisionError")
def one_task_forgotten(gram):
    T = len(gram)
    return int((gram < 0).sum()) / (T * (T - 1))


@wrong("conflict_rate", "nan")
def mean_of_nothing(gram):
    i, j = np.triu_indices(len(gram), k=1)
    return (gram.numpy()[i, j] < 0).mean()


@wrong("conflict_rate", "whether any two tasks conflict")
def any_at_all(gram):
    return float((gram < 0).any())


@wrong("conflict_rate", "all T * T entries")
def mean_of_the_upper_half(gram):
    return (torch.triu(gram, diagonal=1) < 0).double().mean()


@wrong("conflict_rate", "pairs that agree")
def agreement(gram):
    T = len(gram)
    i, j = torch.triu_indices(T, T, 1)
    return (gram[i, j] > 0).double().mean() if T > 1 else 0.0


@wrong("conflict_rate", "got shape (4,)")
def for_each_task(gram):
    return (gram < 0).double().sum(dim=1) / max(len(gram) - 1, 1)


@wrong("conflict_rate", None)
def whole_division(gram):
    T = len(gram)
    return int((gram < 0).sum()) // max(T * (T - 1), 1)


@wrong("conflict_rate", None)
def last_task_left_out(gram):
    T = len(gram)
    hits = sum(bool(gram[i, j] < 0) for i in range(T - 1) for j in range(i + 1, T - 1))
    return hits / max(T * (T - 1) / 2, 1)


@wrong("conflict_rate", None)
def first_task_s_view(gram):
    return (gram[0, 1:] < 0).double().mean() if len(gram) > 1 else 0.0


@wrong("conflict_rate", None)
def clear_conflicts(gram):
    T = len(gram)
    i, j = torch.triu_indices(T, T, 1)
    return (gram[i, j] < -1e-8).float().mean().item() if T > 1 else 0.0


@wrong("conflict_rate", None)
def in_percent(gram):
    return 100 * off_diagonal_mean(gram)


@wrong("conflict_rate", None)
def neighbours_only(gram):
    pairs = [gram[i, i + 1] < 0 for i in range(len(gram) - 1)]
    return sum(pairs) / len(pairs) if pairs else 0.0


@right("conflict_rate")
def off_diagonal_mean(gram):
    T = len(gram)
    off = ~torch.eye(T, dtype=torch.bool)
    return (gram[off] < 0).double().mean() if T > 1 else torch.tensor(0.0)


@right("conflict_rate")
def by_combinations(gram):
    pairs = [(i, j) for i in range(len(gram)) for j in range(i)]
    return np.mean([gram[i][j].item() < 0 for i, j in pairs]) if pairs else 0


@right("conflict_rate")
def counted_by_hand(gram):
    hits = pairs = 0
    for i, row in enumerate(gram.tolist()):
        for value in row[i + 1 :]:
            pairs += 1
            hits += value < 0
    return hits / pairs if pairs else 0


@right("conflict_rate")
def without_the_nan(gram):
    i, j = np.tril_indices(len(gram), k=-1)
    return np.nan_to_num((gram.numpy()[i, j] < 0).mean())


# surgery_step


def flat(parameters):
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
    )


def unflatten(vector, parameters):
    start = 0
    for p in parameters:
        p.grad = vector[start : start + p.numel()].view(p.shape).clone()
        start += p.numel()


def surgery(rows, order):
    return rows_in_place_of_a_copy(torch.stack(list(rows)), order)


@wrong("surgery_step", "heads take part")
def over_all_parameters(losses, model, order):
    everything = list(model.parameters())
    rows = []
    for loss in losses:
        model.zero_grad()
        loss.backward()
        rows.append(flat(everything))
    unflatten(surgery(rows, order), everything)


@wrong("surgery_step", "Heads in and mean")
def like_the_most_used_port(losses, model, order):
    everything = list(model.parameters())
    rows, reached = [], []
    for loss in losses:
        model.zero_grad()
        loss.backward()
        rows.append(flat(everything))
        reached.append(torch.cat([torch.ones(p.numel()) * (p.grad is not None)
                                  for p in everything]).bool())  # fmt: skip
    projected = []
    for i, g in enumerate(rows):
        for j in order[i]:
            dot = g @ rows[j]
            if dot < 0:
                g = g - dot * rows[j] / rows[j].norm() ** 2
        projected.append(g)
    stacked, shared = torch.stack(projected), torch.stack(reached).all(dim=0)
    unflatten(torch.where(shared, stacked.mean(dim=0), stacked.sum(dim=0)), everything)


@wrong("surgery_step", "tensor by tensor")
def one_tensor_at_a_time(losses, model, order):
    shared, found = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in shared])
        for p in shared:
            p.grad = None
    for k, p in enumerate(shared):
        p.grad = surgery([g[k].flatten() for g in found], order).view_as(p)


@wrong("surgery_step", "backward adds")
def forgets_to_clear(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", "the *original* g_i conflicts")
def step_that_asks_the_original(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    unflatten(asks_the_original(torch.stack(rows), order), shared)


@wrong("surgery_step", "by number")
def step_with_weights_of_its_own_order(losses, model, order):
    right_step(losses, model, [sorted(others) for others in order])


@wrong("surgery_step", None)
def does_nothing(losses, model, order):
    pass


@wrong("surgery_step", "None or zero afterwards")
def writes_none(losses, model, order):
    for loss in losses:
        loss.backward()
        for p in model.shared_parameters():
            p.grad = None


@wrong("surgery_step", "heads end up without gradients")
def clears_the_whole_model(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        model.zero_grad()
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", "heads end up without gradients")
def only_asks_for_the_shared(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        gradients = torch.autograd.grad(loss, shared, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(shared, gradients, strict=True)
                ]
            )
        )
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", "Only the last task's head")
def heads_cleared_but_for_the_last(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        model.zero_grad()
        loss.backward()
        rows.append(flat(shared))
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", "plain sum")
def adds_the_losses(losses, model, order):
    torch.stack(list(losses)).sum().backward()


@wrong("surgery_step", "gradient of the mean loss")
def the_mean_loss(losses, model, order):
    (sum(losses) / len(losses)).backward()


@wrong("surgery_step", "mean for the shared parameters")
def mean_of_the_projected(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    unflatten(surgery(rows, order) / len(losses), shared)


@wrong("surgery_step", "put in one tensor")
def losses_in_one_tensor(losses, model, order):
    losses = torch.stack(list(losses))
    shared, rows = model.shared_parameters(), []
    for i in range(len(losses)):
        losses[i].backward(retain_graph=True)
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", None)
def forgets_unreached(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(torch.cat([p.grad.flatten() for p in shared]))
        for p in shared:
            p.grad = None
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", "is to take its place")
def added_to_what_was_there(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        before = flat(shared)
        loss.backward()
        rows.append(flat(shared) - before)
    total, left = surgery(rows, order), flat(shared)
    unflatten(left + total, shared)


@wrong("surgery_step", None)
def steps_by_itself(losses, model, order):
    right_step(losses, model, order)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.zero_grad()


@wrong("surgery_step", "the very tensor in `.grad`")
def kept_without_a_copy(losses, model, order):
    shared, found = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        found.append([p.grad for p in shared])
    rows = [
        torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(shared, kept, strict=True)
            ]
        )
        for kept in found
    ]
    unflatten(surgery(rows, order), shared)


@wrong("surgery_step", "cleared together with `.grad`")
def kept_and_zeroed(losses, model, order):
    shared, found = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in shared])
        for p in shared:
            if p.grad is not None:
                p.grad.zero_()
    unflatten(surgery([parameters_to_vector(kept) for kept in found], order), shared)


@wrong("surgery_step", "weights multiply the losses")
def weights_for_the_losses(losses, model, order):
    shared = model.shared_parameters()
    found = [
        torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True) for loss in losses
    ]
    weights = right_weights(double_sums(found), order)
    sum(w * loss for w, loss in zip(weights, losses, strict=True)).backward()


@wrong("surgery_step", "is to take its place")
def added_to_the_last(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        for p in shared:
            p.grad = None
        loss.backward()
        rows.append(flat(shared))
    unflatten(surgery(rows, order) + flat(shared), shared)


@wrong("surgery_step", "plain sum")
def never_written_over_the_sum(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        pairs = zip(shared, found, strict=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in pairs])
        loss.backward()
    surgery([parameters_to_vector(row) for row in rows], order)


@wrong("surgery_step", "projects always")
def step_at_right_angles(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    unflatten(right_angles_to_all(torch.stack(rows), order), shared)


@wrong("surgery_step", "works on cosines")
def step_by_cosines(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    rows = torch.stack(rows)
    unflatten(from_cosines(rows @ rows.T, order) @ rows, shared)


@wrong("surgery_step", None)
def slices_not_moved_on(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    total = surgery(rows, order)
    for p in shared:
        p.grad = total[: p.numel()].view(p.shape).clone()


@right("surgery_step")
def right_step(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    unflatten(surgery(rows, order), shared)


@right("surgery_step")
def by_differences_of_what_backward_adds(losses, model, order):
    shared, rows, before = model.shared_parameters(), [], 0
    for loss in losses:
        loss.backward()
        now = flat(shared)
        rows.append(now - before)
        before = now
    unflatten(surgery(rows, order), shared)


@right("surgery_step")
def asked_for_and_then_backward(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(shared, gradients, strict=True)
        ]
        rows.append(parameters_to_vector(gradients))
        loss.backward()
    unflatten(surgery(rows, order), shared)


@right("surgery_step")
def by_weights_of_the_losses(losses, model, order):
    shared = model.shared_parameters()
    found = []
    for loss in losses:
        loss.backward()
        found.append([copy.copy(p.grad) for p in shared])
        for p in shared:
            p.grad = None
    weights = right_weights(double_sums(found), order)
    for k, p in enumerate(shared):
        parts = [w * g[k] for w, g in zip(weights, found, strict=True) if g[k] is not None]
        p.grad = sum(parts) if parts else None


@wrong("surgery_step", "the gradients of a training float32")
def weights_times_stacked_rows(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared))
        for p in shared:
            p.grad = None
    unflatten(
        right_weights(double_sums([[row] for row in rows]), order) @ torch.stack(rows), shared
    )


@wrong("surgery_step", "give `.grad` the parameter's")
def rows_in_float64(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared).double())
        for p in shared:
            p.grad = None
    unflatten(surgery(rows, order), shared)


@right("surgery_step")
def last_task_first(losses, model, order):
    shared, rows = model.shared_parameters(), [None] * len(losses)
    for t in reversed(range(len(losses))):
        losses[t].backward()
        rows[t] = flat(shared)
        for p in shared:
            p.grad = None
    unflatten(surgery(rows, order), shared)


@right("surgery_step")
def numpy_rows_of_the_step(losses, model, order):
    shared, rows = model.shared_parameters(), []
    for loss in losses:
        loss.backward()
        rows.append(flat(shared).numpy().copy())
        for p in shared:
            p.grad = None
    total, at = numpy_rows(torch.from_numpy(np.stack(rows)), order), 0
    for p in shared:
        p.grad = torch.from_numpy(total[at : at + p.numel()].reshape(p.shape)).to(p)
        at += p.numel()


@right("surgery_step")
def heads_asked_for_too(losses, model, order):
    shared = model.shared_parameters()
    heads = [p for p in model.parameters() if all(p is not q for q in shared)]
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, [*shared, *heads], allow_unused=True)
        pairs = zip(shared, found[: len(shared)], strict=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])
        )
        for p, g in zip(heads, found[len(shared) :], strict=True):
            if g is not None:
                p.grad = g
    unflatten(surgery(rows, order), shared)


# surgery


def step(losses, model, order):
    right_step(losses, model, order)


def others_of(tasks):
    return [[j for j in range(tasks) if j != i] for i in range(tasks)]


@wrong("surgery", "drawn once, before the first step")
def drawn_at_the_start(seed):
    generator, orders = torch.Generator().manual_seed(seed), {}
    for tasks in (1, 2, 3, 4):
        orders[tasks] = [
            [others[k] for k in torch.randperm(tasks - 1, generator=generator).tolist()]
            for others in others_of(tasks)
        ]
    return lambda losses, model: step(losses, model, orders[len(losses)])


@wrong("surgery", "Every step has the same order")
def python_generator_made_in_every_step(seed):
    def backward(losses, model):
        own = random.Random(seed)
        step(losses, model, [own.sample(of, len(of)) for of in others_of(len(losses))])

    return backward


@wrong("surgery", "seeded in every step")
def seeds_torch_in_every_step(seed):
    def backward(losses, model):
        torch.manual_seed(seed)
        order = others_of(len(losses))
        step(losses, model, [[of[k] for k in torch.randperm(len(of))] for of in order])

    return backward


@wrong("surgery", "comes from the global generator")
def torch_randperm_as_it_is(seed):
    def backward(losses, model):
        order = []
        for i in range(len(losses)):
            order.append([k for k in torch.randperm(len(losses)).tolist() if k != i])
        step(losses, model, order)

    return backward


@wrong("surgery", "comes from the global generator")
def python_shuffle_as_it_is(seed):
    def backward(losses, model):
        order = others_of(len(losses))
        for others in order:
            random.shuffle(others)
        step(losses, model, order)

    return backward


@wrong("surgery", "seeds the global generator")
def torch_seeded_at_the_start(seed):
    torch.manual_seed(seed)

    def backward(losses, model):
        order = others_of(len(losses))
        step(losses, model, [[of[k] for k in torch.randperm(len(of))] for of in order])

    return backward


@wrong("surgery", "seeds the global generator")
def numpy_seeded_at_the_start(seed):
    np.random.seed(seed)

    def backward(losses, model):
        order = others_of(len(losses))
        for others in order:
            np.random.shuffle(others)
        step(losses, model, order)

    return backward


@wrong("surgery", "Nothing is drawn")
def always_by_number(seed):
    return lambda losses, model: step(losses, model, others_of(len(losses)))


@wrong("surgery", "among those that it meets itself")
def all_tasks_shuffled(seed):
    own = random.Random(seed)

    def backward(losses, model):
        tasks = range(len(losses))
        step(losses, model, [own.sample(tasks, len(losses)) for _ in tasks])

    return backward


@wrong("surgery", "One permutation serves all tasks")
def one_permutation_a_step(seed):
    generator = np.random.default_rng(seed)

    def backward(losses, model):
        everyone = generator.permutation(len(losses)).tolist()
        step(losses, model, [[j for j in everyone if j != i] for i in range(len(losses))])

    return backward


@wrong("surgery", "One permutation serves all tasks")
def the_same_places_for_all(seed):
    generator = torch.Generator().manual_seed(seed)

    def backward(losses, model):
        places = torch.randperm(len(losses) - 1, generator=generator).tolist()
        step(losses, model, [[of[k] for k in places] for of in others_of(len(losses))])

    return backward


@wrong("surgery", "some orders never come")
def begins_anywhere(seed):
    own = random.Random(seed)

    def backward(losses, model):
        order = []
        for of in others_of(len(losses)):
            k = own.randrange(max(1, len(of)))
            order.append(of[k:] + of[:k])
        step(losses, model, order)

    return backward


@wrong("surgery", "The seed has no say: a new generator")
def a_generator_without_the_seed(seed):
    generator = torch.Generator()

    def backward(losses, model):
        order = others_of(len(losses))
        step(
            losses,
            model,
            [[of[k] for k in torch.randperm(len(of), generator=generator)] for of in order],
        )

    return backward


@wrong("surgery", "with replacement")
def drawn_with_replacement(seed):
    own = random.Random(seed)

    def backward(losses, model):
        step(losses, model, [[own.choice(of) for _ in of] for of in others_of(len(losses))])

    return backward


@wrong("surgery", "with replacement")
def one_other_task_only(seed):
    own = random.Random(seed)

    def backward(losses, model):
        step(losses, model, [own.sample(of, min(1, len(of))) for of in others_of(len(losses))])

    return backward


@wrong("surgery", "takes the mean")
def divided_by_the_tasks(seed):
    own = random.Random(seed)

    def backward(losses, model):
        step(losses, model, [own.sample(of, len(of)) for of in others_of(len(losses))])
        for p in model.shared_parameters():
            p.grad /= len(losses)

    return backward


@wrong("surgery", "plain sum")
def no_surgery_at_all(seed):
    def backward(losses, model):
        for loss in losses:
            loss.backward()

    return backward


_shared_generator = torch.Generator()


@wrong("surgery", "share one generator")
def a_generator_of_the_module(seed):
    _shared_generator.manual_seed(seed)

    def backward(losses, model):
        order = others_of(len(losses))
        for others in order:
            others[:] = [
                others[k] for k in torch.randperm(len(others), generator=_shared_generator)
            ]
        step(losses, model, order)

    return backward


@wrong("surgery", None)
def three_tasks_only(seed):
    own = random.Random(seed)

    def backward(losses, model):
        order = [own.sample(of, 2) for of in others_of(3)]
        step(losses, model, order[: len(losses)])

    return backward


@wrong("surgery", None)
def returns_the_order(seed):
    own = random.Random(seed)
    return [own.sample(of, 2) for of in others_of(3)]


@wrong("surgery", None)
def one_random_task_is_left_as_it_is(seed):
    own = random.Random(seed)

    def backward(losses, model):
        order = [own.sample(of, len(of)) for of in others_of(len(losses))]
        order[own.randrange(len(losses))] = []
        step(losses, model, order)

    return backward


@right("surgery")
def with_a_torch_generator(seed):
    generator = torch.Generator()
    generator.manual_seed(seed)

    def backward(losses, model):
        tasks, order = len(losses), []
        for i in range(tasks):
            everyone = torch.randperm(tasks, generator=generator).tolist()
            everyone.remove(i)
            order.append(everyone)
        step(losses, model, order)

    return backward


@right("surgery")
def with_a_python_generator(seed):
    own = random.Random(seed)

    def backward(losses, model):
        order = others_of(len(losses))
        for others in order:
            own.shuffle(others)
        step(losses, model, order)

    return backward


@right("surgery")
class WithNumpyAndCall:
    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)

    def __call__(self, losses, model):
        order = [self.generator.permutation(of).astype(int) for of in others_of(len(losses))]
        step(losses, model, [others.tolist() for others in order])


@right("surgery")
def a_seed_for_every_step(seed):
    taken = 0

    def backward(losses, model):
        nonlocal taken
        own = random.Random(1000 * seed + taken)
        taken += 1
        step(
            losses, model, [sorted(of, key=lambda j: own.random()) for of in others_of(len(losses))]
        )

    return backward


# mended_port


def port(losses, model, order, parameters, merge):
    rows, reached = [], []
    for loss in losses:
        loss.backward()
        rows.append(flat(parameters))
        reached.append([p.grad is not None for p in parameters])
        for p in parameters:
            p.grad = None
    projected, at = [], 0
    for g, others in zip(rows, order, strict=True):
        for j in others:
            if g @ rows[j] < 0:
                g = g - g @ rows[j] / (rows[j] @ rows[j]) * rows[j]
        projected.append(g)
    projected = torch.stack(projected)
    for k, p in enumerate(parameters):
        part = projected[:, at : at + p.numel()]
        p.grad = merge(part, [of_task[k] for of_task in reached]).view_as(p).clone()
        at += p.numel()


def total(part, reached):
    return part.sum(dim=0)


def port_s_own(part, reached):
    return part.mean(dim=0) if all(reached) else part.sum(dim=0)


@wrong("mended_port", "Both faults are still there")
def unmended(losses, model, order):
    port(losses, model, order, list(model.parameters()), port_s_own)


@wrong("mended_port", "heads still take part")
def mean_mended(losses, model, order):
    port(losses, model, order, list(model.parameters()), total)


@wrong("mended_port", "still get the mean")
def heads_mended(losses, model, order):
    port(losses, model, order, list(model.shared_parameters()), port_s_own)


@wrong("mended_port", "still get the mean")
def heads_mended_and_mean_everywhere(losses, model, order):
    port(losses, model, order, model.shared_parameters(), lambda part, reached: part.mean(dim=0))


@wrong("mended_port", "heads end up without gradients")
def clears_all(losses, model, order):
    right_step(losses, model, order)
    shared = model.shared_parameters()
    for p in model.parameters():
        if all(p is not q for q in shared):
            p.grad = None


@wrong("mended_port", None)
def mean_over_all(losses, model, order):
    port(losses, model, order, list(model.parameters()), lambda part, reached: part.mean(dim=0))


@right("mended_port")
def wholly_mended(losses, model, order):
    port(losses, model, order, model.shared_parameters(), total)


@right("mended_port")
def written_anew(losses, model, order):
    by_weights_of_the_losses(losses, model, order)
