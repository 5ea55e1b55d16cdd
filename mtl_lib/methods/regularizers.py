"""Penalties on the loss: norms of the weights, and smoothness (SMART).

Shapes: B sentences, L tokens, H hidden size, C outputs of the head.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mtl_lib.fast.packed import Pack, encode_packed
from mtl_lib.model import MultitaskModel


def lp_penalty(weights: Iterable[Tensor], p: float) -> Tensor:
    """||w||_p over all entries of all matrices, taken as one vector (paper, section 4).

    The norm itself, not its square. Its gradient is 0, not NaN, where all weights are zero; for
    p = inf only the entries of largest magnitude receive a gradient.

    Args:
        weights: tensors of any shape.
        p: 1, 2 or `math.inf`.

    Returns:
        A scalar; the caller scales it (0.05 in the paper).

    Raises:
        ValueError: for any other p.
    """
    if p not in (1, 2, math.inf):
        raise ValueError(f"p is {p}; choose 1, 2 or inf")
    vector = torch.cat([weight.flatten() for weight in weights])
    return torch.linalg.vector_norm(vector, ord=p)


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(P||Q) + KL(Q||P) of P = softmax(a), Q = softmax(b), mean over the batch.

    Both divergences together are sum_c (P_c - Q_c) (log P_c - log Q_c), which is never negative.
    Gradients flow into both arguments.

    Args:
        a, b: logits, `[B, C]`, with C at least 2.

    Returns:
        A scalar in nats.
    """
    log_p, log_q = a.log_softmax(dim=1), b.log_softmax(dim=1)  # [B, C]
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean()


def divergence(a: Tensor, b: Tensor, loss: str) -> Tensor:
    """How far two outputs of a head lie apart: l_s of Jiang et al. (2020), section 3.1.

    Args:
        a, b: outputs of the head, `[B, C]`.
        loss: "classes" (symmetric KL), "binary" (symmetric KL of Bernoulli(sigmoid(logit))) or
            "score" (squared difference).

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ValueError: if the shapes differ, or C does not suit the loss. Broadcasting `[B]` against
            `[B, 1]`, or a softmax over one logit, would hide it.
    """
    if loss not in ("classes", "binary", "score"):
        raise ValueError(f"loss is {loss!r}; choose 'classes', 'binary' or 'score'")
    fits = a.dim() == 2 and (a.shape[1] > 1 if loss == "classes" else a.shape[1] == 1)
    if a.shape != b.shape or not fits:
        columns = "C > 1" if loss == "classes" else "C = 1"
        raise ValueError(
            f"{loss}: outputs {tuple(a.shape)} and {tuple(b.shape)} do not fit; "
            f"expected [B, C] twice with {columns}"
        )
    if loss == "score":
        return F.mse_loss(a, b)
    if loss == "binary":  # a Bernoulli logit z is the two-class softmax over (z, 0)
        a, b = F.pad(a, (0, 1)), F.pad(b, (0, 1))  # [B, 2]
    return symmetric_kl(a, b)


class SmoothnessRegularizer:
    """SMART's smoothness-inducing adversarial regularisation (Jiang et al., 2020, section 3.1).

    R = mean_i  max_{||x~_i - x_i||_inf <= eps}  l_s(f(x~_i), f(x_i)), the maximum found by
    projected gradient ascent from x~ = x + N(0, sigma^2):

        x~ = clip to the ball of (x~ + eta * grad / ||grad||_inf)

    with the norm taken sentence by sentence, so that a sentence's x~ does not depend on its batch.

    Args:
        noise: sigma, standard deviation of the starting point. Zero will not do: at x~ = x the
            gradient vanishes.
        radius: eps, half the edge of the ball.
        step_size: eta.
        steps: K, ascents.

    Raises:
        ValueError: unless all four are positive.
    """

    def __init__(
        self, noise: float = 1e-5, radius: float = 1e-5, step_size: float = 1e-3, steps: int = 1
    ) -> None:
        if min(noise, radius, step_size) <= 0 or steps < 1:
            raise ValueError(
                f"noise {noise}, radius {radius}, step_size {step_size} and steps {steps} "
                "must all be positive"
            )
        self.noise, self.radius, self.step_size, self.steps = noise, radius, step_size, steps

    def __call__(
        self,
        forward: Callable[[Tensor], Tensor],
        embeddings: Tensor,
        loss: str = "classes",
        generator: Generator | None = None,
        rows: tuple[Tensor, Sequence[int]] | None = None,
    ) -> Tensor:
        """The penalty R for one batch.

        Args:
            forward: from embeddings `[B, L, H]` to outputs of the head `[B, C]`. Every call must
                see the same dropout masks, or none: otherwise R measures dropout.
            embeddings: `[B, L, H]`, as `BertModel.embed` returns them.
            loss: the task's kind, see `divergence`.
            generator: draws the starting point; torch's global one if None.
            rows: where the batch is a part of a larger one (`Batch.rows`): the starting point is
                drawn for all of it.

        Returns:
            A scalar, at least 0, that sends gradients through both f(x) and f(x~).

        Raises:
            ValueError: if the outputs do not suit the loss.
        """
        outputs = forward(embeddings)  # [B, C]
        delta = self.perturbation(forward, embeddings, outputs, loss, generator, rows)  # [B, L, H]
        return divergence(outputs, forward(embeddings + delta), loss)

    def perturbation(
        self,
        forward: Callable[[Tensor], Tensor],
        embeddings: Tensor,
        outputs: Tensor,
        loss: str = "classes",
        generator: Generator | None = None,
        rows: tuple[Tensor, Sequence[int]] | None = None,
    ) -> Tensor:
        """x~ - x, the adversarial change of the embeddings, `[B, L, H]`, without gradient.

        `outputs` are f(x), `[B, C]`; the others are those of the call.
        """
        embeddings, outputs = embeddings.detach(), outputs.detach()
        device = embeddings.device if generator is None else generator.device
        shape = [*rows[1], embeddings.shape[2]] if rows else embeddings.shape
        delta = self.noise * torch.randn(shape, generator=generator, device=device)
        delta = (delta[rows[0]] if rows else delta).to(embeddings)
        for _ in range(self.steps):
            delta.requires_grad_()
            distance = divergence(outputs, forward(embeddings + delta), loss)
            (gradient,) = torch.autograd.grad(distance, delta)  # leaves the parameters' .grad alone
            delta = clip_to_ball(delta.detach() + self.step_size * _unit(gradient), self.radius)
        return delta


def clip_to_ball(delta: Tensor, radius: float) -> Tensor:
    """Nearest point of the ball ||delta||_inf <= radius: each entry clipped on its own."""
    return delta.clamp(-radius, radius)


def _unit(gradient: Tensor) -> Tensor:
    """Each sentence's gradient `[B, L, H]` divided by its largest magnitude; zero stays zero."""
    largest = gradient.abs().amax(dim=(1, 2), keepdim=True)  # [B, 1, 1]
    return torch.where(largest > 0, gradient / largest, 0.0)


def encode_embedded(model: MultitaskModel, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
    """Sentence vectors `[S, H]` of a model from its `BertModel`'s finished embeddings, which may
    have been perturbed, `[S, L, H]`, and a mask `[S, L]`."""
    if not model.fast:
        output = model.encoder.run_layers(embeddings, attention_mask)
        vectors: Tensor = output.sentence_vector(model.sentence_vector, attention_mask)
        return vectors
    tokens = attention_mask > 0
    pack = Pack.of([(tokens.long(), attention_mask)], embeddings.device)  # places, no words
    return encode_packed(model.encoder, embeddings[tokens], pack, kind=model.sentence_vector)
