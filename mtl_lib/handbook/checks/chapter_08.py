"""Exercises of chapter 08: smoothness."""

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.data import Batch
from mtl_lib.handbook.checks.chapter_05 import MultitaskModel
from mtl_lib.handbook.checks.framework import (
    Case,
    Detached,
    Exercise,
    Mistake,
    WrongKind,
    draw,
    tensor,
    with_gradient,
)
from mtl_lib.handbook.checks.precise import precisely, question
from mtl_lib.methods import regularizers
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, Task


def _normal(*shape: int, seed: int) -> Tensor:
    return draw(*shape, seed=seed, dtype=torch.float64)


# clip_to_ball


def _scaled_to(norm: Callable[[Tensor], Tensor]) -> Callable:
    """A variant: the change is made shorter, direction kept, until `norm` fits."""
    return lambda delta, radius: delta * (radius / norm(delta).clamp(min=1e-300)).clamp(max=1)


def _of_sentence(norm: Callable) -> Callable:
    """`norm` of each sentence of `[B, ..]`, shaped to divide it."""
    return lambda delta: norm(delta.flatten(1)).view(-1, *[1] * (delta.dim() - 1))


_DELTA = _normal(2, 3, 4, seed=1)

CLIP_TO_BALL = Exercise(
    name="clip_to_ball",
    chapter=8,
    title="back into the ball",
    section="Regularisation",
    difficulty=1,
    importance=4,
    minutes=5,
    task="""
Write `clip_to_ball(delta, radius)`: a change of the embeddings, a tensor of any shape, to the
nearest point of the ball $||\\delta||_\\infty \\le$ `radius`. Same shape. A change inside the ball
stays as it is.
""",
    hint="For this norm the ball is a cube. What is the nearest point of an interval to a number "
    "outside it?",
    reference=regularizers.clip_to_ball,
    cases=(
        question("some entries outside", _DELTA, 0.5),
        question("all entries outside", _DELTA + _DELTA.sign(), 0.5),
        question("all entries inside", 0.01 * _DELTA, 0.5),
        question("one sentence outside", _DELTA * torch.tensor([0.01, 3.0])[:, None, None], 1.0),
        question("radius 1e-5", 2e-5 * _DELTA, 1e-5, atol=1e-9),
        question("zero", torch.zeros(2, 3).double(), 0.1),
    ),
    mistakes=(
        *(
            Mistake(
                _scaled_to(norm),
                "It rescales by the Euclidean norm, which projects on another ball, a round one.",
            )
            for norm in (
                torch.linalg.vector_norm,
                _of_sentence(lambda rows: rows.norm(dim=1)),
                lambda delta: delta.norm(dim=-1, keepdim=True),
            )
        ),
        *(
            Mistake(
                _scaled_to(norm),
                "It makes the whole change smaller; only the entries outside have to move.",
            )
            for norm in (
                lambda delta: delta.abs().max(),
                _of_sentence(lambda rows: rows.abs().amax(dim=1)),
                lambda delta: delta.abs().amax(dim=-1, keepdim=True),
            )
        ),
        Mistake(
            lambda delta, radius: delta * radius / delta.abs().max().clamp(min=1e-300),
            "It rescales the whole change, also where it lies inside the ball.",
        ),
        Mistake(
            lambda delta, radius: delta.clamp(max=radius),
            "Entries below -radius stay outside: the ball has two sides.",
        ),
        Mistake(
            lambda delta, radius: delta.clamp(min=-radius),
            "Entries above radius stay outside: the ball has two sides.",
        ),
        Mistake(
            lambda delta, radius: torch.where(delta.abs() > radius, radius, delta),
            "Negative entries outside end on the positive wall; each goes to the nearer one.",
        ),
        Mistake(
            lambda delta, radius: delta.clamp(0, radius),
            "Negative entries are cut to zero: the ball has two sides.",
        ),
        Mistake(
            lambda delta, radius: radius * delta.sign(),
            "It puts every entry on the wall; entries inside stay as they are.",
        ),
        Mistake(
            lambda delta, radius: torch.where(delta.abs() > radius, 0.0, delta),
            "Entries outside are set to zero; the nearest point of the ball is its wall.",
        ),
        Mistake(
            lambda delta, radius: radius * torch.tanh(delta / radius),
            "It squeezes with a smooth function, which also moves what lies inside.",
        ),
        Mistake(lambda delta, radius: delta.clone(), "Nothing is clipped."),
    ),
    notes="Rescaling keeps the direction and looks more natural, but does not lead to the nearest "
    "point of this ball. 1 point.",
)


# symmetric_kl


def _log_odds(p: Tensor) -> Tensor:
    return (p / (1 - p)).log()


