"""What the paper adds to the losses, in the training: norms, smoothness, weights of the classes."""

from itertools import chain

import pytest
import torch
from small import small_model, small_splits
from test_trainer import NoStep, engine, make_trainer  # noqa: F401

from mtl_lib.study.terms import class_weights, penalty_term, smoothness_term


@pytest.mark.parametrize("p", [1.0, float("inf")])
def test_a_penalty_adds_its_share_of_the_norm_of_the_similarity_matrices(p, engine):  # noqa: F811
    model = small_model(dropout=0.0)
    norm = torch.linalg.vector_norm(model.heads["similarity"].linears[0].weight.flatten(), ord=p)
    terms = {"similarity": [penalty_term("similarity", p, 0.05)]}
    options = {"optimizer": NoStep(model), "engine": engine}
    plain, _ = make_trainer(model, **options).step()
    penalised, _ = make_trainer(model, terms=terms, **options).step()
    assert penalised["similarity"] - plain["similarity"] == pytest.approx(0.05 * norm.item(), 1e-4)
    assert penalised["sentiment"] == plain["sentiment"]


def test_a_penalty_gives_no_gradient_to_encoder_or_biases():
    model = small_model()
    penalty_term("similarity", 1.0, 0.05)(model, None).backward()
    reached = [name for name, p in model.named_parameters() if p.grad is not None]
    assert reached == ["heads.similarity.linears.0.weight"]


def test_smoothness_measures_the_perturbation_and_not_the_dropout():
    torch.manual_seed(0)
    model = small_model(dropout=0.5)
    model.train()
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    value = smoothness_term(1.0, torch.Generator().manual_seed(0))(model, batch)
    assert 0 <= value.item() < 1e-6
    assert model.training


def test_smoothness_reaches_encoder_and_head():
    model = small_model()
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    smoothness_term(1e6, torch.Generator().manual_seed(0))(model, batch).backward()
    reached = chain(model.encoder.encoder.parameters(), model.heads["sentiment"].parameters())
    assert all(p.grad is not None for p in reached)


def test_class_weights_follow_the_papers_formula_and_leave_an_empty_class_at_zero():
    weights = class_weights([0, 0, 0, 1, 2, 2, 4, 4, 4, 4], 5)
    expected = [10 / (5 * 3), 10 / (5 * 1), 10 / (5 * 2), 0.0, 10 / (5 * 4)]
    assert weights.tolist() == pytest.approx(expected)
