"""The published tables, and where they do not fit together."""

import ast

import numpy as np
import pytest

from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.paths import ROOT
from mtl_lib.study import paper


def figure_5(task):
    return paper.PAPER_FIGURE_5.query("task == @task")


def test_figures_3_and_4_have_ten_rows_of_six_scores():
    for figure, table in (("3", paper.PAPER_FIGURE_3), ("4", paper.PAPER_FIGURE_4)):
        assert list(table.index) == [f"{figure}.{n}" for n in range(1, 11)]
        assert list(table.columns) == [
            "name",
            *(f"train_{task}" for task in paper.TASK_ORDER),
            *(f"dev_{task}" for task in paper.TASK_ORDER),
        ]
        assert table.drop(columns="name").stack().between(0, 1).all()


def test_figure_tables_agree_with_the_scores_repeated_in_section_6():
    baseline = paper.PAPER_SCORES.loc[paper.BASELINE]
    final = paper.PAPER_SCORES.loc[paper.FINAL_ROWS[0]]
    columns = ["dev_paraphrase", "dev_sentiment", "dev_similarity"]
    assert baseline[columns].tolist() == [0.667, 0.347, 0.254]
    assert final[columns].tolist() == [0.728, 0.516, 0.438]


def test_shares_of_every_task_sum_to_one():
    for table in (paper.PAPER_FIGURE_5, paper.PAPER_SHARES):
        assert np.allclose(table.groupby("task")["share"].sum(), 1)


def test_figure_5_has_the_labels_of_section_5_1():
    keys = ["task", "label"]
    assert paper.PAPER_FIGURE_5[keys].equals(paper.PAPER_SHARES[keys])


def test_test_scores_average_to_the_abstracts_number():
    average = paper.three_task_average(paper.PAPER_TEST.loc["4.6"])
    assert average == pytest.approx(paper.PAPER_TEST_AVERAGE, abs=5e-4)


def test_sentiment_column_of_figure_5_gives_back_the_published_accuracies():
    column, published = figure_5("sentiment"), paper.PAPER_FINAL_DEV.loc["sentiment"]
    overall = paper.overall_from_classes(column["accuracy"], column["share"])
    assert overall == pytest.approx(published["accuracy"], abs=1e-3)
    balanced = paper.balanced_from_classes(column["accuracy"])
    assert balanced == pytest.approx(published["balanced_accuracy"], abs=5e-3)


def test_paraphrase_column_of_figure_5_contradicts_the_published_accuracies():
    column = figure_5("paraphrase")
    overall = paper.overall_from_classes(column["accuracy"], column["share"])
    assert overall == pytest.approx(0.569, abs=5e-4)
    assert paper.balanced_from_classes(column["accuracy"]) == pytest.approx(0.5185)


def test_published_paraphrase_accuracy_balanced_accuracy_and_f1_fit_together():
    published = paper.PAPER_FINAL_DEV.loc["paraphrase"]
    recalls = paper.recalls_from_overall(
        published["accuracy"], published["balanced_accuracy"], positive=0.375
    )
    assert recalls == pytest.approx((0.848, 0.528))
    f1 = paper.macro_f1_from_recalls(recalls, positive=0.375)
    assert f1 == pytest.approx(published["macro_f1"], abs=1e-3)


def test_figure_5_has_the_predicted_positive_rate_of_the_published_accuracies():
    printed = paper.positive_rate(tuple(figure_5("paraphrase")["accuracy"]), positive=0.375)
    implied = paper.positive_rate((0.848, 0.528), positive=0.375)
    assert printed == pytest.approx(implied, abs=1e-3)


def test_two_class_identities_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    true = generator.random(500) < 0.3
    predicted = np.where(generator.random(500) < 0.25, ~true, true)
    recalls = paper.recalls_from_overall(
        metrics.accuracy_score(true, predicted),
        metrics.balanced_accuracy_score(true, predicted),
        positive=true.mean(),
    )
    assert recalls == pytest.approx(metrics.recall_score(true, predicted, average=None))
    assert paper.positive_rate(recalls, true.mean()) == pytest.approx(predicted.mean())
    f1 = metrics.f1_score(true, predicted, average="macro")
    assert paper.macro_f1_from_recalls(recalls, true.mean()) == pytest.approx(f1)


def test_recalls_need_unequal_shares():
    with pytest.raises(ValueError, match="equal shares"):
        paper.recalls_from_overall(0.7, 0.7, positive=0.5)


def test_frequent_labels_are_not_always_predicted_better():
    correlation = {
        task: paper.frequency_correlation(figure_5(task)["accuracy"], figure_5(task)["share"])
        for task in ("sentiment", "similarity")
    }
    assert correlation == pytest.approx({"sentiment": 0.7, "similarity": 0.486}, abs=1e-3)


def test_rows_4_4_and_4_5_are_identical_and_no_others():
    assert paper.identical_rows(paper.PAPER_FIGURE_4) == [("4.4", "4.5")]
    assert paper.identical_rows(paper.PAPER_FIGURE_3) == []


def test_row_3_4_decay_shrinks_weights_by_less_than_half_a_percent():
    lost = paper.decayed_share(rate=1e-5, decay=0.05, steps=7550)
    assert lost == pytest.approx(0.00377, abs=1e-5)


def test_what_decay_takes_and_what_it_leaves_have_two_names():
    left = EXERCISES["decay_shrinkage"].reference  # the exercise of chapter 03
    assert paper.decayed_share(0.1, 0.3, 5) == pytest.approx(1 - left(0.1, 0.3, 5))
    assert not hasattr(paper, "decay_shrinkage")


def constants(path):
    """The names in capitals that a module defines."""
    for line in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = line.targets if isinstance(line, ast.Assign) else []
        for name in (node for target in targets for node in ast.walk(target)):
            if isinstance(name, ast.Name) and name.id.isupper():
                yield name.id


def test_a_row_has_one_name_and_a_name_one_meaning():
    defined = {path.stem: set(constants(path)) for path in (ROOT / "mtl_lib/study").glob("*.py")}
    assert {"BASELINE", "FINAL", "ARCHITECTURE"} <= defined["paper"]
    assert "FROZEN" in defined["rows"] and "PROFILES" in defined["profiles"]
    for home in ("paper", "rows", "profiles", "groups", "claims"):
        for module, names in defined.items():
            assert module == home or not names & defined[home], module