def _symmetric_kl_of_log_odds(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.softmax(dim=1), b.softmax(dim=1)
    return 2 * (p * (_log_odds(p) - _log_odds(q)).detach()).sum(dim=1).mean()


def _kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(P||Q) for each row: `[B]`."""
    log_p, log_q = a.log_softmax(dim=1), b.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _both(a: Tensor, b: Tensor) -> Tensor:
    return _kl(a, b) + _kl(b, a)


def _jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.softmax(dim=1), b.softmax(dim=1)
    middle = (p + q) / 2
    return sum((x * (x / middle).log()).sum(dim=1) / 2 for x in (p, q)).mean()


def _over_the_batch(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.softmax(dim=0), b.softmax(dim=0)
    return ((p - q) * (p.log() - q.log())).sum(dim=1).mean()


def _fixed_targets(divergence: Callable, which: int) -> Callable:
    """A variant: one of the two predictions of each divergence is taken for a constant."""
    if which:
        return lambda a, b: (divergence(a, b.detach()) + divergence(b, a.detach())).mean()
    return lambda a, b: (divergence(a.detach(), b) + divergence(b.detach(), a)).mean()


def _naive_softmax(a: Tensor) -> Tensor:
    return a.exp() / a.exp().sum(dim=1, keepdim=True)


def _naive(a: Tensor, b: Tensor) -> Tensor:
    p, q = _naive_softmax(a), _naive_softmax(b)
    return ((p - q) * (p.log() - q.log())).sum(dim=1).mean()


def _of_guarded_probabilities(guard: Callable[[Tensor], Tensor]) -> Callable:
    """A variant that puts something under the probabilities before it takes logarithms."""

    def variant(a: Tensor, b: Tensor) -> Tensor:
        p, q = a.softmax(dim=1), b.softmax(dim=1)
        return ((p - q) * (guard(p).log() - guard(q).log())).sum(dim=1).mean()

    return variant


def _cross_entropies(a: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(a, b.softmax(dim=1)) + F.cross_entropy(b, a.softmax(dim=1))


def _log_target_forgotten(a: Tensor, b: Tensor) -> Tensor:
    log_p, log_q = a.log_softmax(dim=1), b.log_softmax(dim=1)
    return sum(
        F.kl_div(one, other, reduction="batchmean")
        for one, other in ((log_p, log_q), (log_q, log_p))
    )


def _logarithm_forgotten(reduction: str) -> Callable:
    """A variant: `F.kl_div` of probabilities, where it takes a logarithm first."""

    def variant(a: Tensor, b: Tensor) -> Tensor:
        p, q = a.softmax(dim=1), b.softmax(dim=1)
        return F.kl_div(p, q, reduction=reduction) + F.kl_div(q, p, reduction=reduction)

    return variant


def _fixed_and(divide: Callable[[Tensor], int]) -> list[Callable]:
    """The variants of `_fixed_targets`, the sum over all divided by another number."""
    return [
        lambda a, b, which=which: _fixed_targets(_kl, which)(a, b) * len(a) / divide(a)
        for which in (0, 1)
    ]


_A, _B = _normal(3, 4, seed=2), _normal(3, 4, seed=3)


def _ask_with_gradients(a: Tensor, b: Tensor, *more: str) -> Callable:
    return precisely(
        lambda answer: with_gradient(lambda a, b: answer(a, b, *more), a=a, b=b),
    )


_DETACHED_TARGETS = (
    "The value is right, but each divergence treats its target as fixed, so half of the gradient "
    "is missing: f(x) and f(x~) both depend on the weights."
)
_OVERFLOW = (
    "It overflows: the exponential of a large logit is infinite, and infinity divided by infinity "
    "is NaN. A softmax stays the same if the largest logit is subtracted first; torch's does that."
)
_SYMMETRIC_KL_MISTAKES = (
    (lambda a, b: _kl(a, b).mean(), "That is KL(P||Q) alone; asked is its sum with KL(Q||P)."),
    (lambda a, b: _kl(b, a).mean(), "That is KL(Q||P) alone; asked is its sum with KL(P||Q)."),
    (lambda a, b: _both(a, b).mean() / 2, "That is the mean of the two divergences, not the sum."),
    *((_fixed_targets(_kl, which), _DETACHED_TARGETS) for which in (0, 1)),
    (
        lambda a, b: _both(a, b.detach()).mean(),
        "The value is right, but no gradient flows into b: f(x) and f(x~) both depend on the "
        "weights.",
    ),
    (
        lambda a, b: _both(a.detach(), b).mean(),
        "The value is right, but no gradient flows into a: f(x) and f(x~) both depend on the "
        "weights.",
    ),
    (
        lambda a, b: _both(a, b).mean() / a.shape[1],
        "It takes the mean over classes too; a divergence is a sum over classes.",
    ),
    (
        lambda a, b: _both(a, b).sum(),
        "It adds up the batch; the mean over the batch does not grow with its size.",
    ),
    (
        _over_the_batch,
        "The softmax runs over the batch; the probabilities of one example's classes add up to 1.",
    ),
    (
        lambda a, b: ((a.softmax(dim=1) - b.softmax(dim=1)) ** 2).sum(dim=1).mean(),
        "That is a squared difference of probabilities, without logarithms.",
    ),
    (
        _jensen_shannon,
        "That is the Jensen-Shannon divergence, which compares both with (P + Q) / 2.",
    ),
    (
        lambda a, b: -_both(a, b).mean(),
        "The sign is wrong: a divergence is never negative.",
    ),
    (
        _symmetric_kl_of_log_odds,
        "It compares log-odds, log p - log(1 - p), not logarithms of probabilities; that can even "
        "be negative.",
    ),
    (_naive, _OVERFLOW),
    *(
        (
            _of_guarded_probabilities(guard),
            "A small number added to the probabilities, or a floor under them, changes sure "
            "predictions; `log_softmax` needs neither.",
        )
        for small in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
        for guard in (
            lambda p, small=small: p + small,
            lambda p, small=small: p.clamp(min=small),
        )
    ),
    (
        _cross_entropies,
        "These are cross-entropies, which are not 0 for equal predictions; a divergence is what "
        "they have beyond the entropy.",
    ),
    (
        lambda a, b: 2 * _kl(a, b).mean(),
        "It counts KL(P||Q) twice; in the second one P and Q change places.",
    ),
    (
        lambda a, b: 2 * _kl(b, a).mean(),
        "It counts KL(Q||P) twice; in the second one P and Q change places.",
    ),
    (
        lambda a, b: _both(a, b).mean() / len(a),
        "It divides by the size of the batch twice.",
    ),
    (
        lambda a, b: _both(a.softmax(dim=1), b.softmax(dim=1)).mean(),
        "It takes the softmax twice: probabilities are treated as logits.",
    ),
    (
        _log_target_forgotten,
        "It is NaN: `F.kl_div` is given logarithms where it takes probabilities, unless "
        "`log_target` says otherwise.",
    ),
    *(
        (
            _logarithm_forgotten(reduction),
            "`F.kl_div` is given probabilities twice; its first argument has to be logarithms.",
        )
        for reduction in ("batchmean", "sum", "mean")
    ),
    *(
        (
            wrong,
            "It adds up the batch, and each divergence treats its target as fixed: asked is the "
            "mean, with gradients into both.",
        )
        for wrong in _fixed_and(lambda a: 1)
    ),
    *(
        (
            wrong,
            "It takes the mean over classes too, and each divergence treats its target as fixed: "
            "asked is the sum over classes, with gradients into both.",
        )
        for wrong in _fixed_and(lambda a: a.numel())
    ),
)

SYMMETRIC_KL = Exercise(
    name="symmetric_kl",
    chapter=8,
    title="how far two predictions lie apart",
    section="Regularisation",
    difficulty=2,
    importance=4,
    minutes=10,
    task="""
Write `symmetric_kl(a, b)`: logits `[B, C]` twice to a scalar, the mean over the batch of

$$KL(P||Q) + KL(Q||P)$$

with P the softmax of `a` over the C classes, Q that of `b`, and natural logarithms.

Gradients have to flow into both arguments: detach nothing.
""",
    hint="Written out, the two divergences share their logarithms; added, they become one short "
    "sum over classes. Is any of its terms ever negative?",
    reference=regularizers.symmetric_kl,
    cases=(
        question("three examples, four classes", _A, _B),
        Case("three examples, with gradients", _ask_with_gradients(_A, _B)),
        question("two classes, seven examples", _normal(7, 2, seed=4), _normal(7, 2, seed=5)),
        question("one example", _A[:1], _B[:1]),
        question("equal predictions", _A, _A + 1),
        Case("sure predictions, with gradients", _ask_with_gradients(4 * _A, 3 * _B)),
        question("very sure predictions", 12 * _A, 9 * _B),
        question("logits near 1000", _A + 1000, _B + 1000, rtol=1e-3),
    ),
    mistakes=tuple(Mistake(wrong, says) for wrong, says in _SYMMETRIC_KL_MISTAKES),
    notes="`F.kl_div` takes a logarithm first, a probability second, and means over *everything* "
    "unless told otherwise: most wrong answers come from there. Detached targets are copied from "
    "public code; the value is right and the gradient is half. 2 points.",
)


# divergence


def _divergence(classes: Callable, binary: Callable, score: Callable) -> Callable:
    """A variant: what it does with `[B, C]`, `[B, 1]` and `[B, 1]` for each kind of loss."""
    by_loss = {"classes": classes, "binary": binary, "score": score}
    return lambda a, b, loss: by_loss[loss](a, b)


def _bernoulli(a: Tensor, b: Tensor) -> Tensor:
    return regularizers.divergence(a, b, "binary")


def _half_of_bernoulli(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.sigmoid(), b.sigmoid()
    return ((p - q) * (p.log() - q.log())).mean()


def _coin_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL of two coins for each row, `[B]`."""
    return _kl(F.pad(a, (0, 1)), F.pad(b, (0, 1)))


def _naive_coin_kl(a: Tensor, b: Tensor) -> Tensor:
    p, q = a.sigmoid(), b.sigmoid()
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def _guarded_coins(guard: Callable[[Tensor], Tensor]) -> Callable:
    """A variant that puts something under the probabilities of both sides."""

    def variant(a: Tensor, b: Tensor) -> Tensor:
        p, q = a.sigmoid(), b.sigmoid()
        return sum(
            (x - y) * (guard(x) / guard(y)).log() for x, y in ((p, q), (1 - p, 1 - q))
        ).mean()

    return variant


def _infinite_coin_kl(a: Tensor, b: Tensor) -> Tensor:
    p, q = (torch.distributions.Bernoulli(logits=z) for z in (a, b))
    return torch.distributions.kl_divergence(p, q)


def _without_gradient(side: str, *losses: str) -> Mistake:
    """No gradient flows into one side, for some of the losses."""

    def variant(a: Tensor, b: Tensor, loss: str) -> Tensor:
        if loss in losses and side == "a":
            a = a.detach()
        if loss in losses and side == "b":
            b = b.detach()
        return regularizers.divergence(a, b, loss)

    of = "" if len(losses) == 3 else f" for {' and '.join(f'`{loss}`' for loss in losses)}"
    return Mistake(
        variant,
        f"The value is right, but{of} no gradient flows into {side}: f(x) and f(x~) both depend "
        "on the weights.",
    )


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).mean()


