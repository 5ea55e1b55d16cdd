"""The model that the handbook ships: trained, made small, judged as it is shipped, and described.

    mtl final --data FOLDER       all of it; a training that is finished is not repeated

Shapes: N examples of a split, C outputs of the task's head.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mtl_lib.data import Corpus, TokenizedSplit, tokenize
from mtl_lib.evaluation import metrics, predict
from mtl_lib.files import write_text
from mtl_lib.methods.quantized import load_quantized, save_quantized
from mtl_lib.model import MultitaskModel
from mtl_lib.paths import DATA
from mtl_lib.pretrained import encoder_hash
from mtl_lib.study.by_label import per_class_report
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.groups import corpus_notes
from mtl_lib.study.report import write_section
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import Run, RunStore, run_key
from mtl_lib.study.submission import write_predictions
from mtl_lib.study.uncertainty import bootstrap_metric
from mtl_lib.tasks import BY_NAME

SHIPPED = DATA / "models" / "final"
PREDICTIONS = DATA / "predictions"
CARD, SCORES = "README.md", "scores.json"
EMPTY_CARD = "# Model card\n\n<!-- scores -->\n<!-- /scores -->\n"


def trained(
    config: ExperimentConfig, corpus: Corpus, store: RunStore, models: Path
) -> tuple[Run, Path]:
    """The run of a configuration and the folder of its model, in `models`; trained where they are
    not there yet."""
    sha = encoder_hash(config.encoder)
    key = run_key(config.as_dict(), corpus.fingerprint, sha, STUDY_VERSION)
    folder = models / f"final-{key}"
    run = store.get(key) if (folder / "model.safetensors").is_file() else None
    return run or run_experiment(config, corpus, store, save_model=folder), folder


def predict_in_both_orders(model: MultitaskModel, split: TokenizedSplit) -> np.ndarray:
    """Logits `[N, C]`: of a pair the mean of its two orders, since a pair that is read together
    is not read the same way from either side, and its label is the same."""
    logits = predict(model, split)
    if split.task.sentences == 2:
        turned = replace(split, sentences=split.sentences[::-1])
        logits = (logits + predict(model, turned)) / 2
    return logits


def ship(
    model: str | Path,
    run: Run,
    corpus: Corpus,
    folder: Path = SHIPPED,
    predictions: Path = PREDICTIONS,
) -> list[Path]:
    """Store a trained model in 8 bits, its scores, its card's table, and its predictions.

    Args:
        model: its folder.
        run: its run.
        corpus: what it was trained on; its test sets, where they are there, get predictions.
        folder: of the shipped model, with its card, which has a section "scores".
        predictions: folder of the predictions in the class's format.

    Returns:
        The files written.
    """
    save_quantized(MultitaskModel.load(model), folder)
    shipped = load_quantized(folder)
    shipped.fast = True  # without padding
    scores = judge(shipped, run, corpus)
    write_text(folder / SCORES, json.dumps(scores, indent=1, ensure_ascii=False) + "\n")
    if not (folder / CARD).exists():  # what the shipped one says is not true of another
        write_text(folder / CARD, EMPTY_CARD)
    write_section(folder / CARD, "scores", table(scores))
    paths = [folder / name for name in ("model.safetensors", SCORES, CARD)]
    if any("test" in of_task for of_task in corpus.splits.values()):
        paths += write_predictions(folder, corpus, "test", predictions, predict_in_both_orders)
    return paths


def judge(model: MultitaskModel, run: Run, corpus: Corpus) -> dict[str, Any]:
    """Development scores of a shipped model beside those of the run it comes from.

    Returns:
        By task the metric, its values ("trained": as the run was judged; "shipped": in 8 bits, of
        pairs both orders), the latter's 95 % interval over examples, and by true label how many of
        its examples the shipped model gets right; besides, what the model was trained on.
    """
    tasks: dict[str, Any] = {}
    for name, as_trained in run.predictions.items():
        task = BY_NAME[name]
        split = tokenize(corpus.splits[name]["dev"], task, model.tokenizer)
        logits = predict_in_both_orders(model, split)
        labels = run.labels[name]
        shipped = replace(run, predictions={name: logits}, key="shipped")
        draws = bootstrap_metric(name, [shipped])[:, 0]
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        tasks[name] = {
            "metric": task.metric,
            "examples": len(labels),
            "trained": metrics(task, as_trained, labels)[task.metric_name],
            "shipped": metrics(task, logits, labels)[task.metric_name],
            "low": float(low),
            "high": float(high),
            "by_label": per_class_report(task, logits, labels)["accuracy"].round(4).tolist(),
        }
    provenance = run.provenance
    return {
        "tasks": tasks,
        "run": run.key,
        "corpus": provenance["corpus"]["name"],
        "notes": corpus_notes([run]),
        "encoder": provenance["encoder"],
        "steps": provenance["steps"],
        "minutes": round(provenance["seconds"] / 60),
        "threads": provenance["threads"],
        "hardware": provenance["hardware"],
    }


def table(scores: Mapping[str, Any]) -> str:
    """The scores as a table in Markdown, and what stands behind them."""
    lines = [
        "| task | metric | as trained | as shipped | 95 % interval | right, by true label |",
        "|---|---|---|---|---|---|",
    ]
    for name, of_task in scores["tasks"].items():
        shares = " / ".join(f"{share:.2f}" for share in of_task["by_label"])
        lines.append(
            f"| {name} | {of_task['metric']} | {of_task['trained']:.3f} | "
            f"**{of_task['shipped']:.3f}** | {of_task['low']:.3f} to {of_task['high']:.3f} | "
            f"{shares} |"
        )
    notes = "; ".join(scores["notes"])
    return "\n".join(lines) + (
        f"\n\nWhole development sets of corpus {scores['corpus']}, one seed; the interval is over "
        f"examples. {scores['steps']:,} steps, {scores['minutes']} minutes on {scores['threads']} "
        f"threads ({scores['hardware']}). Corpora: {notes}."
    )
