"""The committed runs: every metric recomputed from the stored predictions, by other means."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mtl_lib.evaluation import headline
from mtl_lib.paths import RESULTS
from mtl_lib.study.config import STUDY_VERSION
from mtl_lib.study.pool import committed_runs
from mtl_lib.study.profiles import PROFILES
from mtl_lib.study.rows import ALL_ROWS
from mtl_lib.study.store import Run, RunStore, run_key
from mtl_lib.tasks import BY_NAME

RUNS = committed_runs()


def recomputed(task: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics from logits in float64, straight from scikit-learn and scipy."""
    logits, labels = logits.astype(np.float64), labels.astype(np.float64)
    if BY_NAME[task].kind == "score":
        scores = logits[:, 0]
        return {
            "pearson": float(np.corrcoef(scores, labels)[0, 1]),
            "spearman": float(stats.spearmanr(scores, labels).statistic),
            "mse": float(sk.mean_squared_error(labels, scores)),
        }
    binary = BY_NAME[task].kind == "binary"
    predicted = 1.0 * (logits[:, 0] > 0) if binary else logits.argmax(axis=1).astype(float)
    matrix = sk.confusion_matrix(labels, predicted)
    with np.errstate(invalid="ignore"):
        recall = np.diag(matrix) / matrix.sum(axis=1)
    return {
        "accuracy": float(np.diag(matrix).sum() / matrix.sum()),
        "balanced_accuracy": float(np.nanmean(recall)),
        "macro_f1": float(sk.f1_score(labels, predicted, average="macro")),
    }


def test_there_are_stored_runs():
    assert len(RUNS) > 0


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.config['profile']}-{run.key}")
def test_metrics_follow_from_the_stored_predictions(run: Run):
    assert set(run.predictions) == set(run.config["heads"])
    for task, logits in run.predictions.items():
        stored = run.metrics["best"]["dev"][task]
        assert len(logits) == len(run.labels[task]) == len(run.ids[task])
        assert stored == pytest.approx(recomputed(task, logits, run.labels[task]), abs=1e-9, rel=0)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.config['profile']}-{run.key}")
def test_the_best_epoch_is_one_of_the_history_and_no_sentence_is_stored(run: Run):
    judged = [headline(entry["dev"]) for entry in run.history]
    best = run.history[judged.index(max(judged))]
    assert run.metrics["best"]["train"] == best["train"]
    assert run.metrics["last"]["train"] == run.history[-1]["train"]
    if not run.config.get("dev_sample"):  # else these are of the whole sets, the history is not
        assert run.metrics["best"]["dev"] == best["dev"]
        assert run.metrics["last"]["dev"] == run.history[-1]["dev"]
    assert not any(" " in key.strip() for ids in run.ids.values() for key in ids)


CURRENT = [
    run
    for run in RUNS
    if run.provenance["study_version"] == STUDY_VERSION and run.config["profile"] in PROFILES
]


@pytest.mark.parametrize("run", CURRENT, ids=lambda run: f"{run.config['profile']}-{run.key}")
def test_the_study_finds_a_stored_run_again_and_does_not_train_it(run: Run):
    row, profile, seed = (run.config[name] for name in ("row", "profile", "seed"))
    settings = replace(PROFILES[profile], encoder=run.config["encoder"])
    config = settings.apply(ALL_ROWS[row], profile, seed).as_dict()
    corpus, encoder = (run.provenance[name] for name in ("corpus", "encoder"))
    key = run_key(config, corpus["fingerprint"], encoder["sha256"], STUDY_VERSION)
    assert RunStore(RESULTS / profile).get(key).key == run.key
