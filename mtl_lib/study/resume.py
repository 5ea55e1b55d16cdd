"""The state of a trainer, taken and put back: what a checkpoint holds of a run under way."""

from typing import Any

import torch
from torch import Tensor

from mtl_lib.trainer import Fit, Trainer, Weighting


def state_of(trainer: Trainer) -> dict[str, Any]:
    """All that decides the rest of the run, as dicts, tensors and what JSON can hold.

    It is whole after a step and during an evaluation; live, so to be written before the next step.
    """
    result, optimizer, trainable = trainer.result, trainer.optimizer, trainer.trainable()
    return {
        "steps": trainer.steps,
        "epoch": trainer.epoch,
        "history": result.history,
        "best": result.best,
        "last": result.last,
        "logits": {name: torch.from_numpy(rows) for name, rows in result.logits.items()},
        "parameters": trainable,
        "optimizer": {n: optimizer.state[p] for n, p in trainable.items() if p in optimizer.state},
        "streams": {name: stream.state_dict() for name, stream in trainer.streams.items()},
        "generators": {name: g.get_state() for name, g in trainer.generators.items()},
        "dropout": _dropout_state(trainer.device),
        "weighting": _state(trainer.weighting),
        "callbacks": {str(n): c.state_dict() for n, c in enumerate(trainer.callbacks)},
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Stand where `state_of` was taken, on the same data and with the same options."""
    trainer.steps, trainer.epoch = state["steps"], state["epoch"]
    logits = {name: rows.numpy() for name, rows in state["logits"].items()}
    trainer.result = Fit(state["history"], state["best"], state["last"], logits)
    put_parameters(trainer, state["parameters"])
    trainer.optimizer.state.clear()
    for name, parameter in trainer.trainable().items():
        if saved := state["optimizer"].get(name):
            trainer.optimizer.state[parameter] = {
                key: value.to(trainer.device) if isinstance(value, Tensor) else value
                for key, value in saved.items()
            }
    for name, stream in trainer.streams.items():
        stream.load_state_dict(state["streams"][name])
    for name, generator in trainer.generators.items():
        generator.set_state(state["generators"][name])
    torch.set_rng_state(state["dropout"]["cpu"])
    if trainer.device.type == "cuda" and "cuda" in state["dropout"]:  # else saved on a CPU
        torch.cuda.set_rng_state(state["dropout"]["cuda"], trainer.device)
    if state["weighting"]:
        trainer.weighting.load_state_dict(state["weighting"])  # type: ignore[attr-defined]
    for number, callback in enumerate(trainer.callbacks):
        callback.load_state_dict(state["callbacks"][str(number)])


def _state(weighting: Weighting) -> dict[str, Any]:
    """What a weighting remembers, if it does."""
    state: dict[str, Any] = getattr(weighting, "state_dict", dict)()
    return state


def put_parameters(trainer: Trainer, values: dict[str, Tensor]) -> None:
    """Give the trained parameters these values, in place."""
    with torch.no_grad():
        for name, parameter in trainer.trainable().items():
            parameter.copy_(values[name])


def _dropout_state(device: torch.device) -> dict[str, Tensor]:
    """The global generators, from which dropout draws."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})