_KL = regularizers.symmetric_kl
_SURE_COINS = (
    "For `binary`, sure coins give NaN or infinity: the sigmoid is rounded to 1, and nothing is "
    "left for the other side. Stay with the logits: -z is that of the other side."
)
_U, _V = _normal(5, 1, seed=6), _normal(5, 1, seed=7)
_SURE = [torch.tensor([z]).double().T for z in ([40.0, -45.0, 42.0], [38.0, -41.0, -39.0])]

DIVERGENCE = Exercise(
    name="divergence",
    chapter=8,
    title="the same for every kind of head",
    section="Regularisation",
    difficulty=3,
    importance=3,
    minutes=10,
    task="""
Write `divergence(a, b, loss)`: two outputs of a head, `[B, C]` each, to a scalar, the mean over the
batch, with gradients into both:

- `loss == "classes"` (C of 2 or more): the symmetric KL divergence of the softmaxes;
- `loss == "binary"` (C = 1): the symmetric KL divergence of the two coins whose probabilities of
  heads are the sigmoids of the logits;
- `loss == "score"` (C = 1): the squared difference.

`symmetric_kl` is at hand in `mtl_lib.methods.regularizers`.
""",
    hint="A softmax over one logit says 1 whatever the logit. A coin has two sides: a logit z is a "
    "softmax over (z, 0).",
    reference=regularizers.divergence,
    cases=(
        question("classes", _A, _B, "classes"),
        question("binary", _U, _V, "binary"),
        question("score", _U, _V, "score"),
        *(
            Case(f"{loss}, with gradients", _ask_with_gradients(a, b, loss))
            for loss, a, b in (("classes", _A, _B), ("binary", _U, _V), ("score", _U, _V))
        ),
        question("binary, two examples", 2 * _V[:2], _U[:2], "binary"),
        question("score, one example", _V[:1], _U[:1], "score"),
        question("classes, logits near 1000", _A + 1000, _B + 1000, "classes", rtol=1e-3),
        question("binary, sure coins", *_SURE, "binary"),
    ),
    mistakes=(
        Mistake(
            _divergence(_KL, _KL, _squared),
            "For `binary` it takes a softmax over one logit, which is always 1: the divergence is "
            "always 0.",
        ),
        Mistake(_divergence(_naive, _bernoulli, _squared), _OVERFLOW),
        *(
            Mistake(
                _divergence(classes, lambda a, b, kl=kl: (kl(a, b) + kl(b, a)).mean(), _squared),
                _SURE_COINS,
            )
            for kl in (_naive_coin_kl, _infinite_coin_kl)
            for classes in (_KL, _naive)
        ),
        *(
            Mistake(
                _divergence(
                    _KL,
                    lambda a, b, kl=kl, turn=turn: kl(*(a, b)[::turn]).mean(),
                    _squared,
                ),
                "For `binary` it gives one of the two divergences; the symmetric one is their sum.",
            )
            for kl in (_coin_kl, _naive_coin_kl)
            for turn in (1, -1)
        ),
        *(
            Mistake(
                _divergence(lambda a, b, turn=turn: _kl(*(a, b)[::turn]).mean(), binary, _squared),
                "It gives one of the two divergences; the symmetric one is their sum.",
            )
            for turn in (1, -1)
            for binary in (
                _bernoulli,
                lambda a, b, turn=turn: _coin_kl(*(a, b)[::turn]).mean(),
            )
        ),
        Mistake(
            lambda a, b, loss: _squared(a, b),
            "It takes squared differences whatever the loss.",
        ),
        Mistake(
            lambda a, b, loss: _KL(a, b),
            "It takes softmaxes whatever the loss; over a single output a softmax is always 1.",
        ),
        Mistake(
            _divergence(_KL, _half_of_bernoulli, _squared),
            "For `binary` it counts the probability of heads only; a coin has two sides.",
        ),
        Mistake(
            _divergence(_KL, _squared, _squared),
            "For `binary` it compares the logits themselves; the predictions are the coins.",
        ),
        Mistake(
            _divergence(_KL, lambda a, b: _squared(a.sigmoid(), b.sigmoid()), _squared),
            "For `binary` it squares the difference of the probabilities; asked is a divergence.",
        ),
        *(
            Mistake(
                _divergence(_KL, wrong, _squared),
                "For `binary` it gives a cross-entropy, which is not 0 for equal predictions.",
            )
            for wrong in (
                lambda a, b: F.binary_cross_entropy_with_logits(a, b.sigmoid()),
                lambda a, b: F.binary_cross_entropy_with_logits(b, a.sigmoid()),
                lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid()),
                lambda a, b: F.binary_cross_entropy(b.sigmoid(), a.sigmoid()),
                lambda a, b: sum(
                    F.binary_cross_entropy_with_logits(x, y.sigmoid()) for x, y in ((a, b), (b, a))
                ),
            )
        ),
        Mistake(
            _divergence(
                _KL, lambda a, b: _KL(torch.cat([a, -a], 1), torch.cat([b, -b], 1)), _squared
            ),
            "For `binary` it takes a softmax over (z, -z), a coin with logit 2 z.",
        ),
        Mistake(
            _divergence(
                _KL,
                lambda a, b: _KL(*(torch.cat([z.sigmoid(), 1 - z.sigmoid()], 1) for z in (a, b))),
                _squared,
            ),
            "For `binary` it hands probabilities to `symmetric_kl`, which takes logits: the "
            "softmax is taken of them once more.",
        ),
        *(
            Mistake(
                _divergence(_KL, _guarded_coins(guard), _squared),
                "For `binary`, a small number added to the probabilities, or a floor under them, "
                "changes sure coins. Stay with the logits: -z is that of the other side.",
            )
            for small in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)
            for guard in (
                lambda p, small=small: p + small,
                lambda p, small=small: p.clamp(min=small),
                lambda p, small=small: p.clamp(small, 1 - small),
            )
        ),
        Mistake(
            _divergence(_KL, lambda a, b: _bernoulli(a, b) / 2, _squared),
            "For `binary` it takes the mean over the two sides of the coin, or of the two "
            "divergences; both are sums.",
        ),
        Mistake(
            _divergence(_KL, lambda a, b: _bernoulli(a, b) * len(a), _squared),
            "For `binary` it adds up the batch; the mean does not grow with its size.",
        ),
        Mistake(
            _divergence(_KL, _bernoulli, lambda a, b: ((a.squeeze(1) - b) ** 2).mean()),
            "For `score` it subtracts `[B]` and `[B, 1]`, which compares every example with every "
            "other: keep the shapes equal.",
        ),
        Mistake(
            _divergence(_KL, _bernoulli, lambda a, b: ((a - b) ** 2).sum()),
            "For `score` it adds up the batch; the mean does not grow with its size.",
        ),
        Mistake(
            _divergence(_KL, _bernoulli, lambda a, b: (a - b).abs().mean()),
            "For `score` it takes absolute differences; asked are squares.",
        ),
        Mistake(
            _divergence(_KL, _bernoulli, _KL),
            "For `score` it takes a softmax over one number, which is always 1.",
        ),
        Mistake(
            _divergence(_KL, _bernoulli, lambda a, b: _squared(a, b).sqrt()),
            "For `score` it takes the root; asked are squares.",
        ),
        Mistake(
            _divergence(_KL, _bernoulli, lambda a, b: (a - b).mean() ** 2),
            "For `score` it squares the mean difference; asked is the mean of the squares.",
        ),
        *(
            _without_gradient(side, *losses)
            for losses in (
                ("classes", "binary", "score"),
                ("classes", "binary"),
                ("classes",),
                ("binary",),
                ("score",),
            )
            for side in "ab"
        ),
        *(
            Mistake(_divergence(classes, binary, _squared), _DETACHED_TARGETS)
            for which in (0, 1)
            for classes, binary in (
                (_fixed_targets(_kl, which), _fixed_targets(_coin_kl, which)),
                (_fixed_targets(_kl, which), _bernoulli),
                (_KL, _fixed_targets(_coin_kl, which)),
            )
        ),
    ),
    notes="The softmax over one logit is found in public code: the paraphrase term is then always "
    "0 and nobody notices, since it only ever makes training easier. 3 points.",
)


