"""Figure 2: the architecture, from the shared encoder up to the heads."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mtl_lib.model import FEATURES, Head, HeadConfig, MultitaskModel
from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.drawing import Figure, Stack, draw_architecture
from mtl_lib.study.figure_runs import with_final
from mtl_lib.study.paper import FINAL_ROWS, TASK_ORDER
from mtl_lib.study.store import Run
from mtl_lib.tasks import BY_NAME, Task

LOSS_WORDS = {
    "classes": "cross-entropy",
    "binary": "binary cross-entropy",
    "score": "squared error",
}
BACKWARD = "one backward pass a task:\n{tasks} gradients of the shared part"
GRAM = "Gram matrix [{tasks}, {tasks}]:\nwho conflicts with whom"
STEP = "AdamW:\none step"
# What becomes of the losses, by weighting.
UPDATES = {
    "pcgrad": (BACKWARD, GRAM, "gradient surgery:\nweights [{tasks}] of the gradients", STEP),
    "pcgrad-fixed": (BACKWARD, GRAM, "gradient surgery, fixed\norder: weights [{tasks}]", STEP),
    "sum": ("one backward pass\nof the sum of the losses", STEP),
}
NORMS = {1.0: "L1", 2.0: "L2", float("inf"): "L∞"}


def figure_2(source: MultitaskModel | ExperimentConfig | Sequence[Run]) -> Figure:
    """Figure 2 (section 5.3): the architecture, from the shared encoder up to the heads.

    Dropout rates, layers and activations are read from the heads' own modules, everything about
    losses from the configuration; a model alone does not know its penalty, so it shows none.

    Args:
        source: a model, a configuration, or runs, of which the final model is drawn.

    Raises:
        RunError: if runs are passed and none is of the final model.
    """
    if isinstance(source, MultitaskModel):
        settings = source.encoder.config
        heads, width = dict(source.heads.items()), settings.hidden_size
        encoder = f"{settings.num_hidden_layers} layers, H = {width}"
        losses, update, title = {}, (), "The architecture of a model"
    else:
        config = source if isinstance(source, ExperimentConfig) else _final_config(source)
        width = 1  # counts the heads' widths in units of H
        heads = {name: Head(BY_NAME[name], width, head) for name, head in config.heads.items()}
        encoder = f"{Path(config.encoder).name}{', frozen' * config.frozen}"
        update = () if config.frozen else UPDATES.get(config.weighting, _weighted(config.weighting))
        losses, title = _extra_losses(config), f"The architecture of row {config.row}"
        if config.row in FINAL_ROWS:
            title = f"The final architecture (row {config.row})"
    tasks = {name: heads[name].task for name in sorted(heads, key=_place)}
    losses = {name: _loss(task, losses) for name, task in tasks.items()}
    inputs = {name: _input(head) for name, head in heads.items()}
    stacks = {name: _layers(heads[name], width) for name in tasks}
    steps = [words.format(tasks=len(tasks)) for words in update]
    records = [
        {"task": name, "position": position, "kind": kind, "layer": words}
        for name, stack in stacks.items()
        for position, (kind, words) in enumerate(stack, start=1)
    ]
    alt = "; ".join(
        f"{tasks[name].title}: {', '.join(words for _, words in stack)}, "
        f"{losses[name].replace(chr(10), ' ')}"
        for name, stack in stacks.items()
    )
    return Figure(
        2,
        pd.DataFrame(records),
        draw_architecture(
            f"Figure 2. {title}",
            tasks,
            stacks,
            inputs,
            losses,
            encoder,
            steps,
        ),
        f"Figure 2. {title}, drawn from its own configuration; encoder {encoder}. Black: forward; "
        "dashed: back to the shared encoder. H: its width; u, v: what its pooler gives for the "
        "first and the second sentence.",
        "None: a configuration needs no run.",
        f"Diagram of {len(stacks)} heads on one shared BERT encoder ({encoder}). {alt}."
        + (f" {' then '.join(steps)}.".replace("\n", " ") if steps else ""),
    )


def _weighted(name: str) -> tuple[str, ...]:
    """What becomes of the losses under a weighting that has no words of its own."""
    return (BACKWARD, GRAM, f"{name}: weights [{{tasks}}]\nof the gradients", STEP)


def _place(name: str) -> int:
    return TASK_ORDER.index(name) if name in TASK_ORDER else len(TASK_ORDER)


def _final_config(runs: Sequence[Run]) -> ExperimentConfig:
    """The configuration of the final model's stored runs."""
    (used,) = with_final(2, runs).values()
    stored = used[0].config
    heads = {name: HeadConfig(**head) for name, head in stored["heads"].items()}
    penalty = None if stored["penalty"] is None else float(stored["penalty"])
    return ExperimentConfig(**stored | {"heads": heads, "penalty": penalty})


def _extra_losses(config: ExperimentConfig) -> dict[str, str]:
    """What a configuration adds to the losses of its tasks, in words."""
    words = {}
    if config.penalty is not None:
        norm = NORMS.get(config.penalty, f"L{config.penalty:g}")
        words["similarity"] = f"+ {config.penalty_strength:g} × {norm} norm of its weights"
    if config.smoothness:
        words["sentiment"] = f"+ {config.smoothness:g} × SMART"
    elif config.class_weights:
        words["sentiment"] = "weighted by class"
    return words


def _loss(task: Task, extra: dict[str, str]) -> str:
    words = LOSS_WORDS.get(task.kind, "a loss of its own")
    return f"{words}\n{extra[task.name]}" if task.name in extra else words


def _input(head: Head) -> str:
    return FEATURES[head.config.features] if head.task.sentences == 2 else "u"


def _layers(head: Head, width: int) -> Stack:
    """The modules of a head in words; `width` is what its own widths are counted in."""
    layers = []
    for depth, (dropout, linear) in enumerate(zip(head.dropouts, head.linears, strict=True)):
        if depth > 0:
            layers.append(("activation", type(head.activation).__name__))
        times = linear.in_features // width
        inputs = "1" if head.config.features == "cosine" else f"{times if times > 1 else ''}H"
        outputs = linear.out_features if linear is head.linears[-1] else "H"
        layers.append(("dropout", f"dropout {dropout.p:g}"))
        layers.append(("linear", f"linear {inputs} → {outputs}"))
    return layers
