"""A student's own library: one who solves everything has it all, one who leaves gaps is lent the
rest, and both BERTs are BERT, train three tasks, and step as the library does."""

import copy
import re
import subprocess
import sys
from functools import cache
from itertools import chain
from types import ModuleType
from typing import Any

import pytest
import torch
from small import small_corpus, small_tokenizer
from torch import nn
from torch.testing import assert_close

from mtl_lib import model as library
from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.data import tokenize
from mtl_lib.handbook import mine
from mtl_lib.handbook.checks import EXERCISES, check
from mtl_lib.handbook.checks.framework import functions_of
from mtl_lib.handbook.lint import read_notebook
from mtl_lib.handbook.solutions import solutions
from mtl_lib.optim import AdamW
from mtl_lib.paths import NOTEBOOKS
from mtl_lib.tasks import TASKS
from mtl_lib.trainer import Trainer
from mtl_lib.weighting import projected_weights, sum_weights

CONFIG = BertConfig(
    vocab_size=16,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.2,
)


@cache
def solved() -> list[tuple[str, Any]]:
    """Each exercise with the answer of its notebook."""
    return list(solutions())


def answer_exercises(which: list[tuple[str, Any]]) -> set[str]:
    """Hand answers to their checks, as the notebooks do; those that passed."""
    known: dict[str, Any] = {}  # what a notebook's own cells bring from earlier chapters
    passed = set()
    for name, answer in which:
        names = functions_of(answer)[0].__globals__
        names.update({n: value for n, value in known.items() if n not in names})
        known[name] = check(name, answer)
        if known[name] is answer:
            passed.add(name)
    return passed


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The folder of a student who answered everything, and the names of what passed."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("complete")
        patch.setenv("MTL_MINE", str(folder))
        yield folder, answer_exercises(solved())


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The folder of a student who left every second exercise empty."""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_MINE", str(folder))
        for number, (name, answer) in enumerate(solutions()):
            if number % 2 == 0:
                mine.keep(name, answer)
            else:  # what its check gives in its place
                functions_of(answer)[0].__globals__[name] = EXERCISES[name].reference
    return folder


@pytest.fixture(params=["complete", "half"])
def my(request, monkeypatch) -> ModuleType:
    """The pieces of one of the two students, assembled."""
    found = request.getfixturevalue(request.param)
    folder = found[0] if request.param == "complete" else found
    monkeypatch.setenv("MTL_MINE", str(folder))
    return mine.load()


def own_model(my: ModuleType) -> nn.Module:
    """The student's model over the student's BERT, from seeded weights."""
    torch.manual_seed(0)
    encoder = my.Bert(CONFIG)
    state = BertModel(CONFIG).state_dict()
    my.load_public(encoder, state)
    torch.manual_seed(0)
    return my.MultitaskModel(encoder, CONFIG.hidden_size, TASKS, 0.0)


def twin_of(model: nn.Module) -> library.MultitaskModel:
    """The library's model with the same weights."""
    encoder = BertModel(CONFIG)
    twin = library.MultitaskModel(encoder, {t.name: library.HeadConfig((0.0,)) for t in TASKS})
    twin.to(next(model.parameters()).dtype)
    encoder.load_state_dict(model.encoder.state_dict())
    for name, head in model.heads.items():
        twin.heads[name].linears[0].load_state_dict(head.linear.state_dict())
    return twin


@cache
def splits(dtype: torch.dtype = torch.float32) -> dict[str, dict]:
    """Three small tasks; labels that are no classes are of this type."""
    corpus, tokenizer = small_corpus(40), small_tokenizer()
    found = {}
    for task in TASKS:
        found[task.name] = {}
        for part in ("train", "dev"):
            split = tokenize(corpus.splits[task.name][part], task, tokenizer, 16)
            if split.labels.is_floating_point():
                split.labels = split.labels.to(dtype)
            found[task.name][part] = split
    return found


def test_everything_that_the_notebooks_solve_passes_and_is_kept(complete, monkeypatch):
    folder, passed = complete
    assert passed == EXERCISES.keys()
    monkeypatch.setenv("MTL_MINE", str(folder))
    assert list(mine.overview())[-1].startswith(f"{len(mine.PIECES)} of {len(mine.PIECES)}")


def test_all_pieces_are_the_students_own_and_need_nothing_but_their_file(complete):
    folder, _ = complete
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import mine, torch; "
        f"pieces = [getattr(mine, name) for name in {mine.PIECES!r}]; "
        "assert all(piece.__module__ == 'mine' for piece in pieces); "
        "print(len(pieces))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(len(mine.PIECES))], done.stderr