# smart_step


def smart_step(
    x_tilde: Tensor, x: Tensor, gradient: Tensor, step_size: float, radius: float
) -> Tensor:
    """One ascent of SMART (Jiang et al., 2020, section 3.1), all `[B, L, H]` -> `[B, L, H]`.

    `regularizers.SmoothnessRegularizer.perturbation` does the same to x~ - x.
    """
    return _step(_largest_of_sentence)(x_tilde, x, gradient, step_size, radius)


def _largest_of_sentence(gradient: Tensor) -> Tensor:
    return gradient.abs().amax(dim=(1, 2), keepdim=True)


def _step(size: Callable, uphill: int = 1, project: Callable | None = None) -> Callable:
    """A variant: the gradient divided by `size`, then `project(stepped, x, x_tilde, radius)`."""

    def variant(x_tilde, x, gradient, step_size, radius):
        divisor = size(gradient)
        unit = torch.where(divisor > 0, gradient / divisor, 0.0)
        stepped = x_tilde + uphill * step_size * unit
        if project is None:
            return x + regularizers.clip_to_ball(stepped - x, radius)
        return project(stepped, x, x_tilde, radius)

    return variant


def _not_guarded(x_tilde, x, gradient, step_size, radius):
    stepped = x_tilde + step_size * gradient / _largest_of_sentence(gradient)
    return x + regularizers.clip_to_ball(stepped - x, radius)


def _guarded(guard: Callable[[Tensor], Tensor]) -> Callable:
    return _step(lambda gradient: guard(_largest_of_sentence(gradient)))


def _signs(x_tilde, x, gradient, step_size, radius):
    return x + regularizers.clip_to_ball(x_tilde + step_size * gradient.sign() - x, radius)


def _onto_round_ball(stepped, x, x_tilde, radius):
    delta = stepped - x
    norms = delta.flatten(1).norm(dim=1)[:, None, None]  # [B, 1, 1]
    return x + delta * (radius / norms).clamp(max=1)


def _shortened(largest: Callable[[Tensor], Tensor]) -> Callable:
    return lambda stepped, x, x_tilde, radius: x + _scaled_to(largest)(stepped - x, radius)


def _ask_step(step_size: float, radius: float, scale: Tensor | float = 1.0, seed: int = 8) -> tuple:
    x = _normal(2, 3, 4, seed=seed)
    x_tilde = x + 0.5 * radius * _normal(2, 3, 4, seed=seed + 1).clamp(-2, 2)
    return x_tilde, x, scale * _normal(2, 3, 4, seed=seed + 2), step_size, radius


def _otherwise_guarded(size: Callable[[Tensor], Tensor]) -> tuple[Callable, ...]:
    """The step with another size, as first drafts divide: bare, or with a small number added."""

    def bare(x_tilde, x, gradient, step_size, radius):
        stepped = x_tilde + step_size * gradient / size(gradient)
        return x + regularizers.clip_to_ball(stepped - x, radius)

    small = (_step(lambda gradient, s=s: size(gradient) + s) for s in (1e-6, 1e-8, 1e-12))
    return bare, *small


def _matrix_norm(gradient: Tensor) -> Tensor:
    return torch.linalg.norm(gradient, ord=float("inf"), dim=(1, 2), keepdim=True)


_NOT_THE_CHANGE = (
    "It divides the whole change by its largest size; only the gradient is divided, the start "
    "keeps its own."
)


def _whole_change(largest: Callable[[Tensor], Tensor], to_radius: bool) -> Callable:
    """What the port does: x~ - x, the start in it, is divided by its own largest size."""

    def variant(x_tilde, x, gradient, step_size, radius):
        moved = x_tilde - x + step_size * gradient
        return x + (radius if to_radius else 1) * moved / largest(moved)

    return variant


_WRONG_SIZES = (
    (
        lambda gradient: gradient.abs().max(),
        "It divides by the largest size in the whole batch, so that a sentence's step "
        "depends on its neighbours in the batch.",
    ),
    (
        lambda gradient: gradient.flatten(1).norm(dim=1)[:, None, None],
        "It divides by the Euclidean length; for this ball a gradient's size is its largest entry.",
    ),
    (
        lambda gradient: gradient.norm(),
        "It divides by the Euclidean length of the whole batch's gradient.",
    ),
    (
        lambda gradient: gradient.norm(dim=2, keepdim=True),
        "It divides by the Euclidean length of each token; one number belongs to each sentence, "
        "its largest size.",
    ),
    (
        lambda gradient: gradient.abs().amax(dim=2, keepdim=True),
        "It divides token by token; one number belongs to each sentence.",
    ),
    (
        lambda gradient: gradient.abs().amax(dim=1, keepdim=True),
        "It divides each hidden entry by its largest over the tokens; one number belongs to "
        "each sentence.",
    ),
    (
        lambda gradient: gradient.amax(dim=(1, 2), keepdim=True),
        "It divides by the largest entry; the largest *size* may belong to a negative one.",
    ),
    (
        _matrix_norm,
        "Over two axes `torch.linalg.norm` with inf is a matrix norm, the largest row sum.",
    ),
)
_FIRST_DRAFTS = tuple(
    Mistake(wrong, says) for size, says in _WRONG_SIZES for wrong in _otherwise_guarded(size)
)
_NAN_STEP = "A sentence whose gradient is zero becomes NaN: zero divided by zero."
_SHORT_STEP = (
    "A small number in the denominator shortens the step along a short gradient; only a gradient "
    "of zero needs care."
)
_UNEQUAL = torch.tensor([1.0, 100.0]).double()[:, None, None]
_ONE_ZERO = torch.tensor([1.0, 0.0]).double()[:, None, None]

