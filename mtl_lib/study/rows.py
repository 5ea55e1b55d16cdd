"""The rows: those of the paper's Figures 3 and 4, their controls, and hypotheses about them."""

from dataclasses import replace

from mtl_lib.methods import weightings as methods
from mtl_lib.model import HeadConfig
from mtl_lib.study.config import ExperimentConfig, paper_heads
from mtl_lib.study.weightings import STATIC
from mtl_lib.tasks import TASKS


def _final(row: str, name: str, activation: str = "relu", **changes) -> ExperimentConfig:
    """The paper's final architecture (section 5.3) with one change of Figure 4."""
    heads = paper_heads(
        sentiment=HeadConfig((0.5,)), similarity=HeadConfig((0.5, 0.3), activation=activation)
    )
    return ExperimentConfig(
        row, name, heads=heads, weighting="pcgrad", penalty=float("inf"), **changes
    )


def _surgery(row: str, name: str, **changes) -> ExperimentConfig:
    return ExperimentConfig(row, name, weighting="pcgrad", **changes)


_MORE_DROPOUT = paper_heads(sentiment=HeadConfig((0.5,)), similarity=HeadConfig((0.5,)))


def _by_row(*configs: ExperimentConfig) -> dict[str, ExperimentConfig]:
    return {config.row: config for config in configs}


FIGURE_3 = _by_row(
    ExperimentConfig("3.1", "Baseline minBERT"),
    _surgery("3.2", "gradient surgery"),
    _surgery("3.3", "gs + increased STS dropout", heads=paper_heads(similarity=HeadConfig((0.5,)))),
    _surgery("3.4", "gs + l2 regularization", weight_decay=0.05),
    _surgery("3.5", "gs + l1 regularization", penalty=1.0),
    _surgery("3.6", "gs + l-inf regularization", penalty=float("inf")),
    _surgery(
        "3.7",
        "gs + add one linear layer each",
        heads={task.name: HeadConfig((0.3, 0.3)) for task in TASKS},
    ),
    _surgery("3.8", "gs + increase dropout (sts & sst)", heads=_MORE_DROPOUT),
    _surgery("3.9", "gs + dropout + SMART (on sst)", heads=_MORE_DROPOUT, smoothness=1.0),
    _final("3.10", "final architecture"),
)

FIGURE_4 = _by_row(
    _final("4.1", "batch size = 16", batch_size=16),
    _final("4.2", "weight decay = 0.1", weight_decay=0.1),
    _final("4.3", "wd = 0.1, lr = 5e-6", weight_decay=0.1, lr=5e-6),
    _final("4.4", "wd = 0.05, lr = 5e-6", weight_decay=0.05, lr=5e-6),
    _final("4.5", "lr = 5e-6", lr=5e-6),
    _final("4.6", "lr = 5e-5", lr=5e-5),
    _final("4.7", "lr = 3e-5", lr=3e-5),
    _final("4.8", "lr = 6e-5", lr=6e-5),
    _final("4.9", "lr = 5e-5, weighted loss", lr=5e-5, class_weights=True),
    _final("4.10", "lr = 5e-5, LeakyReLU", lr=5e-5, activation="leaky_relu"),
)

# The control that the paper lacks: what the heads alone can do. One row, at two rates.
FROZEN = _by_row(
    ExperimentConfig("frozen-1e-5", "frozen encoder, lr = 1e-5", frozen=True),
    ExperimentConfig("frozen-1e-3", "frozen encoder, lr = 1e-3", frozen=True, lr=1e-3),
)

# The paper's first part: sentiment alone, on two corpora, encoder frozen and fine-tuned.
SINGLE_TASK = _by_row(
    *(
        ExperimentConfig(
            f"{corpus}-{'frozen' if frozen else 'finetuned'}",
            f"{title} alone, {'frozen' if frozen else 'fine-tuned'}",
            heads={task: HeadConfig()},
            frozen=frozen,
            lr=1e-3 if frozen else 1e-5,
        )
        for corpus, title, task in (("sst", "SST", "sentiment"), ("cfimdb", "CFIMDB", "cfimdb"))
        for frozen in (True, False)
    )
)

ROWS = FIGURE_3 | FIGURE_4 | FROZEN

# Heads that can compare a pair, each beside surgery; else as rows 3.1 and 3.2 (chapter 12).
_COMPARING = paper_heads(
    paraphrase=HeadConfig(features="compare"), similarity=HeadConfig(features="compare")
)
_COSINE = paper_heads(
    paraphrase=HeadConfig(features="compare"), similarity=HeadConfig((0.0,), features="cosine")
)
COMPARE = _by_row(
    ExperimentConfig("compare", "comparing heads", heads=_COMPARING),
    _surgery("compare-surgery", "comparing heads, gs", heads=_COMPARING),
    ExperimentConfig("cosine", "cosine for similarity", heads=_COSINE),
    _surgery("cosine-surgery", "cosine for similarity, gs", heads=_COSINE),
)

