"""Answers to the exercises of chapter 09, as people write them."""

import copy
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight

from mtl_lib.methods.rates import linear_warmup

WRONG, RIGHT = [], []


def wrong(exercise, text):
    return lambda answer: WRONG.append((exercise, answer, text)) or answer


def right(exercise):
    return lambda answer: RIGHT.append((exercise, answer)) or answer


# class_weights


@wrong("class_weights", "development set")
def from_dev(labels, num_classes):
    counts = np.bincount(labels["dev"], minlength=num_classes)
    return np.where(counts > 0, counts.sum() / (num_classes * np.maximum(counts, 1)), 0)


@wrong("class_weights", "development labels are counted too")
def from_everything(labels, num_classes):
    everything = np.concatenate(list(labels.values()))
    counts = [int((everything == k).sum()) for k in range(num_classes)]
    return [len(everything) / num_classes / c if c else 0.0 for c in counts]


@wrong("class_weights", "upside down")
def inverted(labels, num_classes):
    counts = torch.bincount(torch.tensor(labels["train"]), minlength=num_classes)
    return num_classes * counts / counts.sum()


@wrong("class_weights", "shares of the classes")
def shares(labels, num_classes):
    return np.bincount(labels["train"], minlength=num_classes) / len(labels["train"])


@wrong("class_weights", "K is missing")
def without_k(labels, num_classes):
    count = Counter(labels["train"].tolist())
    total = sum(count.values())
    return [total / count[k] if count[k] else 0 for k in range(num_classes)]


@wrong("class_weights", "1 / C_i")
def plain_inverse(labels, num_classes):
    counts = np.bincount(labels["train"], minlength=num_classes).astype(float)
    return np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0)


@wrong("class_weights", "add up to 1")
def normalised_to_one(labels, num_classes):
    w = plain_inverse(labels, num_classes)
    return w / w.sum()


@wrong("class_weights", "add up to K")
def normalised_to_k(labels, num_classes):
    w = plain_inverse(labels, num_classes)
    return num_classes * w / w.sum()


@wrong("class_weights", "infinite weight")
def infinite(labels, num_classes):
    counts = torch.tensor([(labels["train"] == k).sum() for k in range(num_classes)])
    return counts.sum() / (num_classes * counts)


@wrong("class_weights", "as if it had one")
def at_least_one(labels, num_classes):
    counts = np.bincount(labels["train"], minlength=num_classes).clip(min=1)
    return len(labels["train"]) / (num_classes * counts)


@wrong("class_weights", "classes that occur")
def scikit_learn(labels, num_classes):
    present = np.unique(labels["train"])
    weights = np.zeros(num_classes)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels["train"])
    return weights


@wrong("class_weights", "no longer line up")
def of_those_present(labels, num_classes):
    counts = np.unique(labels["train"], return_counts=True)[1]
    return counts.sum() / (num_classes * counts)


@wrong("class_weights", "minlength")
def minlength_forgotten(labels, num_classes):
    counts = np.bincount(labels["train"])
    with np.errstate(divide="ignore"):
        return np.where(counts > 0, counts.sum() / (num_classes * counts), 0)


@wrong("class_weights", "gets the weight 1")
def one_for_an_empty_class(labels, num_classes):
    weights = np.asarray(counted(labels, num_classes))
    return np.where(weights == 0, 1, weights)


@wrong("class_weights", "a weight for each example")
def per_example(labels, num_classes):
    return np.asarray(counted(labels, num_classes))[labels["train"]]


@wrong("class_weights", "most frequent class has the weight 1")
def over_the_largest(labels, num_classes):
    counts = np.bincount(labels["train"], minlength=num_classes)
    return [counts.max() / c if c else 0 for c in counts]


@wrong("class_weights", "over the classes is 1")
def class_mean_of_one(labels, num_classes):
    inverse = [0 if (n := (labels["train"] == k).sum()) == 0 else 1 / n for k in range(num_classes)]
    inverse = np.array(inverse)
    return inverse / inverse[inverse > 0].mean()


