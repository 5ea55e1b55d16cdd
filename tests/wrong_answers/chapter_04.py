"""Answers to the exercises of chapter 04."""

import copy
import random
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn import metrics
from torch import nn
from wrong_answers.bank import Bank

from mtl_lib.data import BatchStream, sorted_batches
from mtl_lib.evaluation import predict

bank = Bank()
wrong, right, WRONG, RIGHT = bank.wrong, bank.right, bank.WRONG, bank.RIGHT

# class_loss


@right("class_loss")
def torchs_own(logits, labels):
    return F.cross_entropy(logits, labels)


@right("class_loss")
def by_logsumexp(logits, labels):
    return (torch.logsumexp(logits, dim=1) - logits[torch.arange(len(labels)), labels]).mean()


@right("class_loss")
def largest_first(logits, labels):
    shifted = logits - logits.max(dim=1, keepdim=True).values
    logs = shifted - shifted.exp().sum(dim=1, keepdim=True).log()
    hot = F.one_hot(labels, logits.shape[1])
    return -(hot * logs).sum() / len(labels)


@right("class_loss")
def example_by_example(logits, labels):
    total = 0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        total = total + torch.logsumexp(row, 0) - row[label]
    return total / len(labels)


@wrong("class_loss", "`nll_loss` on the logits")
def nll_on_logits(logits, labels):
    return F.nll_loss(logits, labels)


@wrong("class_loss", "logarithm is missing")
def no_logarithm(logits, labels):
    return F.nll_loss(logits.softmax(1), labels)


@wrong("class_loss", "softmax is taken twice")
def softmax_twice(logits, labels):
    return torchs_own(torch.softmax(logits, -1), labels)


@wrong("class_loss", "overflow")
def overflows(logits, labels):
    p = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    return -torch.log(p[range(len(labels)), labels]).mean()


@wrong("class_loss", "rounds to 0")
def log_of_softmax(logits, labels):
    return -torch.log(F.softmax(logits, dim=1))[torch.arange(len(labels)), labels].mean()


@wrong("class_loss", "columns out of *every* row")
def columns_of_every_row(logits, labels):
    return (torch.logsumexp(logits, 1) - logits[:, labels]).mean()


@wrong("class_loss", "sum over the batch")
def summed(logits, labels):
    return by_logsumexp(logits, labels) * len(labels)


@wrong("class_loss", "B times C entries")
def mean_of_all(logits, labels):
    return -(F.one_hot(labels, logits.shape[1]) * logits.log_softmax(1)).mean()


@wrong("class_loss", "losses of single examples")
def not_reduced(logits, labels):
    return torch.logsumexp(logits, dim=1) - logits[torch.arange(len(labels)), labels]


@wrong("class_loss", "over the examples of the batch")
def wrong_axis(logits, labels):
    return F.nll_loss(F.log_softmax(logits, dim=0), labels)


@wrong("class_loss", "each row's own")
def largest_of_the_batch(logits, labels):
    shifted = logits - torch.max(logits)
    right = shifted[torch.arange(len(labels)), labels]
    return torch.mean(torch.log(torch.exp(shifted).sum(1)) - right)


@wrong("class_loss", "never put back")
def largest_not_put_back(logits, labels):
    shifted = logits - logits.max(dim=1, keepdim=True)[0]
    return (shifted.exp().sum(1).log() - logits[torch.arange(len(labels)), labels]).mean()


@wrong("class_loss", "base 2")
def in_bits(logits, labels):
    return by_logsumexp(logits, labels) / np.log(2)


@wrong("class_loss", "detached")
def in_numpy(logits, labels):
    z = logits.detach().numpy()
    return torch.tensor(-stats.zscore(z)[0, 0] * 0 + torchs_own(torch.tensor(z), labels).item())


@wrong("class_loss", None)
def clipped(logits, labels):
    return -(logits.softmax(1) + 1e-7).log()[torch.arange(len(labels)), labels].mean()