SMART_STEP = Exercise(
    name="smart_step",
    chapter=8,
    title="one step of ascent, kept in its ball",
    section="Regularisation",
    difficulty=3,
    importance=5,
    minutes=12,
    task="""
Write `smart_step(x_tilde, x, gradient, step_size, radius)`. `x`: embeddings `[B, L, H]`; `x_tilde`:
the point near x that the search has reached; `gradient`: that of the difference to be made large,
at `x_tilde`. Return the next `x_tilde`, `[B, L, H]`:

1. divide each sentence's gradient by its largest size (over that sentence's L * H entries); a
   gradient of zero stays zero;
2. go `step_size` times that uphill;
3. go back to the nearest point with $||\\tilde x - x||_\\infty \\le$ `radius`.
""",
    hint="The ball stands around x, and the cube's wall is a limit on the difference to x. Which "
    "axes belong to one sentence?",
    reference=smart_step,
    cases=(
        question("a short step, most entries stay inside", *_ask_step(0.05, 0.5)),
        question("a long step, onto the wall", *_ask_step(5.0, 0.1)),
        question("one sentence's gradient 100 times as long", *_ask_step(0.3, 0.5, _UNEQUAL)),
        question("a gradient near 1e-9", *_ask_step(0.2, 0.3, 1e-9)),
        question("one sentence's gradient is zero", *_ask_step(0.2, 0.3, _ONE_ZERO)),
        question("another batch", *_ask_step(0.1, 0.05, seed=11)),
    ),
    mistakes=(
        Mistake(
            _step(_largest_of_sentence, uphill=-1),
            "It goes downhill, to where the prediction changes least; asked is the worst point.",
        ),
        Mistake(
            _step(lambda gradient: torch.ones(1).double()),
            "The gradient is not divided by its size, so the length of the step is left to chance.",
        ),
        *(Mistake(_step(size), says) for size, says in _WRONG_SIZES),
        Mistake(
            _signs,
            "It takes the signs of the gradient, full steps for every entry; here entries keep "
            "their proportions.",
        ),
        *(
            Mistake(
                _guarded(guard),
                _SHORT_STEP,
            )
            for guard in (
                *(lambda size, s=s: size + s for s in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)),
                *(lambda size, s=s: size.clamp(min=s) for s in (1e-6, 1e-7, 1e-8)),
            )
        ),
        Mistake(
            _not_guarded,
            _NAN_STEP,
        ),
        *(
            Mistake(_whole_change(largest, to_radius), _NOT_THE_CHANGE)
            for largest in (
                lambda moved: moved.abs().amax(dim=2, keepdim=True),
                _largest_of_sentence,
                lambda moved: moved.abs().max(),
            )
            for to_radius in (False, True)
        ),
        Mistake(
            _step(_largest_of_sentence, project=lambda stepped, x, x_tilde, radius: stepped),
            "Nothing brings it back into the ball: a long step ends far away from x.",
        ),
        Mistake(
            _step(
                _largest_of_sentence,
                project=lambda stepped, x, x_tilde, radius: stepped.clamp(-radius, radius),
            ),
            "It clips the embeddings themselves; the ball limits their difference to x.",
        ),
        Mistake(
            _step(
                _largest_of_sentence,
                project=lambda stepped, x, x_tilde, radius: (
                    x_tilde + (stepped - x_tilde).clamp(-radius, radius)
                ),
            ),
            "It clips the step, a ball around the old x_tilde; the ball stands around x.",
        ),
        Mistake(
            _step(
                _largest_of_sentence,
                project=lambda stepped, x, x_tilde, radius: (stepped - x).clamp(-radius, radius),
            ),
            "It returns the difference to x; asked is the point itself.",
        ),
        Mistake(
            _step(_largest_of_sentence, project=_onto_round_ball),
            "It goes back into a round ball (Euclidean norm); this one is a cube.",
        ),
        *(
            Mistake(
                _step(_largest_of_sentence, project=_shortened(largest)),
                "It goes back by making the whole change shorter; only the entries outside have to "
                "move.",
            )
            for largest in (_largest_of_sentence, lambda delta: delta.abs().max())
        ),
        Mistake(
            lambda x_tilde, *rest: smart_step(rest[0], *rest),
            "It starts from x; the step goes on from x_tilde, where the gradient was taken.",
        ),
        Mistake(
            lambda x_tilde, x, gradient, step_size, radius: smart_step(
                x_tilde, x, gradient, radius, step_size
            ),
            "`step_size` and `radius` have changed places.",
        ),
        *_FIRST_DRAFTS,
    ),
    notes="A popular port ends with a largest entry of 0.97 where epsilon is 1e-5: no projection, "
    "and a cosine of 0.99 to the initial noise, so it is neither small nor adversarial. Long "
    "steps hide the wrong normalisation, since everything ends on the wall. 3 points.",
)


# smart_penalty


def _without_dropout(model: nn.Module, penalty: Callable[[], Tensor]) -> Tensor:
    was_training = model.training
    model.eval()
    value = penalty()
    model.train(was_training)
    return value


def smart_penalty(
    model: nn.Module, x: Tensor, start: Tensor, step_size: float, radius: float
) -> Tensor:
    """SMART's R with one ascent from a given start and symmetric KL; a scalar.

    What `regularizers.SmoothnessRegularizer` computes, which draws `start` itself.
    """
    return _without_dropout(model, lambda: _penalty(model, x, start, step_size, radius))