# Row 3.2 with the projections in a fixed order: what drawing the order does.
ORDER = _by_row(
    ExperimentConfig("fixed-order", "gradient surgery, fixed order", weighting="pcgrad-fixed")
)

# Beside the cosines between tasks (row 3.1) those between two batches of one task; and row 4.1 with
# as many steps as the rows of batch 8.
CONTROL = _by_row(
    ExperimentConfig("same-task", "baseline, two batches a task", same_task_every=15),
    _final("equal-steps", "batch size = 16, equal steps", batch_size=16, epoch_factor=2),
)

# The baseline with one of its three tasks: as many batches of the task, no other.
ALONE = _by_row(
    *(
        ExperimentConfig(
            f"{task.name}-alone",
            f"{task.name} alone",
            heads={task.name: HeadConfig()},
            joint_epochs=True,
        )
        for task in TASKS
    )
)

# Row 3.2 in the profile `converged`, its instrument lacking one part.
WITHOUT = _by_row(
    *(
        _surgery(f"without-{name}", f"gs, instrument without {words}", without=part)
        for part, name, words in (
            ("sentence_vector", "mean", "mean pooling"),
            ("head_lr", "head-rate", "a rate for the heads"),
            ("label_mean_bias", "label-mean", "the label mean"),
            ("schedule", "schedule", "warm-up and decay"),
            ("clip", "clipping", "clipping"),
        )
    )
)

# Hypotheses about what the paper ran: rows of Figures 3 and 4 with a fault of the published code
# that it integrates. None of them is the method.
FORENSIC = _by_row(
    replace(FIGURE_3["3.2"], row="3.2-port", name="gs as in the port", fault="port-surgery"),
    replace(FIGURE_3["3.4"], row="3.4-coupled", name="gs + coupled l2", fault="coupled-decay"),
    replace(FIGURE_4["4.2"], row="4.2-coupled", name="coupled wd = 0.1", fault="coupled-decay"),
    replace(
        FIGURE_4["4.3"], row="4.3-coupled", name="coupled wd = 0.1, lr = 5e-6",
        fault="coupled-decay",
    ),
    replace(FIGURE_3["3.9"], row="3.9-port", name="SMART as in the port", fault="port-smart"),
)  # fmt: skip

# Every weighting, and fixed weights, at each of the same rates (chapter 13).
BENCH_RATES = (1.0, 3.0, 10.0)
BENCH = _by_row(
    *(
        ExperimentConfig(
            f"bench-{name}-x{rate:g}",
            f"{name}, rate x {rate:g}",
            heads=_COMPARING,
            weighting=name,
            lr=1e-5 * rate,
        )
        for name in (*methods.WEIGHTINGS, *STATIC)
        for rate in BENCH_RATES
    )
)


def _ladder() -> list[ExperimentConfig]:
    """Rung by rung, each with what the one below it has (chapter 12)."""

    def heads(paraphrase: str, similarity: str) -> dict[str, HeadConfig]:
        features = {"sentiment": "concat", "paraphrase": paraphrase, "similarity": similarity}
        return {name: HeadConfig((0.2,), features=f) for name, f in features.items()}

    changes: list[tuple[str, str, dict]] = [
        # 3 x 11 examples a step are as many as the 32 of a sampler.
        (
            "additive",
            "additive heads",
            {"heads": heads("concat", "concat"), "batch_size": 11, "lr": 5e-5},
        ),
        ("comparing", "comparing heads", {"heads": heads("compare", "compare")}),
        ("together", "pairs read together", {"heads": heads("together", "all")}),
        ("sampler", "square-root sampler", {"sampler": "sqrt", "batch_size": 32}),
        # The rate's mean over the schedule is that of the rung below.
        (
            "schedule",
            "warm-up and decay, rates by layer",
            {
                "schedule": "linear",
                "warmup": 0.1,
                "lr": 1e-4,
                "layer_decay": 0.9,
                "weight_decay": 0.01,
            },
        ),
        ("average", "average of the weights", {"average": 0.999}),
        ("phrases", "the treebank's phrases", {"phrases": 4}),
    ]
    rung, rungs = ExperimentConfig("ladder", ""), []
    for name, words, change in changes:
        rung = replace(rung, row=f"ladder-{name}", name=words, **change)
        rungs.append(rung)
    return rungs


LADDER = _by_row(*_ladder())
# The last rung trained to its end: the model that the handbook ships.
FINISHED = _by_row(replace(_ladder()[-1], row="final", name="the final model"))

ROWS_OF_QUICK = ROWS | SINGLE_TASK | COMPARE | ORDER | CONTROL
ALL_ROWS = ROWS_OF_QUICK | ALONE | WITHOUT | FORENSIC | BENCH | LADDER | FINISHED