@wrong("class_loss", None)
def smoothed(logits, labels):
    return F.cross_entropy(logits, labels, label_smoothing=0.1)


# SentimentClassifier


@right("SentimentClassifier")
class ByHand(nn.Module):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__()
        self.head = nn.Linear(hidden_size, classes, bias=True)
        self.dropout, self.encoder = nn.Dropout(p=dropout), encoder

    def forward(self, batch):
        pooled = self.encoder(batch.input_ids, batch.attention_mask)[1]
        pooled = self.dropout(pooled)
        return pooled @ self.head.weight.T + self.head.bias


class OwnDropout(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.from_numpy(np.random.random(x.shape) >= self.rate) / (1 - self.rate)


@right("SentimentClassifier")
class WithOwnDropout(ByHand):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__(encoder, hidden_size, classes, dropout)
        self.dropout = OwnDropout(dropout)


class Changed(ByHand):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)

    def pooled(self, batch):
        return self.encoder(batch.input_ids, batch.attention_mask)[1]

    def forward(self, batch):
        return self.head(self.dropout(self.pooled(batch)))


@wrong("SentimentClassifier", "vector of [CLS] as the last layer left it")
class FirstToken(Changed):
    def pooled(self, batch):
        return self.encoder(batch.input_ids, batch.attention_mask)[0][:, 0, :]


@wrong("SentimentClassifier", "mask is forgotten")
class NoMask(Changed):
    def pooled(self, batch):
        return self.encoder(batch.input_ids, torch.ones(batch.input_ids.shape))[1]


@wrong("SentimentClassifier", "returns probabilities")
class Probabilities(Changed):
    def forward(self, batch):
        return F.softmax(super().forward(batch), dim=-1)


@wrong("SentimentClassifier", "acts on the logits")
class DropsLogits(Changed):
    def forward(self, batch):
        return self.dropout(self.head(self.pooled(batch)))


@wrong("SentimentClassifier", "Nothing is dropped")
class ForgetsDropout(Changed):
    def forward(self, batch):
        return self.head(self.pooled(batch))


@wrong("SentimentClassifier", "on in evaluation mode too")
class AlwaysDrops(Changed):
    def forward(self, batch):
        return self.head(F.dropout(self.pooled(batch), self.dropout.p))


@wrong("SentimentClassifier", "always 0.3")
class FixedRate(Changed):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__(encoder, hidden_size, classes)


@wrong("SentimentClassifier", "always five classes")
class FiveClasses(Changed):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__(encoder, hidden_size, dropout=dropout)


@wrong("SentimentClassifier", "No gradient reaches the encoder")
class Frozen(Changed):
    def pooled(self, batch):
        with torch.no_grad():
            return super().pooled(batch)


@wrong("SentimentClassifier", None)
class AnotherLayer(Changed):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__(encoder, hidden_size, classes, dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, batch):
        return self.head(self.dropout(torch.tanh(self.dense(self.pooled(batch)))))


@wrong("SentimentClassifier", "no bias")
class NoBias(Changed):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__(encoder, hidden_size, classes, dropout)
        self.head = nn.Linear(hidden_size, classes, bias=False)


@wrong("SentimentClassifier", "expected shape (1, 5)")
class Squeezes(Changed):
    def forward(self, batch):
        return super().forward(batch).squeeze()


@wrong("SentimentClassifier", "AttributeError")
class OtherNames(nn.Module):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        super().__init__()
        self.bert, self.linear = encoder, nn.Linear(hidden_size, classes)


@wrong("SentimentClassifier", "AttributeError")
class NoSuper(nn.Module):
    def __init__(self, encoder, hidden_size, classes=5, dropout=0.3):
        self.encoder = encoder


# train_epoch


@right("train_epoch")
def clears_at_the_end(model, batches, optimizer):
    model.train(True)
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        losses.append(float(loss))
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return losses


@right("train_epoch")
def clears_between(model, batches, optimizer):
    was = model.training
    model.train()
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    model.train(was)
    return torch.stack(losses)