def _constant_change(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    return x + (step(x.detach()) - x.detach())


def _constant_point(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    return step(x.detach())


def _through_the_step(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    return step(x)


def _beside_x(x: Tensor, start: Tensor) -> Tensor:
    return (x + start).detach()


def _penalty(
    model,
    x,
    start,
    step_size,
    radius,
    begin=_beside_x,
    target=torch.Tensor.detach,
    climbed=_KL,
    graph=False,
    step=smart_step,
    reached=_constant_change,
    difference=_KL,
):
    outputs = model(x)
    x_tilde = begin(x, start).requires_grad_()
    found = climbed(model(x_tilde), target(outputs))
    (gradient,) = torch.autograd.grad(found, x_tilde, create_graph=graph)
    point = reached(x, lambda x: step(x_tilde.detach(), x, gradient, step_size, radius))
    return difference(model(point), outputs)


def _same(value: Tensor) -> Tensor:
    return value


def _smart_variant(penalty: Callable) -> Callable:
    return lambda model, *rest: _without_dropout(model, lambda: penalty(model, *rest))


def _however_x_is_used(penalty: Callable) -> tuple[Callable, ...]:
    """The penalty with the right gradient of x, and with those that most people get."""
    return (
        penalty,
        partial(penalty, reached=_constant_point),
        partial(penalty, reached=_through_the_step),
    )


def _mistakes(says: str, penalty: Callable = _penalty, **changes) -> tuple[Mistake, ...]:
    wrong = _however_x_is_used(partial(penalty, **changes))
    return tuple(Mistake(_smart_variant(each), says) for each in wrong)


def _x_detached(model, x, *rest):
    return _penalty(model, x.detach(), *rest)


def _clean_x_detached(model, x, *rest, **changes):
    return _penalty(lambda y: model(y.detach() if y is x else y), x, *rest, **changes)


def _start_clipped(model, x, start, step_size, radius, **changes):
    start = regularizers.clip_to_ball(start, radius)
    return _penalty(model, x, start, step_size, radius, **changes)


def _random_only(model, x, start, step_size, radius):
    moved = x + regularizers.clip_to_ball(start, radius)
    return _without_dropout(model, lambda: _KL(model(moved), model(x)))


def _start_only(model, x, start, step_size, radius):
    return _without_dropout(model, lambda: _KL(model(x + start), model(x)))


def _from_x_itself(model, x, start, step_size, radius):
    return smart_penalty(model, x, torch.zeros_like(start), step_size, radius)


def _dropout_at_the_end(model, *arguments, reached=_constant_change):
    was_training = model.training

    def point(x, step):
        model.train(was_training)
        return reached(x, step)

    return _penalty(model.eval(), *arguments, reached=point)


def _left_in_eval(model, *arguments, **changes):
    return _penalty(model.eval(), *arguments, **changes)


def _left_in_train(model, *arguments, **changes):
    value = _penalty(model.eval(), *arguments, **changes)
    model.train()
    return value


def _filled_grads(model, x, start, step_size, radius, reached=_constant_change, again=True):
    """`again`: the prediction at x is made once more for what is returned."""
    outputs = None if again else model(x)
    x_tilde = _beside_x(x, start).requires_grad_()
    _KL(model(x_tilde), (model(x) if again else outputs).detach()).backward()
    point = reached(x, lambda x: smart_step(x_tilde.detach(), x, x_tilde.grad, step_size, radius))
    return _KL(model(point), model(x) if again else outputs)


class _Network(nn.Module):
    """Dropout, a hidden layer, mean over tokens, three classes: `[B, L, H]` -> `[B, 3]`."""

    def __init__(self, hidden: int):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.inner, self.outer = nn.Linear(hidden, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.outer(torch.tanh(self.inner(self.dropout(2 * x))).mean(dim=1))


def _ask_penalty(
    step_size: float,
    radius: float,
    training: bool,
    noise: float = 0.1,
    seed: int = 20,
    embedded: bool = True,
) -> Callable:
    """Value, its gradients in the weights, and whether the model is as it was.

    With `embedded`, x comes from another network, and its gradient is asked for, too.
    """

    def ask(answer: Callable) -> dict:
        torch.manual_seed(seed)
        model = _Network(4).train(training)
        leaf, start = _normal(5, 2, 4, seed=seed), noise * radius * _normal(5, 2, 4, seed=seed + 1)
        x = leaf.requires_grad_().clone() if embedded else leaf
        for p in model.parameters():
            p.grad = torch.ones_like(p)  # of another loss
        torch.manual_seed(0)
        value = answer(model, x, start, step_size, radius)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise Detached
        kept = all(p.grad is not None and bool((p.grad == 1).all()) for p in model.parameters())
        model.zero_grad()
        leaf.grad = None
        value.backward()
        gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()}
        if embedded:
            gradients["gradient of x"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        modes = {"train" if module.training else "eval" for module in model.modules()}
        return {
            "value": value.detach(),
            **{k: torch.zeros(1) if g is None else g for k, g in gradients.items()},
            "mode of the model afterwards": " and ".join(sorted(modes)),
            "weights' .grad as before the search": kept,
        }

    return precisely(ask)


SMART_PENALTY = Exercise(
    name="smart_penalty",
    chapter=8,
    title="the whole of SMART",
    section="Regularisation",
    difficulty=4,
    importance=4,
    minutes=25,
    task="""
Write `smart_penalty(model, x, start, step_size, radius)`: SMART's R for a batch with one step of
ascent, a scalar tensor.

`model` is a module that maps embeddings `[B, L, H]` to logits `[B, C]` and has dropout inside;
`x`: the embeddings; `start`: a small random change of the same shape, drawn already. From
`x + start` take one `smart_step` along the gradient of the symmetric KL divergence between the two
predictions; return the divergence between the prediction at the point reached and that at x.
`smart_step` and `symmetric_kl` are yours to call.

- No dropout in any of the passes: it is smoothness that is measured, not the masks. Leave the model
  in the mode in which it came.
- The change found is a constant, which is added to `x`. Gradients flow through *both* predictions,
  into the weights and into `x`, which may come from another network.
- The search leaves no trace in the weights' `.grad`.
""",
    hint="`torch.autograd.grad(value, point)` gives one gradient and writes into no `.grad`. In "
    "which of the two divergences may the prediction at x be a constant: in the one that finds the "
    "point, or in the one that is returned?",
    reference=smart_penalty,
    cases=(
        *(
            Case(name, _ask_penalty(*settings), atol=1e-8)
            for name, settings in {
                "in train mode": (0.05, 0.5, True),
                "in eval mode": (0.05, 0.5, False, 0.1, 20, False),
                "a step far beyond the ball": (10.0, 0.2, True, 0.1, 30),
                "a start outside the ball": (0.1, 0.2, True, 3.0, 40),
            }.items()
        ),
    ),
    mistakes=(
        *(
            Mistake(
                wrong,
                "Dropout is on, and each pass draws other masks: the term measures "
                "dropout, and is not 0 even where nothing is changed.",
            )
            for penalty in (_penalty, _filled_grads, partial(_filled_grads, again=False))
            for wrong in _however_x_is_used(penalty)
        ),
        *(
            Mistake(
                wrong,
                "Dropout is on again in the last pass: the model goes back to its mode too early.",
            )
            for wrong in _however_x_is_used(_dropout_at_the_end)
        ),
        *(
            Mistake(
                wrong,
                "It takes the random start for the answer: nobody has looked for the worst point.",
            )
            for wrong in (_random_only, _start_only)
        ),
        Mistake(
            _from_x_itself,
            "It comes out as 0, as for a search that starts at x itself, where the divergence and "
            "its gradient vanish.",
        ),
        *(
            each
            for mistake in SMART_STEP.mistakes
            if mistake.says not in (_NAN_STEP, _SHORT_STEP) and mistake not in _FIRST_DRAFTS
            for each in _mistakes(mistake.says, step=mistake.wrong)
        ),
        *_mistakes(
            "The start is clipped first; only the point reached goes back into the ball.",
            _start_clipped,
        ),
        *(
            each
            for turn in (1, -1)
            for each in _mistakes(
                "The search climbs one of the two divergences; it is their sum that is to be made "
                "large.",
                climbed=lambda a, b, turn=turn: _kl(*(a, b)[::turn]).mean(),
            )
        ),
        *_mistakes(
            "The value is right, but the prediction at x is taken for a constant in what is "
            "returned, so part of the gradient is missing.",
            difference=lambda moved, outputs: _KL(moved, outputs.detach()),
        ),
        *_mistakes(
            "The value is right, but the prediction at the point reached is taken for a constant, "
            "so part of the gradient is missing.",
            difference=lambda moved, outputs: _KL(moved.detach(), outputs),
        ),
        *(
            each
            for wrong, says in (
                (lambda a, b: _kl(b, a).mean(), "It returns one divergence, from x to the point."),
                (lambda a, b: _kl(a, b).mean(), "It returns one divergence, from the point to x."),
                (_fixed_targets(_kl, 0), _DETACHED_TARGETS),
                (_fixed_targets(_kl, 1), _DETACHED_TARGETS),
            )
            for each in _mistakes(says, difference=wrong)
        ),
        *(
            each
            for target in (torch.Tensor.detach, _same)
            for begin in (_beside_x, torch.add)
            for each in _mistakes(
                "The value is right, but the change found is not a constant: the gradient that "
                "found it is itself differentiated.",
                graph=True,
                target=target,
                begin=begin,
            )
        ),
        *(
            Mistake(
                _smart_variant(wrong),
                "The value and the weights' gradients are right, but not the gradient of x: only "
                "the change is a constant. Added to x itself, it lets both predictions reach what "
                "made the embeddings.",
            )
            for wrong in (
                *_however_x_is_used(_penalty)[1:],
                *_however_x_is_used(_clean_x_detached),
                _x_detached,
            )
        ),
        *(
            Mistake(
                wrong,
                "It leaves the model in eval mode: the rest of the training would run without "
                "dropout.",
            )
            for wrong in _however_x_is_used(_left_in_eval)
        ),
        *(
            Mistake(wrong, "It leaves the model in train mode, also where it came in eval mode.")
            for wrong in _however_x_is_used(_left_in_train)
        ),
        *_mistakes(
            "The value is right, but the search changes the weights' `.grad`, and the optimizer "
            "uses what stands there.",
            _filled_grads,
        ),
    ),
    notes="Unshared dropout is the trap: a term of .50 in place of 6e-6 was measured in public "
    "code. Then `backward` in the search, which writes into `.grad`, and a target detached in the "
    "returned term. Easily overlooked: a point found that no longer depends on x, or only where it "
    "was clipped, teaches the embeddings nothing. 5 points.",
)


# AfterEmbeddings


class AfterEmbeddings(nn.Module):
    """What a multi-task model does with finished embeddings: `[n*B, L, H]` -> logits `[B, C]`.

    Args:
        model: has `encoder` with `embeddings`, `encoder` and `pooler`, and `heads` by task name.
        task: whose head is asked.
        attention_mask: 1 on tokens, 0 on padding, `[n*B, L]`.
    """

    def __init__(self, model: nn.Module, task: Task, attention_mask: Tensor) -> None:
        super().__init__()
        self.model, self.task, self.attention_mask = model, task, attention_mask

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.model.encoder.encoder(x, self.attention_mask)  # [n*B, L, H]
        vectors = self.model.encoder.pooler(hidden)  # [n*B, H]
        return self.model.heads[self.task.name](vectors)


_SMALL = BertConfig(
    vocab_size=13,
    hidden_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=8,
    max_position_embeddings=9,
    hidden_dropout_prob=0.3,
    attention_probs_dropout_prob=0.3,
    initializer_range=0.6,
)
_WEATHER = Task("weather", outputs=3)


def _own_model(seed: int) -> MultitaskModel:
    torch.manual_seed(seed)
    tasks = (_WEATHER, SENTIMENT, PARAPHRASE)
    return MultitaskModel(BertModel(_SMALL), _SMALL.hidden_size, tasks, dropout=0.3)


def _own_batch(task: Task, seed: int, size: int = 4, length: int = 5) -> Batch:
    """Random words; every row but the first is padded."""
    generator = torch.Generator().manual_seed(seed)
    rows = task.sentences * size
    lengths = torch.randint(2, length, (rows,), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(1, _SMALL.vocab_size, (rows, length), generator=generator) * mask
    labels = torch.zeros(size, dtype=torch.long)
    return Batch(task, [str(n) for n in range(size)], ids, mask, labels)


def _ask_after(task: Task, seed: int) -> Callable:
    """Logits from embeddings, their gradients, and whether modes reach the model."""

    def ask(answer: Callable) -> dict:
        model, batch = _own_model(seed), _own_batch(task, seed)
        parts = (model.encoder.encoder, model.encoder.pooler, model.heads[task.name])

        def modes() -> str:
            trains = {module.training for part in parts for module in part.modules()}
            return " and ".join(sorted("train" if mode else "eval" for mode in trains))

        rest = answer(model, task, batch.attention_mask.clone())
        if not isinstance(rest, nn.Module):
            raise WrongKind(f"it makes {type(rest).__name__}, expected an nn.Module")
        made = modes()
        reached = rest.eval() is not None and modes() == "eval"
        model.eval()
        x = model.encoder.embeddings(batch.input_ids).detach().requires_grad_()
        logits = tensor(rest(x))
        if not logits.requires_grad:
            raise Detached
        weights = torch.arange(1, logits.numel() + 1).sin().view(logits.shape)
        (logits * weights).sum().backward()
        gradients = {
            f"gradient of {name}": torch.zeros_like(w) if w.grad is None else w.grad.clone()
            for name, w in model.named_parameters()
        }
        of_x = torch.zeros_like(x) if x.grad is None else x.grad.clone()
        rest.train()
        torch.manual_seed(seed)
        with torch.no_grad():
            in_train = tensor(rest(x))
        return {
            "logits": logits.detach(),
            "gradient of x": of_x,
            **gradients,
            "mode of the model once it is made": made,
            "eval() reaches the model": reached,
            "mode of the model after train() and a pass": modes(),
            "logits in train mode": in_train,
        }

    return precisely(ask)


def _after(forward: Callable) -> type:
    """The class with another forward pass, `forward(self, x)`."""
    return type("AfterEmbeddings", (AfterEmbeddings,), {"forward": forward})


def _vectors(rest: AfterEmbeddings, x: Tensor) -> Tensor:
    return rest.model.encoder.pooler(rest.model.encoder.encoder(x, rest.attention_mask))


def _positions_again(rest: AfterEmbeddings, x: Tensor) -> Tensor:
    embeddings = rest.model.encoder.embeddings
    x = x + embeddings.position_embeddings(torch.arange(x.shape[1]))
    return AfterEmbeddings.forward(rest, embeddings.LayerNorm(x))


def _dropped_again(rest: AfterEmbeddings, x: Tensor) -> Tensor:
    dropout = rest.model.encoder.embeddings.dropout
    return AfterEmbeddings.forward(rest, F.dropout(x, dropout.p, rest.training))


def _eval_inside(rest: AfterEmbeddings, x: Tensor) -> Tensor:
    rest.model.eval()
    return AfterEmbeddings.forward(rest, x)


class _MadeInEval(AfterEmbeddings):
    def __init__(self, model: nn.Module, task: Task, attention_mask: Tensor) -> None:
        super().__init__(model.eval(), task, attention_mask)


class _Copied(AfterEmbeddings):
    def __init__(self, model: nn.Module, task: Task, attention_mask: Tensor) -> None:
        super().__init__(copy.deepcopy(model), task, attention_mask)


class _Hidden(nn.Module):
    """The model is kept where torch does not look for modules."""

    def __init__(self, model: nn.Module, task: Task, attention_mask: Tensor) -> None:
        super().__init__()
        self.kept = [AfterEmbeddings(model, task, attention_mask)]

    def forward(self, x: Tensor) -> Tensor:
        return self.kept[0](x)


AFTER_EMBEDDINGS = Exercise(
    name="AfterEmbeddings",
    chapter=8,
    title="your model, from its embeddings on",
    section="Regularisation",
    difficulty=3,
    importance=4,
    minutes=10,
    task="""
SMART moves the embeddings, so it needs your model in two parts: what makes the embeddings, and what
comes after them. Write the second as an `nn.Module`:
`AfterEmbeddings(model, task, attention_mask)`.

- `model` is your multi-task model of chapter 05: `model.encoder` is your `Bert`, with the parts
  `embeddings`, `encoder` (the layers) and `pooler`; `model.heads` has a head for each task's name.
- `forward(x)`: finished embeddings `[n*B, L, H]`, such as `model.encoder.embeddings(input_ids)`
  returns them, to the logits `[B, C]` of `task` (n sentences an example). `attention_mask` is
  `[n*B, L]`.
- In eval mode `forward(model.encoder.embeddings(batch.input_ids))` is what `model(batch)` is. In
  train mode it has the model's own dropout from there on, no more and no less.
- It has no weights of its own: gradients reach those of `model`, and so do `eval()` and `train()`.
""",
    hint="What does your `Bert.forward` do after its first line? A module that is set as an "
    "attribute of another one becomes a part of it.",
    reference=AfterEmbeddings,
    cases=(
        Case("one sentence, five classes", _ask_after(SENTIMENT, 31)),
        Case("pairs, one output", _ask_after(PARAPHRASE, 32)),
        Case("a task of three classes", _ask_after(_WEATHER, 33)),
    ),
    mistakes=(
        Mistake(
            _after(_positions_again),
            "Positions and LayerNorm are applied once more: `x` is finished already, and even "
            "without any change of it the prediction would move.",
        ),
        Mistake(
            _after(
                lambda rest, x: AfterEmbeddings.forward(
                    rest, rest.model.encoder.embeddings.LayerNorm(x)
                )
            ),
            "LayerNorm is applied once more: `x` is finished already.",
        ),
        Mistake(
            _after(
                lambda rest, x: rest.model.heads[rest.task.name](
                    rest.model.encoder.pooler(
                        rest.model.encoder.encoder(x, torch.ones_like(rest.attention_mask))
                    )
                )
            ),
            "Words look at padding: the layers need the attention mask.",
        ),
        Mistake(
            _after(
                lambda rest, x: rest.model.heads[rest.task.name](
                    rest.model.encoder.encoder(x, rest.attention_mask)[:, 0]
                )
            ),
            "The pooler is left out: the head sees the bare vector of [CLS].",
        ),
        Mistake(
            _after(
                lambda rest, x: rest.model.heads[rest.task.name](
                    rest.model.encoder.encoder(x, rest.attention_mask).mean(dim=1)
                )
            ),
            "The head sees the mean of the tokens' vectors; in your model it is the pooler's "
            "output.",
        ),
        Mistake(
            _after(lambda rest, x: rest.model.heads[rest.task.name](rest.model.encoder.pooler(x))),
            "The layers are left out: the embeddings go straight to the pooler.",
        ),
        Mistake(
            _after(lambda rest, x: AfterEmbeddings.forward(rest, x).softmax(dim=1)),
            "It returns probabilities; asked are logits.",
        ),
        Mistake(
            _after(lambda rest, x: AfterEmbeddings.forward(rest, x.detach())),
            "No gradient reaches x: nothing could look for the worst change of it.",
        ),
        Mistake(
            _MadeInEval,
            "It puts the model into eval mode when it is made; the mode is for the caller to set.",
        ),
        Mistake(
            _after(_eval_inside),
            "`forward` puts the model into eval mode; the mode is for the caller to set.",
        ),
        Mistake(
            _after(_dropped_again),
            "It applies the embeddings' dropout once more: `x` is finished already.",
        ),
        Mistake(
            _Copied,
            "It works on a copy of the model: no gradient and no mode reaches the model itself.",
        ),
        Mistake(
            _Hidden,
            "`eval()` and `train()` do not reach the model: torch finds only modules that are "
            "attributes themselves.",
        ),
    ),
    notes="Short, if chapter 02 was understood. Positions added twice is the fault of public code: "
    "the prediction moves by a percent at zero noise. 3 points.",
)


# smart_term


def smart_term(
    model: nn.Module, batch: Batch, start: Tensor, step_size: float, radius: float
) -> Tensor:
    """SMART's R of a batch for a multi-task model, to be added to the task's loss; a scalar.

    Args:
        model: as in `AfterEmbeddings`.
        batch: of a task with classes.
        start: a small random change of the embeddings, `[n*B, L, H]`.
        step_size, radius: as in `smart_penalty`.
    """

    def penalty() -> Tensor:
        x = model.encoder.embeddings(batch.input_ids)  # without dropout, too
        rest = AfterEmbeddings(model, batch.task, batch.attention_mask)
        return smart_penalty(rest, x, start, step_size, radius)

    return _without_dropout(model, penalty)


def _ask_term(task: Task, seed: int, training: bool, radius: float, step_size: float) -> Callable:
    """The term, all gradients, and whether the model is as it was."""

    def ask(answer: Callable) -> dict:
        model, batch = _own_model(seed).train(training), _own_batch(task, seed)
        start = 0.1 * radius * _normal(*batch.input_ids.shape, _SMALL.hidden_size, seed=seed)
        for w in model.parameters():
            w.grad = torch.ones_like(w)  # of another loss
        torch.manual_seed(0)
        value = answer(model, batch, start, step_size, radius)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise Detached
        kept = all(w.grad is not None and bool((w.grad == 1).all()) for w in model.parameters())
        model.zero_grad()
        value.backward()
        modes = {"train" if module.training else "eval" for module in model.modules()}
        return {
            "value": value.detach(),
            **{
                f"gradient of {name}": torch.zeros_like(w) if w.grad is None else w.grad
                for name, w in model.named_parameters()
            },
            "mode of the model afterwards": " and ".join(sorted(modes)),
            "weights' .grad as before": kept,
        }

    return precisely(ask)


def _term(
    model,
    batch,
    start,
    step_size,
    radius,
    embed=lambda embeddings, ids: embeddings(ids),
    whole=AfterEmbeddings,
    penalty=smart_penalty,
) -> Tensor:
    x = embed(model.encoder.embeddings, batch.input_ids)
    return penalty(whole(model, batch.task, batch.attention_mask), x, start, step_size, radius)


def _term_variant(**changes) -> Callable:
    return lambda model, *rest: _without_dropout(model, lambda: _term(model, *rest, **changes))


def _term_left_in_eval(model: nn.Module, *rest) -> Tensor:
    value = smart_term(model, *rest)
    model.eval()
    return value


def _term_left_in_train(model: nn.Module, *rest) -> Tensor:
    value = smart_term(model, *rest)
    model.train()
    return value


def _term_with_dropped_embeddings(model: nn.Module, *rest) -> Tensor:
    """Dropout is on while the embeddings are made; the mode afterwards is right."""
    was_training = model.training
    value = _term(model, *rest)
    model.train(was_training)
    return value


def _term_in_train_mode(model: nn.Module, batch: Batch, start, step_size, radius) -> Tensor:
    x = model.encoder.embeddings(batch.input_ids)
    rest = AfterEmbeddings(model, batch.task, batch.attention_mask)
    return _penalty(rest, x, start, step_size, radius)


def _with_task_loss(model: nn.Module, batch: Batch, *rest) -> Tensor:
    return batch.task.loss(model(batch), batch.labels) + smart_term(model, batch, *rest)


def _cleared(model: nn.Module, *rest) -> Tensor:
    model.zero_grad()
    return smart_term(model, *rest)


_DROPPED = (
    "Dropout is on while the embeddings are made, so R is measured around an x with holes in it. "
    "The model has to be in eval mode before the first pass, the embeddings' own included."
)

SMART_TERM = Exercise(
    name="smart_term",
    chapter=8,
    title="SMART for your own model",
    section="Regularisation",
    difficulty=4,
    importance=4,
    minutes=15,
    task="""
Write `smart_term(model, batch, start, step_size, radius)`: SMART's R of one batch for your
multi-task model, a scalar tensor that a training step adds to the task's loss.

- `batch` has `input_ids` and `attention_mask`, `[B, L]`, and a `task` with classes. `start` is a
  small random change of its embeddings, `[B, L, H]`, drawn already.
- The embeddings are made by the model, so gradients have to reach *all* its weights that act on the
  batch: the head's, the layers' and the embeddings'.
- No dropout in any of the passes, the embeddings' own included. Leave the model in the mode in
  which it came, train or eval.
- The weights' `.grad` stays as it is: other losses may have left something there.

`AfterEmbeddings` and `smart_penalty` are yours to call.
""",
    hint="Put the parts together: embeddings, what comes after them, the penalty. Then ask of each "
    "pass in which mode the model is, and in which mode a module is that has just been made.",
    reference=smart_term,
    cases=(
        Case("five classes, in train mode", _ask_term(SENTIMENT, 41, True, 0.05, 0.5), atol=1e-8),
        Case("three classes, in eval mode", _ask_term(_WEATHER, 42, False, 0.05, 0.5), atol=1e-8),
        Case("a large ball", _ask_term(SENTIMENT, 43, True, 0.5, 0.2), atol=1e-8),
    ),
    mistakes=(
        Mistake(_term_with_dropped_embeddings, _DROPPED),
        Mistake(
            lambda model, *rest: _term(model, *rest),
            _DROPPED + " And it leaves the model in train mode, also where it came in eval mode.",
        ),
        Mistake(
            _term_in_train_mode,
            "Dropout is on in every pass: the term measures masks, not smoothness.",
        ),
        Mistake(
            _term_left_in_eval,
            "It leaves the model in eval mode: the rest of the training would run without dropout.",
        ),
        Mistake(
            _term_left_in_train,
            "It leaves the model in train mode, also where it came in eval mode. (A module that "
            "has just been made is in train mode.)",
        ),
        Mistake(
            _term_variant(embed=lambda embeddings, ids: embeddings(ids).detach()),
            "The value is right, but no gradient reaches the embeddings: `x` is cut from what made "
            "it.",
        ),
        Mistake(
            _term_variant(embed=lambda embeddings, ids: embeddings.word_embeddings(ids)),
            "It perturbs bare word vectors; the model works on finished embeddings, with positions "
            "and LayerNorm.",
        ),
        Mistake(
            _term_variant(whole=_after(_positions_again)),
            "Positions and LayerNorm are applied twice.",
        ),
        Mistake(
            lambda model, batch, start, step_size, radius: smart_term(
                model, batch, start, radius, step_size
            ),
            "`step_size` and `radius` have changed places.",
        ),
        Mistake(
            _term_variant(penalty=lambda rest, x, start, *sizes: _start_only(rest, x, start, 0, 0)),
            "It takes the random start for the answer: nobody has looked for the worst point.",
        ),
        Mistake(
            _term_variant(
                penalty=lambda rest, x, start, *sizes: _from_x_itself(rest, x, start, *sizes)
            ),
            "It comes out as 0, as for a search that starts at x itself: `start` is missing.",
        ),
        Mistake(
            _with_task_loss,
            "The task's own loss is in it already; the training step adds the two.",
        ),
        Mistake(_cleared, "It clears the weights' `.grad`, where other losses may have left some."),
    ),
    notes="Four short lines and one trap: the embeddings have a dropout of their own, so eval mode "
    "has to begin before them, and a fresh module says it is in train mode. 5 points.",
)


EXERCISES = (
    CLIP_TO_BALL,
    SYMMETRIC_KL,
    DIVERGENCE,
    SMART_STEP,
    SMART_PENALTY,
    AFTER_EMBEDDINGS,
    SMART_TERM,
)
