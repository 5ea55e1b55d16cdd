"""Predictions in the class's format: every row has its line, or no file is written."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from small import small_encoder, small_model, small_tokenizer

from mtl_lib import cli
from mtl_lib.data import Corpus, PairExample, SentenceExample, tokenize
from mtl_lib.errors import CorpusError
from mtl_lib.evaluation import predict, predicted_labels
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.paths import ROOT
from mtl_lib.study.submission import load_model, write_predictions
from mtl_lib.tasks import PARAPHRASE, Task

PAIRS = "id\tsentence1\tsentence2\n"


@pytest.fixture
def model(tmp_path):
    small_model().save(tmp_path / "model", small_tokenizer())
    return tmp_path / "model"


def pairs_folder(tmp_path, rows: str, name: str = "quora-test-student.csv", header: str = PAIRS):
    folder = tmp_path / "corpus"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes((header + rows).encode())
    return folder


def lines(path) -> list[list[str]]:
    _, *rows = path.read_bytes().decode().split("\n")
    assert rows.pop() == ""
    return [row.strip().split(" , ") for row in rows]


def test_an_empty_sentence_and_a_quoted_line_break_have_their_lines(model, tmp_path, capsys):
    rows = [
        ("x1", "the film was good", "a good film"),
        ("x2", "the film was bad", ""),
        ("x3", "the actor\nwas dull", "a dull actor"),
        ("x4", "a scene", "the scene"),
        ("x5", "fine", "not fine"),
    ]
    text = "".join("{}\t{}\t{}\n".format(*row) for row in rows).replace(
        "the actor\nwas dull", '"the actor\nwas dull"'
    )
    folder = pairs_folder(tmp_path, text)
    assert cli.main(["predict", str(model), "--data", str(folder), "--out", str(tmp_path)]) == 0
    network, tokenizer = load_model(model)
    examples = tokenize([PairExample(*row, None) for row in rows], PARAPHRASE, tokenizer, 32)
    expected = predicted_labels(PARAPHRASE, predict(network, examples))
    assert lines(tmp_path / "para-test-output.csv") == [
        [row[0], str(label)] for row, label in zip(rows, expected, strict=True)
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("x2\tthe film", "csv:3: 2 fields in place of 3"),
        ("x2\ta\tfilm\tscene", "csv:3: 4 fields in place of 3"),
        ("\ta film\ta scene", "csv:3: id is missing"),
        ("x1\ta film\ta scene", "csv:3: id x1 is there for the second time"),
        ("x2\ta\0film\ta scene", "csv:3: a NUL character is in it"),
        ('"x\n2"\ta film\ta scene', "csv:3: a line break is in the id"),
    ],
)
def test_a_row_that_cannot_be_predicted_is_named_and_nothing_is_written(
    model, tmp_path, capsys, row, words
):
    folder = pairs_folder(tmp_path, f"x1\ta\tb\n{row}\nx3\tc\td\n")
    out = tmp_path / "out"
    assert cli.main(["predict", str(model), "--data", str(folder), "--out", str(out)]) == 1
    assert f"quora-test-student.{words}" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_many_rows_that_cannot_be_predicted_are_counted(model, tmp_path):
    folder = pairs_folder(tmp_path, "x1\ta\tb\n" + "x2\ta\n" * 12)
    with pytest.raises(CorpusError, match=r"12 rows .*csv:12: 2 fields.*; and 2 more$"):
        write_predictions(model, folder, "test", tmp_path / "out")


def test_a_malformed_row_of_another_split_does_not_stop_predictions(model, tmp_path, capsys):
    folder = pairs_folder(tmp_path, "x1\ta\tb\n")
    header = PAIRS.replace("\n", "\tis_duplicate\n")
    pairs_folder(tmp_path, "x7\ta\n" + "x8\ta\tb\t1\n", "quora-train.csv", header)
    (path,) = write_predictions(model, folder, "test", tmp_path)
    assert [row[0] for row in lines(path)] == ["x1"]
    assert "quora-train.csv:2: 2 fields in place of 4" in capsys.readouterr().err


def test_development_rows_without_label_or_sentence_have_their_lines(model, tmp_path):
    rows = "x1\ta film\tthe film\t1\nx2\ta scene\tthe scene\t\nx3\ta film\t\t0\n"
    header = PAIRS.replace("\n", "\tis_duplicate\n")
    folder = pairs_folder(tmp_path, rows, "quora-dev.csv", header)
    (path,) = write_predictions(model, folder, "dev", tmp_path)
    assert [row[0] for row in lines(path)] == ["x1", "x2", "x3"]


def own_corpus(task: Task, text: str) -> Corpus:
    example = SentenceExample("x1", text, None)
    return Corpus(name="own", splits={task.name: {"test": [example]}}, tasks={task.name: task})


def test_a_task_of_ones_own_goes_to_a_file_of_its_name(tmp_path):
    mood = Task("my-mood", outputs=3)
    MultitaskModel(small_encoder(), {mood: HeadConfig()}).save(tmp_path, small_tokenizer())
    paths = write_predictions(tmp_path, own_corpus(mood, "a good film"), "test", tmp_path / "out")
    assert [path.name for path in paths] == ["my-mood-test-output.csv"]
    assert paths[0].read_bytes().startswith(b"id \t Predicted_Label \nx1 , ")


def test_sentences_are_cut_where_the_model_folder_says(tmp_path):
    score = Task("own-score", loss="mean_squared_error", metric="pearson")
    model = MultitaskModel(small_encoder(), {score: HeadConfig()})
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(5)
    model.save(tmp_path, tokenizer)
    text = "good bad fine dull film actor scene"
    (path,) = write_predictions(tmp_path, own_corpus(score, text), "test", tmp_path)
    ids = torch.tensor([tokenizer.encode(text).ids])
    assert ids.shape == (1, 5)
    with torch.no_grad():
        vectors = model.eval().encode(ids, torch.ones_like(ids))
        expected = model.heads["own-score"](vectors).item()
    assert float(lines(path)[0][1]) == pytest.approx(expected, abs=1e-6)


def test_predictions_are_utf8_with_line_feeds_in_any_locale(model, tmp_path):
    folder = pairs_folder(tmp_path, "é1\ta film\tthe film\n")
    code = (
        "import sys; from mtl_lib.study.submission import write_predictions;"
        "write_predictions(*sys.argv[1:3], 'test', sys.argv[3])"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", code, str(model), str(folder), str(tmp_path / "out")],
        env=environment,
        cwd=ROOT,
        check=True,
    )
    content = (tmp_path / "out" / "para-test-output.csv").read_bytes()
    assert content.startswith("id \t Predicted_Is_Paraphrase \né1 , ".encode())
    assert b"\r" not in content and os.listdir(tmp_path / "out") == ["para-test-output.csv"]


def test_an_embedded_test_file_has_a_prediction_for_every_id(model, tmp_path):
    paths = write_predictions(model, "handbook", "test", tmp_path)
    names = {"sentiment": "ids-sst", "paraphrase": "quora", "similarity": "sts"}
    for path, stem in zip(paths, names.values(), strict=True):
        source = (ROOT / "data" / "handbook" / f"{stem}-test-student.csv").read_text("utf-8")
        header, *rows = [line.split("\t") for line in source.splitlines()]
        assert [row[0] for row in lines(path)] == [row[header.index("id")] for row in rows]
        assert np.isfinite([float(row[1]) for row in lines(path)]).all()
