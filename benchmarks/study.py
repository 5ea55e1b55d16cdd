"""What the study gains: segments of four rows with either engine, and one quick run.

The plain engine is `bert.py` on padded batches, one backward pass per task, `TaskGradients` and
the AdamW loop: the code of the chapters. Segments of steps alternate; both train.
"""

import tempfile
from collections import Counter

import torch
from common import DEVICE, encoder_config, options, print_table, random_splits, store, timed, watch
from common import summary as summarise

from mtl_lib import trainer as trainer_module
from mtl_lib.bert import BertModel
from mtl_lib.fast.engine import FastEngine
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.fast.joint import JointGradients
from mtl_lib.model import MultitaskModel
from mtl_lib.optim import AdamW
from mtl_lib.study.build import _loss_terms
from mtl_lib.study.corpora import load_corpus
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.rows import ROWS
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import RunStore
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.trainer import Trainer

STUDY_ROWS = ("3.1", "3.2", "3.7", "3.10")
SEGMENT = 50


def make_trainer(row: str, splits: dict, optimizer: type, engine: str) -> Trainer:
    config = PROFILES["paper"].apply(ROWS[row], "paper")
    model = MultitaskModel(BertModel(encoder_config("minilm-l6")), dict(config.heads)).to(DEVICE)
    return Trainer(
        model,
        splits,
        optimizer=optimizer(model.parameters(), lr=config.lr, weight_decay=config.weight_decay),
        weighting=WEIGHTINGS[config.weighting](len(config.heads)),
        batch_size=config.batch_size,
        engine=engine,
        terms=_loss_terms(config, torch.Generator()),
    )


def segments(rounds: int) -> list[dict]:
    """Milliseconds of `SEGMENT` steps, engine by engine, row by row."""
    splits = random_splits(2000)
    rows = []
    for row in STUDY_ROWS:
        paths = {
            f"{row}, plain engine": make_trainer(row, splits, AdamW, "plain").step,
            f"{row}, fast engine": make_trainer(row, splits, FusedAdamW, "fast").step,
        }
        times = {name: [] for name in paths}
        for _ in range(rounds):
            for name, step in paths.items():
                times[name].append(timed(lambda step=step: [step() for _ in range(SEGMENT)]))
        rows += summarise(times)
        print_table(rows[-2:], f"{SEGMENT} steps of row {row}, minilm-l6")
    return rows


def quick_run() -> list[dict]:
    """A whole run of the quick profile and where its time goes."""
    config = PROFILES["quick"].apply(ROWS["3.2"], "quick")
    corpus = load_corpus("handbook")
    parts = (
        (FastEngine, "backward", "forward and backward"),
        (JointGradients, "gram", "inner products"),
        (JointGradients, "combine", "combination"),
        (FusedAdamW, "step", "AdamW"),
        (trainer_module, "predict", "evaluation: encoder"),
        (trainer_module, "metrics", "evaluation: metrics"),
    )
    with tempfile.TemporaryDirectory() as folder, watch(*parts) as times:
        total = timed(lambda: run_experiment(config, corpus, RunStore(folder))) / 1e3
    spent = Counter({name: sum(ms) / 1e3 for name, ms in times.items()})
    spent["everything else"] = total - sum(spent.values())
    return [
        {"part": name, "seconds": round(seconds, 1), "share": round(seconds / total, 2)}
        for name, seconds in spent.most_common()
    ] + [{"part": "whole run", "seconds": round(total, 1), "share": 1.0}]


def main() -> None:
    chosen = options(__doc__, rounds=3)
    tables = {f"{SEGMENT} steps": segments(chosen.rounds)}
    store("study", tables)
    torch.set_num_threads(PROFILES["quick"].threads)
    tables["one quick run, row 3.2, one thread"] = quick_run()
    print_table(tables["one quick run, row 3.2, one thread"], "one quick run, row 3.2, one thread")
    store("study", tables)


if __name__ == "__main__":
    main()