@right("train_epoch")
def with_autograd_grad(model, batches, optimizer):
    model.train()
    losses, parameters = [], list(model.parameters())
    for batch in batches:
        loss = batch.task.loss(model.forward(batch), batch.labels)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        optimizer.step()
        losses += [loss.item()]
    return np.array(losses)


@right("train_epoch")
def with_a_closure(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = batch.task.loss(model(batch), batch.labels)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    return tuple(losses)


@wrong("train_epoch", "never cleared")
def never_cleared(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "never cleared")
def cleared_once(model, batches, optimizer):
    model.train()
    optimizer.zero_grad()
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return losses


@wrong("train_epoch", "evaluation mode, so nothing is dropped")
def eval_mode(model, batches, optimizer):
    model.eval()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "left as it was")
def mode_untouched(model, batches, optimizer):
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "never move")
def no_step(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "never move")
def cleared_before_the_step(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "never move")
def step_before_backward(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        optimizer.step()
        loss.backward()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", None)
def one_step_late(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        optimizer.step()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "RuntimeError")
def without_gradients(model, batches, optimizer):
    model.train()
    losses = []
    with torch.no_grad():
        for batch in batches:
            loss = batch.task.loss(model(batch), batch.labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@wrong("train_epoch", "divided by the batch size again")
def divided_again(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels) / len(batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "mean of the losses")
def mean_loss(model, batches, optimizer):
    return float(np.mean(clears_at_the_end(model, batches, optimizer)))


@wrong("train_epoch", "one step for all")
def accumulates(model, batches, optimizer):
    model.train()
    optimizer.zero_grad()
    losses = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        losses.append(loss.item())
    optimizer.step()
    return losses


@wrong("train_epoch", "TypeError")
def needs_a_length(model, batches, optimizer):
    losses = [0.0] * len(batches)
    for n, loss in enumerate(clears_at_the_end(model, batches, optimizer)):
        losses[n] = loss
    return losses


@wrong("train_epoch", "whatever the task")
def always_cross_entropy(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = by_logsumexp(model(batch), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", None)
def shuffled(model, batches, optimizer):
    batches = list(batches)
    random.shuffle(batches)
    return clears_at_the_end(model, batches, optimizer)


@wrong("train_epoch", "last batch is left out")
def last_left_out(model, batches, optimizer):
    return clears_at_the_end(model, list(batches)[:-1], optimizer)


@wrong("train_epoch", None)
def first_batch_only(model, batches, optimizer):
    return clears_at_the_end(model, [next(iter(batches))], optimizer)


@wrong("train_epoch", "measured after each step")
def loss_after_the_step(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        batch.task.loss(model(batch), batch.labels).backward()
        optimizer.step()
        losses.append(batch.task.loss(model(batch), batch.labels).item())
    return losses


@wrong("train_epoch", None)
def own_optimizer(model, batches, optimizer):
    return clears_at_the_end(model, batches, torch.optim.SGD(model.parameters(), lr=0.01))


@wrong("train_epoch", None)
def clips(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("train_epoch", "is a return missing?")
def returns_nothing(model, batches, optimizer):
    clears_at_the_end(model, batches, optimizer)


@wrong("train_epoch", "hold on to their graphs")
def appends_tensors(model, batches, optimizer):
    model.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        loss.backward()
        optimizer.step()
        losses.append(loss)
    return losses


@wrong("train_epoch", "hold on to their graphs")
def stacks_tensors(model, batches, optimizer):
    return torch.stack(appends_tensors(model, batches, optimizer))


@wrong("train_epoch", None)
def train_mode_after_the_first_batch(model, batches, optimizer):
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = batch.task.loss(model(batch), batch.labels)
        model.train()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# predict_in_order


@right("predict_in_order")
def in_file_order(model, split, batch_size):
    mode = model.training
    model.eval()
    with torch.no_grad():
        starts = range(0, len(split), batch_size)
        parts = [model(split.batch(range(i, min(i + batch_size, len(split))))) for i in starts]
    model.train(mode)
    return torch.cat(parts)


@right("predict_in_order")
def by_argsort(model, split, batch_size):
    mode = model.training
    model.train(False)
    indices, logits = [], []
    with torch.inference_mode():
        for where, batch in sorted_batches(split, batch_size):
            indices.extend(where.tolist())
            logits.append(model(batch))
    model.train(mode)
    return torch.cat(logits).numpy()[np.argsort(indices)]


@right("predict_in_order")
def by_dictionary(model, split, batch_size):
    found = {}
    mode = model.training
    model.eval()
    for _, batch in sorted_batches(split, batch_size):
        with torch.no_grad():
            found.update(zip(batch.ids, model(batch).tolist(), strict=True))
    if mode:
        model.train()
    return [found[name] for name in split.ids]


@right("predict_in_order")
def the_library(model, split, batch_size):
    return predict(model, split, batch_size)


def _parts(model, split, batch_size):
    with torch.no_grad():
        pairs = [(where, model(batch)) for where, batch in sorted_batches(split, batch_size)]
    return torch.cat([w for w, _ in pairs]), torch.cat([p for _, p in pairs])


@wrong("predict_in_order", "order of length")
def by_length(model, split, batch_size):
    mode = model.training
    model.eval()
    _, logits = _parts(model, split, batch_size)
    model.train(mode)
    return logits


@wrong("predict_in_order", "wrong way round")
def taken(model, split, batch_size):
    mode = model.training
    model.eval()
    where, logits = _parts(model, split, batch_size)
    model.train(mode)
    return logits[where]


@wrong("predict_in_order", "left as it was")
def any_mode(model, split, batch_size):
    where, logits = _parts(model, split, batch_size)
    result = torch.empty_like(logits)
    result[where] = logits
    return result


@wrong("predict_in_order", "stays in evaluation mode")
def stays_in_eval(model, split, batch_size):
    model.eval()
    where, logits = _parts(model, split, batch_size)
    result = torch.empty_like(logits)
    result[where] = logits
    return result


@wrong("predict_in_order", "always left in train mode")
def ends_in_train(model, split, batch_size):
    model.eval()
    where, logits = _parts(model, split, batch_size)
    model.train()
    return logits[where.argsort()]


@wrong("predict_in_order", "Gradients are recorded")
def detached_in_place_of_no_grad(model, split, batch_size):
    mode = model.training
    model.eval()
    result = torch.zeros(len(split), split.task.outputs)
    for where, batch in sorted_batches(split, batch_size):
        result[where] = model(batch).detach()
    model.train(mode)
    return result


@wrong("predict_in_order", "Two things are missing")
def bare_loop(model, split, batch_size):
    result = torch.zeros(len(split), split.task.outputs)
    for where, batch in sorted_batches(split, batch_size):
        result[where] = model(batch)
    return result


@wrong("predict_in_order", "always five columns")
def five_columns(model, split, batch_size):
    mode = model.training
    model.eval()
    result = torch.zeros(len(split), 5)
    with torch.no_grad():
        for where, batch in sorted_batches(split, batch_size):
            result[where] = model(batch)
    model.train(mode)
    return result


@wrong("predict_in_order", "in train mode, with dropout")
def train_mode(model, split, batch_size):
    mode = model.training
    model.train()
    where, logits = _parts(model, split, batch_size)
    model.train(mode)
    return logits[torch.argsort(where)]


@wrong("predict_in_order", None)
def drops_the_last_batch(model, split, batch_size):
    mode = model.training
    model.eval()
    result = torch.zeros(len(split), 5)
    with torch.no_grad():
        for where, batch in sorted_batches(split, batch_size):
            if len(where) == batch_size:
                result[where] = model(batch)
    model.train(mode)
    return result


@wrong("predict_in_order", "expected shape")
def classes_only(model, split, batch_size):
    return predict(model, split, batch_size).argmax(axis=1)


@wrong("predict_in_order", None)
def probabilities(model, split, batch_size):
    return torch.from_numpy(predict(model, split, batch_size)).softmax(dim=1)


@wrong("predict_in_order", None)
def sorted_by_name(model, split, batch_size):
    return predict(model, split, batch_size)[np.argsort(split.ids)][::-1]


@wrong("predict_in_order", None)
def shortest_first(model, split, batch_size):
    order = torch.argsort(split.lengths)
    return predict(model, split, batch_size)[order.numpy()]


# fit


def _accuracy(model, dev, batch_size):
    return (predict(model, dev, batch_size).argmax(axis=1) == dev.labels.numpy()).mean()


@right("fit")
def with_clones(model, train, dev, optimizer, epochs, batch_size, seed=0):
    stream, scores = BatchStream(train, batch_size, seed), []
    for _ in range(epochs):
        clears_between(model, islice(stream, len(train) // batch_size), optimizer)
        scores.append(float(_accuracy(model, dev, batch_size)))
        if scores.index(max(scores)) == len(scores) - 1:
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    return scores


@right("fit")
def keeps_all_epochs(model, train, dev, optimizer, epochs, batch_size, seed=0):
    stream, scores, states = iter(BatchStream(train, batch_size, seed=seed)), [], []
    for _ in range(epochs):
        batches = [next(stream) for _ in range(len(train) // batch_size)]
        with_autograd_grad(model, batches, optimizer)
        scores.append(_accuracy(model, dev, batch_size))
        states.append([p.detach().clone() for p in model.parameters()])
    for p, value in zip(model.parameters(), states[int(np.argmax(scores))], strict=True):
        p.data = value
    return np.array(scores)


def _fit(model, train, dev, optimizer, epochs, batch_size, seed, copied=True, better=None, **how):
    scores, best, bar = [], None, -1.0
    stream = BatchStream(train, batch_size, seed)
    for epoch in range(epochs):
        if how.get("anew"):
            stream = BatchStream(train, batch_size, seed)
        if how.get("list"):
            stream = BatchStream(train, batch_size, seed + epoch)
        number = -(-len(train) // batch_size) if how.get("ceil") else len(train) // batch_size
        losses = clears_at_the_end(model, islice(stream, number), optimizer)
        score = _accuracy(model, dev, batch_size)
        value = better(model, train, losses, score) if better else score
        if value > bar or (how.get("ties") and value == bar):
            best = copy.deepcopy(model.state_dict()) if copied else model.state_dict()
            bar = value if not how.get("stuck") else -1.0
        scores.append(score)
        if how.get("back"):
            model.load_state_dict(best)
    if not how.get("forgets"):
        model.load_state_dict(best)
    return scores


def _wrong_fit(text, **options):
    @wrong("fit", text)
    def fitted(model, train, dev, optimizer, epochs, batch_size, seed=0):
        return _fit(model, train, dev, optimizer, epochs, batch_size, seed, **options)

    fitted.__name__ = "_".join(map(str, options))


_wrong_fit("keep a copy", copied=False)
_wrong_fit("left as the last epoch", forgets=True)
_wrong_fit("left as the last epoch", stuck=True)
_wrong_fit("goes back to the best", back=True)
_wrong_fit("keeps the later one", ties=True)
_wrong_fit("begins anew", anew=True)
_wrong_fit("seed of its own", list=True)
_wrong_fit("round down", ceil=True)
_wrong_fit("on the training set", better=lambda m, t, losses, s: _accuracy(m, t, 4))
_wrong_fit("by the training loss", better=lambda m, t, losses, s: 1e3 - sum(losses))
_wrong_fit(None, better=lambda m, t, losses, s: 1e3 - losses[-1])


@wrong("fit", "best accuracy only")
def returns_the_best(model, train, dev, optimizer, epochs, batch_size, seed=0):
    return max(with_clones(model, train, dev, optimizer, epochs, batch_size, seed))


@wrong("fit", "never")
def never_ends(model, train, dev, optimizer, epochs, batch_size, seed=0):
    raise RuntimeError("a BatchStream never ends")


# balanced_accuracy


@right("balanced_accuracy")
def by_class(labels, predicted):
    shares = []
    for c in np.unique(labels):
        of_class = labels == c
        shares.append((predicted[of_class] == c).mean())
    return np.mean(shares)


@right("balanced_accuracy")
def by_sklearn_recall(labels, predicted):
    return metrics.recall_score(labels, predicted, labels=np.unique(labels), average="macro")


@right("balanced_accuracy")
def weighted_by_hand(labels, predicted):
    counts = np.bincount(labels)
    weights = 1 / counts[labels]
    return ((labels == predicted) * weights).sum() / weights.sum()


@right("balanced_accuracy")
def plain_python(labels, predicted):
    classes = set(labels.tolist())
    total = 0
    for c in classes:
        hits = [p == c for y, p in zip(labels, predicted, strict=True) if y == c]
        total += sum(hits) / len(hits)
    return torch.tensor(total / len(classes))


@wrong("balanced_accuracy", "the model never says is forgotten")
def recalls_of_what_is_predicted(labels, predicted):
    return np.mean([np.mean(predicted[labels == c] == c) for c in np.unique(predicted)])


@wrong("balanced_accuracy", "(precision): asked is")
def precisions_of_the_true_classes(labels, predicted):
    return np.mean([np.mean(labels[predicted == c] == c) for c in np.unique(labels)])


@wrong("balanced_accuracy", "plain accuracy")
def accuracy(labels, predicted):
    return metrics.accuracy_score(labels, predicted)


@wrong("balanced_accuracy", "precision")
def over_predicted(labels, predicted):
    return np.mean([np.mean(labels[predicted == c] == c) for c in np.unique(predicted)])


@wrong("balanced_accuracy", "precision")
def arguments_exchanged(labels, predicted):
    return by_class(predicted, labels)


@wrong("balanced_accuracy", "counts as 0: it has no share")
def up_to_the_largest(labels, predicted):
    shares = []
    for c in range(max(labels) + 1):
        of_class = labels == c
        shares.append((predicted[of_class] == c).mean() if of_class.any() else 0.0)
    return np.mean(shares)


@wrong("balanced_accuracy", "five classes")
def always_five(labels, predicted):
    return sum((predicted[labels == c] == c).mean() for c in np.unique(labels)) / 5


@wrong("balanced_accuracy", "classes 0 to 4 only")
def skips_among_five(labels, predicted):
    shares = [(predicted[labels == c] == c).mean() for c in range(5) if (labels == c).any()]
    return np.mean(shares) if shares else float("nan")


@wrong("balanced_accuracy", "(precision): asked is")
def precision_score(labels, predicted):
    classes = np.unique(labels)
    return metrics.precision_score(
        labels, predicted, labels=classes, average="macro", zero_division=0
    )


@wrong("balanced_accuracy", "counts as 0: it has no share")
def up_to_the_largest_of_both(labels, predicted):
    size = max(labels.max(), predicted.max()) + 1
    shares = [(predicted[labels == c] == c).mean() if c in labels else 0 for c in range(size)]
    return sum(shares) / size


@wrong("balanced_accuracy", "only predicted counts as 0")
def of_all_seen(labels, predicted):
    return metrics.recall_score(labels, predicted, average="macro", zero_division=0)


@wrong("balanced_accuracy", "makes the mean NaN")
def means_of_nothing(labels, predicted):
    return np.mean([(predicted[labels == c] == c).mean() for c in range(5)])


@wrong("balanced_accuracy", "go by the true classes")
def confusion_rows(labels, predicted):
    matrix = metrics.confusion_matrix(labels, predicted)
    return np.mean(matrix.diagonal() / matrix.sum(axis=1))


@wrong("balanced_accuracy", "F1")
def macro_f1(labels, predicted):
    return metrics.f1_score(labels, predicted, average="macro", zero_division=0)


@wrong("balanced_accuracy", None)
def two_classes_only(labels, predicted):
    positive, negative = labels == 1, labels != 1
    return (np.mean(predicted[positive] == 1) + np.mean(predicted[negative] != 1)) / 2


@wrong("balanced_accuracy", None)
def chance_taken_away(labels, predicted):
    score, k = by_class(labels, predicted), len(np.unique(labels))
    return (score - 1 / k) / (1 - 1 / k) if k > 1 else score


@wrong("balanced_accuracy", None)
def largest_class_only(labels, predicted):
    c = np.bincount(labels).argmax()
    return np.mean(predicted[labels == c] == c)


@wrong("balanced_accuracy", None)
def median_of_classes(labels, predicted):
    return np.median([(predicted[labels == c] == c).mean() for c in np.unique(labels)])


@wrong("balanced_accuracy", None)
def percent(labels, predicted):
    return round(100 * by_class(labels, predicted), 1)


@wrong("balanced_accuracy", "changes its input `predicted`")
def overwrites(labels, predicted):
    predicted[predicted > 99] = 99
    result = by_class(labels, predicted)
    predicted[:] = 0
    return result


# paired_bootstrap


@right("paired_bootstrap")
def loop_with_choice(a, b, draws=2000):
    random_numbers = np.random.default_rng(7)
    differences = b.astype(int) - a.astype(int)
    means = [random_numbers.choice(differences, len(a)).mean() for _ in range(draws)]
    return np.percentile(means, 2.5), np.percentile(means, 97.5)


@right("paired_bootstrap")
def in_torch(a, b, draws=2000):
    d = torch.tensor(b, dtype=torch.float64) - torch.tensor(a, dtype=torch.float64)
    chosen = torch.randint(len(d), (draws, len(d)))
    means = d[chosen].mean(dim=1)
    return means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))


@right("paired_bootstrap")
def sorts(a, b, draws=2000):
    np.random.seed(3)
    gains = []
    for _ in range(draws):
        i = np.random.randint(0, len(a), len(a))
        gains.append(np.mean(b[i]) - np.mean(a[i]))
    gains.sort()
    return [gains[int(0.025 * draws)], gains[int(0.975 * draws)]]


@right("paired_bootstrap")
def by_scipy(a, b, draws=2000):
    d = b.astype(float) - a.astype(float)
    found = stats.bootstrap((d,), np.mean, n_resamples=draws, method="percentile", batch=1000)
    return found.confidence_interval


@right("paired_bootstrap")
def by_multinomial_counts(a, b, draws=2000):
    n, g = len(a), np.random.default_rng()
    p = [np.mean(b & ~a), np.mean(a & ~b), np.mean(a == b)]
    counts = g.multinomial(n, p, size=draws)
    return tuple(np.quantile((counts[:, 0] - counts[:, 1]) / n, [0.025, 0.975]))


def _means(x, draws, seed):
    chosen = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    return x[chosen].mean(axis=1)


@wrong("paired_bootstrap", "resampled apart")
def unpaired(a, b, draws=2000):
    d = _means(b, draws, 11) - _means(a, draws, 12)
    return np.quantile(d, 0.025), np.quantile(d, 0.975)


@wrong("paired_bootstrap", "one standard deviation")
def plus_minus_sd(a, b, draws=2000):
    d = _means(b * 1.0 - a, draws, 5)
    return d.mean() - d.std(), d.mean() + d.std()


@wrong("paired_bootstrap", "normal approximation")
def plus_minus_two_sd(a, b, draws=2000):
    d = _means(b * 1.0 - a, draws, 5)
    return d.mean() - 1.96 * d.std(), d.mean() + 1.96 * d.std()


@wrong("paired_bootstrap", "normal approximation")
def by_formula(a, b, draws=2000):
    d = b * 1.0 - a
    half = 1.96 * d.std() / np.sqrt(len(d))
    return d.mean() - half, d.mean() + half


@wrong("paired_bootstrap", "90 %")
def ninety(a, b, draws=2000):
    return tuple(np.quantile(_means(b * 1.0 - a, draws, 9), [0.05, 0.95]))


@wrong("paired_bootstrap", None)
def ninety_nine(a, b, draws=2000):
    return tuple(np.quantile(_means(b * 1.0 - a, draws, 9), [0.005, 0.995]))


@wrong("paired_bootstrap", None)  # so far out, the random numbers decide
def percent_for_shares(a, b, draws=2000):
    random, gain = np.random.default_rng(1), b.astype(float) - a
    means = [gain[random.integers(len(a), size=len(a))].mean() for _ in range(draws)]
    return np.percentile(means, 0.025), np.percentile(means, 0.975)


@wrong("paired_bootstrap", "sign is flipped")
def a_minus_b(a, b, draws=2000):
    return tuple(np.quantile(_means(a * 1.0 - b, draws, 2), [0.025, 0.975]))


@wrong("paired_bootstrap", "Low and high")
def high_first(a, b, draws=2000):
    return tuple(np.quantile(_means(b * 1.0 - a, draws, 2), [0.975, 0.025]))


@wrong("paired_bootstrap", "around 0")
def around_zero(a, b, draws=2000):
    d = b * 1.0 - a
    return tuple(np.quantile(_means(d, draws, 2), [0.025, 0.975]) - d.mean())


@wrong("paired_bootstrap", "single examples")
def no_resampling(a, b, draws=2000):
    return tuple(np.quantile(b * 1.0 - a, [0.025, 0.975]))


@wrong("paired_bootstrap", "of model b alone")
def b_alone(a, b, draws=2000):
    return tuple(np.quantile(_means(b, draws, 2), [0.025, 0.975]))


@wrong("paired_bootstrap", "without replacement")
def without_replacement(a, b, draws=2000):
    d, g = b * 1.0 - a, np.random.default_rng(0)
    means = [g.permutation(d).mean() for _ in range(draws)]
    return tuple(np.quantile(means, [0.025, 0.975]))


@wrong("paired_bootstrap", "last example is never drawn")
def one_place_short(a, b, draws=2000):
    d, n = b * 1.0 - a, len(a)
    means = [d[np.random.randint(0, n - 1, n)].mean() for _ in range(draws)]
    return tuple(np.quantile(means, [0.025, 0.975]))


@wrong("paired_bootstrap", None)
def half_the_examples(a, b, draws=2000):
    d, g = b * 1.0 - a, np.random.default_rng(0)
    means = d[g.integers(len(d), size=(draws, len(d) // 2 + 1))].mean(axis=1)
    return tuple(np.quantile(means, [0.025, 0.975]))


@wrong("paired_bootstrap", None)
def absolute(a, b, draws=2000):
    return tuple(np.quantile(_means(abs(b * 1.0 - a), draws, 2), [0.025, 0.975]))


@wrong("paired_bootstrap", None)
def one_sided(a, b, draws=2000):
    low = np.quantile(_means(b * 1.0 - a, draws, 2), 0.025)
    return low, 1.0


@wrong("paired_bootstrap", None)
def counts_in_place_of_shares(a, b, draws=2000):
    return tuple(np.quantile(_means(b * 1.0 - a, draws, 2) * len(a), [0.025, 0.975]))


@wrong("paired_bootstrap", "TypeError")
def subtracts_bools(a, b, draws=2000):
    return tuple(np.quantile(_means(b - a, draws, 2), [0.025, 0.975]))


@wrong("paired_bootstrap", "got 3 values, expected 2")
def with_the_middle(a, b, draws=2000):
    return tuple(np.quantile(_means(b * 1.0 - a, draws, 2), [0.025, 0.5, 0.975]))


@wrong("paired_bootstrap", None)
def discordant_pairs_only(a, b, draws=2000):
    d = (b * 1.0 - a)[a != b]
    return tuple(np.quantile(_means(d, draws, 2), [0.025, 0.975])) if len(d) else (0.0, 0.0)
