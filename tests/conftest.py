"""Tests run with one thread, so that sums have the same last bits everywhere, and in build/test,
so that nobody's runs, answers, notebooks or figures are touched. All of it has to be set before
torch and mtl_lib are imported.

The tests of `fast.txt` (`pytest @tests/fast.txt`) are those that other systems and the lowest
releases of the dependencies are tried with; what cannot pass there is skipped below, by name."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).resolve().parents[1] / "build"
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MTL_BUILD", str(BUILD / "test"))
os.environ.setdefault("MTL_FIGURES", str(BUILD / "test" / "figures"))
os.environ.setdefault("MTL_CACHE", str(BUILD / "encoders"))
os.environ.setdefault("MTL_MINE", str(BUILD / "test" / "mine"))
os.environ.setdefault("MTL_STATIC", "1")

import matplotlib  # noqa: E402

matplotlib.use("Agg")

WINDOWS = {
    "test_predictions_are_utf8_with_line_feeds_in_any_locale": "LC_ALL chooses no locale there",
}
TRANSFORMERS_4 = dict.fromkeys(
    [
        "test_the_encoder_of_a_task_model_loads_without_its_head",
        "test_a_folder_without_pooler_loads_with_a_warning_that_one_is_drawn",
        "test_sharded_weights_are_read",
        "test_an_index_that_names_other_than_its_shards_is_refused",
        "test_shards_without_their_index_are_refused_with_its_name",
        "test_a_pair_encoded_together_has_its_segments",
        "test_settings_beside_a_bare_vocabulary_are_followed",
        "test_settings_that_contradict_tokenizer_json_are_refused",
        "test_added_tokens_beside_a_bare_vocabulary_are_added",
        "test_the_flags_of_added_tokens_are_followed",
        "test_what_is_not_followed_is_refused_by_name_and_the_remedy_works",
        "test_minilm_agrees_with_transformers_on_its_real_weights",
    ],
    "compares with the tokenizers of transformers 5",
)


SLOW_FIRST = (
    "test_student_notebooks",
    "test_cluster",
    "test_pool",
    "test_runs",
    "test_wrong_answers",
    "test_packaging",
    "test_data_parallel",
    "test_handbook",
    "test_resume",
    "test_hostile_environment",
    "test_portable",
    "test_faults",
)
"""Modules that take longest, so that at the end no core waits for another's last one."""


def _place(item):
    name = item.module.__name__.rpartition(".")[2]
    return SLOW_FIRST.index(name) if name in SLOW_FIRST else len(SLOW_FIRST)


def pytest_collection_modifyitems(items):
    items.sort(key=_place)
    skipped = WINDOWS if sys.platform == "win32" else {}
    if importlib.metadata.version("transformers").startswith("4."):
        skipped = skipped | TRANSFORMERS_4
    for item in items:
        if reason := skipped.get(getattr(item, "originalname", None)):
            item.add_marker(pytest.mark.skip(reason=reason))