def test_half_of_the_pieces_are_lent(half, monkeypatch):
    monkeypatch.setenv("MTL_MINE", str(half))
    my = mine.load()
    lent = [name for name in mine.PIECES if getattr(my, name).__module__ != "mine"]
    kept = {name for name, _ in solved()[::2]}
    assert set(lent) == set(mine.PIECES) - kept
    assert lent


def test_the_assembled_bert_is_bert(my):
    transformers = pytest.importorskip("transformers")
    names = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "max_position_embeddings", "hidden_dropout_prob",
        "attention_probs_dropout_prob",
    )  # fmt: skip
    torch.manual_seed(1)
    public = transformers.BertModel(
        transformers.BertConfig(**{name: getattr(CONFIG, name) for name in names})
    ).eval()
    own = my.Bert(CONFIG).eval()
    my.load_public(own, public.state_dict())
    batch = splits()["similarity"]["train"].batch(range(6))
    with torch.no_grad():
        expected = public(batch.input_ids, batch.attention_mask)
        hidden, vectors = own(batch.input_ids, batch.attention_mask)
    tokens = batch.attention_mask > 0
    assert_close(hidden[tokens], expected.last_hidden_state[tokens], rtol=1e-5, atol=1e-5)
    assert_close(vectors, expected.pooler_output, rtol=1e-5, atol=1e-5)


def test_it_trains_three_tasks(my):
    model = own_model(my)
    before = my.evaluate(model, splits())
    losses = my.train_tasks(model, splits(), my.AdamW(model.parameters(), lr=3e-3), steps=60)
    losses = torch.tensor(losses)  # [steps, tasks]
    assert (losses[-10:].mean(dim=0) < 0.9 * losses[:10].mean(dim=0)).all(), losses
    assert before.keys() == my.evaluate(model, splits()).keys() == splits().keys()


def noted_orders(my: ModuleType, monkeypatch) -> list[list[list[int]]]:
    """The random order of each step that the student's surgery takes from now on."""
    orders: list = []
    names = my.surgery.__globals__
    step = names["surgery_step"]

    def noting(losses, model, order):
        orders.append([list(others) for others in order])
        step(losses, model, order)

    monkeypatch.setitem(names, "surgery_step", noting)
    return orders


@pytest.mark.parametrize("method", ["sum", "surgery"])
def test_two_joint_steps_are_the_librarys(my, method, monkeypatch):
    # In float64: the keys' biases have the gradient 0, and AdamW would enlarge its rounding.
    data = splits(torch.float64)
    model = own_model(my).double()
    twin = twin_of(model)
    options, weighting = {}, sum_weights
    if method == "surgery":
        options["backward"] = my.surgery(seed=0)
        orders = noted_orders(my, monkeypatch)
        weighting = lambda gram, generator: projected_weights(gram, orders.pop(0))  # noqa: E731
    optimizer = my.AdamW(model.parameters(), lr=1e-3)
    losses = my.train_tasks(model, data, optimizer, steps=2, **options)

    trainer = Trainer(
        twin,
        data,
        optimizer=AdamW(twin.parameters(), lr=1e-3, form="textbook"),
        weighting=weighting,
        batch_size=8,
        seed=0,
    )
    expected = [list(trainer.step()[0].values()) for _ in range(2)]
    assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    moved = 0.0
    start = own_model(my).double()
    for own, other, old in zip(
        model.parameters(), twin.parameters(), start.parameters(), strict=True
    ):
        assert_close(own, other, rtol=0, atol=1e-5)
        moved = max(moved, (own - old).abs().max().item())
    assert moved > 1e-3  # so that 1e-5 says something


def test_surgery_changes_the_step(my):
    """Else the comparison above would say nothing of it."""
    model = own_model(my)
    other = copy.deepcopy(model)
    for each, options in ((model, {}), (other, {"backward": my.surgery(seed=0)})):
        my.train_tasks(each, splits(), my.AdamW(each.parameters(), lr=1e-3), steps=4, **options)
    pairs = zip(model.shared_parameters(), other.shared_parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) > 1e-5


def test_how_much_a_student_writes(capsys):
    cells = chain.from_iterable(read_notebook(path).cells for path in NOTEBOOKS.glob("*.ipynb"))
    written = [
        line
        for cell in cells
        if cell.cell_type == "code"
        for part in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", cell.source, re.S)
        for line in part.splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    with capsys.disabled():
        print(
            f"\n{len(EXERCISES)} exercises, {len(written)} lines that the reader writes, "
            f"{len(mine.PIECES)} pieces of a library of one's own"
        )
    assert len(EXERCISES) >= 60
    assert len(written) >= 400