@wrong("class_weights", None)
def square_root(labels, num_classes):
    return np.sqrt(counted(labels, num_classes))


@wrong("class_weights", None)
def always_five(labels, num_classes):
    return np.asarray(counted(labels, num_classes)) * num_classes / 5


@wrong("class_weights", "raises ZeroDivisionError")
def divides_by_an_empty_class(labels, num_classes):
    y = labels["train"].tolist()
    return [len(y) / (num_classes * y.count(k)) for k in range(num_classes)]


@right("class_weights")
def counted(labels, num_classes):
    y = list(labels["train"])
    return [len(y) / (num_classes * y.count(k)) if k in y else 0.0 for k in range(num_classes)]


@right("class_weights")
def torch_bincount(labels, num_classes):
    y = torch.from_numpy(labels["train"])
    weights = len(y) / num_classes / torch.bincount(y, minlength=num_classes)
    weights[weights.isinf()] = 0
    return weights


@right("class_weights")
def one_hot(labels, num_classes):
    counts = np.eye(num_classes)[labels["train"]].sum(axis=0)
    return np.divide(
        counts.sum() / num_classes, counts, out=np.zeros(num_classes), where=counts > 0
    )


# linear_warmup


@wrong("linear_warmup", "during the warm-up: whole-number division")
def floor_division(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step // warmup_steps
    return max(0, (total_steps - step) / (total_steps - warmup_steps))


@wrong("linear_warmup", "right after the warm-up")
def floor_division_after(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return max(0, (total_steps - step) // (total_steps - warmup_steps))


@wrong("linear_warmup", "nothing would ever be learned")
def stuck_at_zero(step, warmup_steps, total_steps):
    return max(0.0, min(step / max(1, warmup_steps), 0.0))


@wrong("linear_warmup", "a step ahead")
def one_step_ahead(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return max(0, (total_steps - step) / (total_steps - warmup_steps))


@wrong("linear_warmup", "it jumps")
def falls_from_zero(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, 1 - step / total_steps)


@wrong("linear_warmup", "multiplies the rise")
def product(step, warmup_steps, total_steps):
    rise = 1.0 if warmup_steps == 0 else min(1.0, step / warmup_steps)
    return rise * max(0.0, 1 - step / total_steps)


@wrong("linear_warmup", "negative")
def goes_on_below_zero(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return (total_steps - step) / (total_steps - warmup_steps)


@wrong("linear_warmup", "never falls")
def stays_at_one(step, warmup_steps, total_steps):
    return min(1.0, step / warmup_steps) if warmup_steps else 1.0


@wrong("linear_warmup", "falls too slowly")
def slow_fall(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, 1 - (step - warmup_steps) / total_steps)


@wrong("linear_warmup", "no warm-up")
def only_falls(step, warmup_steps, total_steps):
    return max(0.0, 1 - step / total_steps)


@wrong("linear_warmup", "raises ZeroDivisionError")
def no_warmup_forgotten(step, warmup_steps, total_steps):
    fall = (total_steps - step) / (total_steps - warmup_steps)
    return max(0.0, min(step / warmup_steps, fall))


@wrong("linear_warmup", None)
def zero_one_step_early(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - 1 - step) / max(1, total_steps - 1 - warmup_steps))


@wrong("linear_warmup", None)
def cosine_fall(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step / warmup_steps
    part = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return 0.5 * (1 + np.cos(np.pi * part))


@wrong("linear_warmup", None)
def counted_in_epochs(step, warmup_steps, total_steps):
    epoch, epochs = step // 4, max(1, total_steps // 4)
    return min(1.0, max(0.0, 1 - epoch / epochs))


@wrong("linear_warmup", "whole-number division")
def whole_numbers_throughout(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return step // warmup_steps
    return max((total_steps - step) // (total_steps - warmup_steps), 0)


@wrong("linear_warmup", "it jumps")
def fall_of_all_steps_not_clamped(step, warmup_steps, total_steps):
    return step / warmup_steps if step < warmup_steps else 1 - step / total_steps


@wrong("linear_warmup", "also without a warm-up")
def starts_at_zero_without_a_warmup(step, warmup_steps, total_steps):
    return clamped(step, warmup_steps, total_steps) if step else 0.0


@wrong("linear_warmup", None)
def the_rate_itself(step, warmup_steps, total_steps):
    return 1e-5 * clamped(step, warmup_steps, total_steps)


@right("linear_warmup")
def clamped(step, warmup_steps, total_steps):
    rise = step / warmup_steps if warmup_steps else 1.0
    return max(0.0, min(rise, (total_steps - step) / (total_steps - warmup_steps), 1.0))


@right("linear_warmup")
def interpolated(step, warmup_steps, total_steps):
    if warmup_steps == 0:
        return np.interp(step, [0, total_steps], [1, 0])
    return np.interp(step, [0, warmup_steps, total_steps], [0, 1, 0])


@right("linear_warmup")
def exact_fractions(step, warmup_steps, total_steps):
    if step < warmup_steps:
        return Fraction(step, warmup_steps)
    return Fraction(max(0, total_steps - step), total_steps - warmup_steps)


@right("linear_warmup")
def as_a_tensor(step, warmup_steps, total_steps):
    points = torch.tensor([step / max(warmup_steps, 1) if warmup_steps else 1.0,
                           (total_steps - step) / (total_steps - warmup_steps)])  # fmt: skip
    return points.min().clamp(min=0)


# selection_bias


@wrong("selection_bias", "a winner of its own")
def both_maxima(selecting, fresh):
    return np.mean(selecting.max(1)) - np.mean(fresh.max(1))


@wrong("selection_bias", "always 0")
def judged_where_selected(selecting, fresh):
    rows, best = np.arange(len(selecting)), selecting.argmax(1)
    return np.mean(selecting.max(1) - selecting[rows, best])


@wrong("selection_bias", "always 0")
def a_zero(selecting, fresh):
    return 0


@wrong("selection_bias", "averages before the maximum")
def winner_of_the_mean(selecting, fresh):
    best = np.argmax(selecting.mean(axis=0))
    return selecting[:, best].mean() - fresh[:, best].mean()


@wrong("selection_bias", "averages before the maximum")
def maxima_of_means(selecting, fresh):
    return max(selecting.mean(axis=0)) - max(fresh.mean(axis=0))


@wrong("selection_bias", "the mean of all models on the fresh split")
def against_the_average_model(selecting, fresh):
    return np.mean(selecting.max(axis=1)) - np.mean(fresh)


@wrong("selection_bias", "the other models on the selecting split")
def lead_over_the_field(selecting, fresh):
    return float(np.mean([row.max() - row.mean() for row in selecting]))


@wrong("selection_bias", "sign is wrong")
def turned_round(selecting, fresh):
    best = selecting.argmax(axis=1)[:, None]
    gain = np.take_along_axis(fresh, best, 1) - np.take_along_axis(selecting, best, 1)
    return gain.mean()


@wrong("selection_bias", "nobody has been selected")
def all_models(selecting, fresh):
    return selecting.mean() - fresh.mean()


@wrong("selection_bias", "largest *difference*")
def largest_drop(selecting, fresh):
    return np.max(selecting - fresh, axis=1).mean()


@wrong("selection_bias", "best repeat of each model")
def wrong_axis(selecting, fresh):
    best = selecting.argmax(axis=0)
    models = np.arange(selecting.shape[1])
    return np.mean(selecting[best, models] - fresh[best, models])


@wrong("selection_bias", "sizes of differences")
def absolute(selecting, fresh):
    rows, best = np.arange(len(selecting)), selecting.argmax(1)
    return np.abs(selecting[rows, best] - fresh[rows, best]).mean()


@wrong("selection_bias", "a number for each repeat")
def one_per_repeat(selecting, fresh):
    rows, best = np.arange(len(selecting)), selecting.argmax(1)
    return selecting[rows, best] - fresh[rows, best]


@wrong("selection_bias", "median")
def median(selecting, fresh):
    return np.median(one_per_repeat(selecting, fresh))


@wrong("selection_bias", "one repeat only")
def one_winner_of_all(selecting, fresh):
    repeat, model = np.unravel_index(selecting.argmax(), selecting.shape)
    return selecting[repeat, model] - fresh[repeat, model]


@wrong("selection_bias", "picked on the fresh split")
def winner_of_the_fresh_split(selecting, fresh):
    rows, best = np.arange(len(fresh)), fresh.argmax(1)
    return (selecting[rows, best] - fresh[rows, best]).mean()


@wrong("selection_bias", None)
def relative(selecting, fresh):
    rows, best = np.arange(len(selecting)), selecting.argmax(1)
    return (one_per_repeat(selecting, fresh) / fresh[rows, best]).mean()


@wrong("selection_bias", None)
def the_losers(selecting, fresh):
    rows, worst = np.arange(len(selecting)), selecting.argmin(1)
    return (selecting[rows, worst] - fresh[rows, worst]).mean()


@right("selection_bias")
def repeat_by_repeat(selecting, fresh):
    total = 0.0
    for here, there in zip(selecting.tolist(), fresh.tolist(), strict=True):
        winner = here.index(max(here))
        total += here[winner] - there[winner]
    return total / len(selecting)


@right("selection_bias")
def with_gather(selecting, fresh):
    best, winners = torch.tensor(selecting).max(dim=1)
    return best.mean() - torch.tensor(fresh).gather(1, winners[:, None]).mean()


@right("selection_bias")
def with_a_mask(selecting, fresh):
    won = selecting == selecting.max(axis=1, keepdims=True)
    return np.average(selecting - fresh, weights=won)


# train_and_keep_best


@wrong("train_and_keep_best", "no copy")
def weights_not_copied(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, kept, history = optimizer.lr, -math.inf, None, []
    for step in range(steps):
        optimizer.lr = base * linear_warmup(step, warmup_steps, steps)
        take_step()
        if (step + 1) % every == 0 or step + 1 == steps:
            value = score()
            history.append((step + 1, value))
            if value > best:
                best, kept = value, model.state_dict()
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "factors pile up")
def rate_multiplied_again_and_again(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, history = optimizer.lr, -math.inf, []
    kept = copy.deepcopy(model.state_dict())
    for step in range(steps):
        optimizer.lr *= linear_warmup(step, warmup_steps, steps)
        take_step()
        if (step + 1) % every == 0 or step + 1 == steps:
            value = score()
            history.append((step + 1, value))
            if value > best:
                best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "a step ahead")
def counted_from_one(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, history = optimizer.lr, -math.inf, []
    kept = copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step, warmup_steps, steps)
        take_step()
        if step % every == 0 or step == steps:
            value = score()
            history.append((step, value))
            if value > best:
                best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "Of equal scores the latest wins")
def latest_of_equals(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, history = optimizer.lr, -math.inf, []
    kept = copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every == 0 or step == steps:
            value = score()
            history.append((step, value))
            if value >= best:
                best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "last step is not scored")
def end_forgotten(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, history = optimizer.lr, -math.inf, []
    kept = copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every == 0:
            value = score()
            history.append((step, value))
            if value > best:
                best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "the rate of the last step")
def rate_left_as_it_is(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, history = optimizer.lr, -math.inf, []
    kept = copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every == 0 or step == steps:
            value = score()
            history.append((step, value))
            if value > best:
                best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return history


@wrong("train_and_keep_best", "`np.argmax`")
def all_kept_and_argmax(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, kept, history = optimizer.lr, [], []
    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every == 0 or step == steps:
            history.append((step, score()))
            kept.append(copy.deepcopy(model.state_dict()))
    model.load_state_dict(kept[np.argmax([value for _, value in history])])
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "never beaten")
def starts_from_the_first(model, optimizer, take_step, score, steps, warmup_steps, every):
    """A NaN that comes first is never beaten."""
    base, best, history, kept = optimizer.lr, None, [], None
    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every == 0 or step == steps:
            value = score()
            history.append((step, value))
            if best is None or value > best:
                best, kept = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@right("train_and_keep_best")
def tensors_cloned(model, optimizer, take_step, score, steps, warmup_steps, every):
    base = optimizer.lr
    history, best = [], None
    for step in range(steps):
        optimizer.lr = base * linear_warmup(step, warmup_steps, steps)
        take_step()
        taken = step + 1
        if taken % every == 0 or taken == steps:
            value = score()
            history.append([taken, value])
            if not math.isnan(value) and (best is None or value > best[0]):
                best = value, {name: w.clone() for name, w in model.state_dict().items()}
    if best:
        model.load_state_dict(best[1])
    optimizer.lr = base
    return history


@right("train_and_keep_best")
def chosen_at_the_end(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, history, snapshots = optimizer.lr, [], {}
    for step in range(steps):
        optimizer.lr = linear_warmup(step, warmup_steps, steps) * base
        take_step()
        if not (step + 1) % every or step == steps - 1:
            history.append((step + 1, score()))
            snapshots[step + 1] = [w.detach().clone() for w in model.parameters()]
    ranked = [(value, -step) for step, value in history if value == value]
    with torch.no_grad():
        for weight, old in zip(model.parameters(), snapshots[-max(ranked)[1]], strict=True):
            weight.copy_(old)
    optimizer.lr = base
    return history


# choose_and_report


@wrong("choose_and_report", "All three faults")
def the_colleagues_report(dev, test):
    epochs = np.argmax(dev, axis=0)
    scores = np.array([test[epoch, task] for task, epoch in enumerate(epochs)])
    return epochs, np.maximum(scores, test[len(test) - 1])


@wrong("choose_and_report", "an epoch of its own")
def a_checkpoint_per_task(dev, test):
    epochs = np.nan_to_num(dev).argmax(0)
    return epochs, test[epochs, range(test.shape[1])]


@wrong("choose_and_report", "A NaN wins")
def plain_argmax(dev, test):
    epoch = np.argmax(np.mean(dev, axis=1))
    return epoch, test[epoch]


@wrong("choose_and_report", "left out of the mean")
def mean_of_the_others(dev, test):
    epoch = int(np.nanargmax(np.nanmean(dev, axis=1)))
    return epoch, test[epoch]


@wrong("choose_and_report", "not in the race")
def epochs_with_a_nan_left_out(dev, test):
    averages = np.array([row.mean() if not np.isnan(row).any() else -1 for row in dev])
    return averages.argmax(), test[averages.argmax()]


@wrong("choose_and_report", "the test set has chosen")
def better_of_best_and_last(dev, test):
    epoch = np.nan_to_num(dev).mean(1).argmax()
    return epoch, np.maximum(test[epoch], test[-1])


@wrong("choose_and_report", "The test set chooses")
def best_on_the_test_set(dev, test):
    epoch = np.nan_to_num(test).mean(axis=1).argmax()
    return epoch, test[epoch]


@wrong("choose_and_report", "development scores, which have just")
def development_scores(dev, test):
    epoch = np.nan_to_num(dev).mean(axis=1).argmax()
    return epoch, dev[epoch]


@wrong("choose_and_report", None)
def second_best(dev, test):
    epoch = np.nan_to_num(dev).mean(axis=1).argsort()[-2:][0]
    return epoch, test[epoch]


@right("choose_and_report")
def in_a_loop(dev, test):
    best, chosen = -1.0, 0
    for epoch, row in enumerate(dev):
        average = sum(0.0 if math.isnan(value) else value for value in row) / len(row)
        if average > best:
            best, chosen = average, epoch
    return chosen, test[chosen]


@right("choose_and_report")
def by_sums(dev, test):
    epoch = np.argmax(np.nansum(dev, axis=1))
    return int(epoch), np.array(test[epoch])


@right("choose_and_report")
def by_where(dev, test):
    filled = np.where(np.isnan(dev), 0, dev)
    order = sorted(range(len(filled)), key=lambda e: -filled[e].mean())
    return order[0], test[order[0]].tolist()


@wrong("choose_and_report", "reported as 0")
def zeros_everywhere(dev, test):
    dev, test = np.nan_to_num(dev), np.nan_to_num(test)
    epoch = dev.mean(axis=1).argmax()
    return epoch, test[epoch]


@wrong("selection_bias", "in its own repeat alone")
def every_winner_in_every_repeat(selecting, fresh):
    winners = np.argmax(selecting, axis=1)
    return np.max(selecting, axis=1).mean() - fresh[:, winners].mean()


@wrong("linear_warmup", "lower of two lines")
def the_lower_line(step, warmup_steps, total_steps):
    up = step / warmup_steps if warmup_steps > 0 else 1
    down = (total_steps - step) / total_steps
    return max(min(up, down), 0)


@wrong("choose_and_report", "starts at 0")
def best_from_zero(dev, test):
    best, chosen = 0.0, 0
    for epoch, row in enumerate(np.nan_to_num(dev)):
        if row.mean() > best:
            best, chosen = row.mean(), epoch
    return chosen, test[chosen]


@wrong("choose_and_report", "up to T models")
def only_the_nan_mended(dev, test):
    epochs = np.nan_to_num(dev).argmax(axis=0)
    return epochs, np.maximum(test[epochs, np.arange(dev.shape[1])], test[-1])


@wrong("choose_and_report", "Two faults are left")
def only_the_epochs_mended(dev, test):
    epoch = dev.mean(axis=1).argmax()
    return epoch, np.maximum(test[epoch], test[-1])


@wrong("choose_and_report", "picks a task")
def mean_over_epochs(dev, test):
    epoch = np.where(np.isnan(dev), 0, dev).mean(0).argmax()
    return epoch, test[epoch]


@wrong("choose_and_report", "by one score")
def by_the_first_task(dev, test):
    epoch = np.nan_to_num(dev)[:, 0].argmax()
    return epoch, test[epoch]


@wrong("choose_and_report", "the last epoch's scores")
def chosen_but_not_reported(dev, test):
    return np.nansum(dev, axis=1).argmax(), test[-1]


@wrong("train_and_keep_best", "scored twice")
def asked_apart(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, kept, history = optimizer.lr, -math.inf, None, []

    def note(step):
        nonlocal best, kept
        value = score()
        history.append((step, value))
        if value > best:
            best, kept = value, copy.deepcopy(model.state_dict())

    for step in range(1, steps + 1):
        optimizer.lr = base * linear_warmup(step - 1, warmup_steps, steps)
        take_step()
        if step % every == 0:
            note(step)
    note(steps)
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "factor alone")
def factor_for_a_rate(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, kept, history = optimizer.lr, -math.inf, None, []
    for step in range(steps):
        optimizer.lr = linear_warmup(step, warmup_steps, steps)
        take_step()
        if (step + 1) % every == 0 or step + 1 == steps:
            history.append((step + 1, score()))
            if history[-1][1] > best:
                best, kept = history[-1][1], copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "goes on from the best weights")
def put_back_at_once(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, kept, history = optimizer.lr, -math.inf, copy.deepcopy(model.state_dict()), []
    for step in range(steps):
        optimizer.lr = base * linear_warmup(step, warmup_steps, steps)
        take_step()
        if (step + 1) % every == 0 or step + 1 == steps:
            history.append((step + 1, score()))
            if history[-1][1] > best:
                best, kept = history[-1][1], copy.deepcopy(model.state_dict())
            else:
                model.load_state_dict(kept)
    optimizer.lr = base
    return history


@wrong("train_and_keep_best", "gives the name")
def name_given_away(model, optimizer, take_step, score, steps, warmup_steps, every):
    base, best, history = optimizer.lr, -math.inf, []
    for step in range(steps):
        optimizer.lr = base * linear_warmup(step, warmup_steps, steps)
        take_step()
        if (step + 1) % every == 0 or step + 1 == steps:
            history.append((step + 1, score()))
            if history[-1][1] > best:
                best, best_model = history[-1][1], copy.deepcopy(model)
    model = best_model
    optimizer.lr = base
    return history
