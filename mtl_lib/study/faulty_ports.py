"""What published code gets wrong, rebuilt on purpose: NOT the methods, which are elsewhere.

The paper integrates two ports. What they compute is not what they are named after; whether the
paper's numbers come from that is a hypothesis, and rows such as "3.2-port" test it. Nothing but
these rows uses this module.

    port-surgery     Tseng's Pytorch-PCGrad (2020): `PortTrainer`
    port-smart       the Open Source AI Research Lab's smart-pytorch: `port_smoothness_term`
    coupled-decay    Adam with the decay in its gradient, in place of AdamW: `CoupledAdam`

Shapes: T tasks, P shared parameters, B sentences, L tokens, H hidden size, C outputs of the head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mtl_lib.data import Batch
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.methods.regularizers import encode_embedded
from mtl_lib.model import MultitaskModel
from mtl_lib.trainer import LossTerm, Trainer
from mtl_lib.weighting import projected_weights

FAULTS = ("port-surgery", "coupled-decay", "port-smart")


class PortTrainer(Trainer):
    """A trainer whose gradient surgery has the port's faults.

    All parameters of the model are one long vector, zero where a task does not reach. So the heads
    count in the norms, by which too little of a conflict is taken out; the projection puts a
    share of one task's gradient into another's, so that heads are scaled as well; and the shared
    parameters get the mean over the tasks, the heads a sum. The weighting given is not used.
    """

    def _combine(self, gram: Tensor) -> Tensor:
        heads = [
            [p for p in self.model.heads[name].parameters() if p.grad is not None]
            for name in self.step_tasks
        ]
        none = gram.new_zeros(())
        norms = [sum((p.grad.double().square().sum() for p in of), start=none) for of in heads]
        weights = port_weights(gram, torch.stack(norms).to(gram.device), self.generator)  # [T]
        self.gradients.combine(weights / len(weights))
        for of_task, weight in zip(heads, weights.tolist(), strict=True):
            for parameter in of_task:
                parameter.grad.mul_(weight)
        return weights


def port_weights(gram: Tensor, heads: Tensor, generator: Generator | None = None) -> Tensor:
    """How often each task's whole gradient is in the sum of the port's projected ones, `[T]`.

    Args:
        gram: inner products of the shared gradients, `[T, T]`.
        heads: squared norm of each head's gradient, `[T]`.
        generator: draws for each task the order of all tasks, itself included.
    """
    tasks = len(gram)
    orders = [torch.randperm(tasks, generator=generator).tolist() for _ in range(tasks)]
    return projected_weights(gram + torch.diag(heads), orders)


class CoupledAdam(FusedAdamW):
    """Adam with L2 in the gradient, g + decay * theta, as `torch.optim.Adam` has it.

    The moments then see the decay: it moves a weight by up to the learning rate a step, whatever
    its strength (Loshchilov and Hutter, 2019, section 2). Options as in `FusedAdamW`.
    """

    def _fused_step(self, parameters: list[Tensor], taken: int, options: dict) -> None:
        decay, gradients = options["weight_decay"], [parameter.grad for parameter in parameters]
        for parameter in parameters:  # a new tensor: the gradient may be a buffer of the trainer's
            parameter.grad = parameter.grad.add(parameter, alpha=decay)
        super()._fused_step(parameters, taken, options | {"weight_decay": 0.0})
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


def port_smoothness_term(strength: float, generator: Generator) -> LossTerm:
    """SMART on a task of classes, as in the port: a loss term for the trainer.

    The two passes have dropout masks of their own, so that the term measures dropout as well, and
    the perturbation is as large as `port_perturbation` says.
    """

    def term(model: MultitaskModel, batch: Batch) -> Tensor:
        def forward(embeddings: Tensor) -> Tensor:  # [B, L, H] -> [B, C]
            vectors = encode_embedded(model, embeddings, batch.attention_mask)
            return model.classify(batch.task, vectors)

        embeddings = model.encoder.embed(batch.input_ids)  # [B, L, H]
        outputs = forward(embeddings)  # [B, C]
        delta = port_perturbation(forward, embeddings, outputs, generator)
        return strength * _port_divergence(forward(embeddings + delta), outputs)

    return term


def port_perturbation(
    forward: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    outputs: Tensor,
    generator: Generator,
    noise: float = 1e-5,
    step_size: float = 1e-3,
    epsilon: float = 1e-6,
) -> Tensor:
    """The change of the embeddings, `[B, L, H]`, without gradient.

    It is divided by its own largest entry, token by token: next to 1, whatever the noise was. The
    gradient, not normalised, hardly turns it as long as the head is small: large random noise, not
    an adversary.

    Args:
        forward: from embeddings `[B, L, H]` to outputs of the head `[B, C]`.
        embeddings, outputs: x, and f(x).
    """
    draw = torch.randn(embeddings.shape, generator=generator).to(embeddings)
    delta = (noise * draw).requires_grad_()
    log_p = forward(embeddings.detach() + delta).log_softmax(dim=1)
    distance = F.kl_div(log_p, outputs.detach().softmax(dim=1), reduction="batchmean")
    (gradient,) = torch.autograd.grad(distance, delta)
    moved = delta.detach() + step_size * gradient
    return moved / (moved.abs().amax(dim=2, keepdim=True) + epsilon)


def _port_divergence(a: Tensor, b: Tensor) -> Tensor:
    """The port's symmetric KL of logits `[B, C]`: each target detached, summed over the batch."""
    forth = F.kl_div(a.log_softmax(dim=1), b.detach().softmax(dim=1), reduction="sum")
    back = F.kl_div(b.log_softmax(dim=1), a.detach().softmax(dim=1), reduction="sum")
    return forth + back
