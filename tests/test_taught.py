"""What is taught is what trains: an edit of a chapter's code changes the training, and the fast
engine gives the same numbers."""

import inspect

import numpy as np
import pytest
import torch
from small import small_data, small_encoder, small_model
from test_trainer import make_trainer

from mtl_lib import bert, gradients, optim, trainer, weighting
from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.evaluation import predict
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.study.terms import class_weights, penalty_term, smoothness_term
from mtl_lib.tasks import TASKS

LAYERS = [
    cls
    for _, cls in inspect.getmembers(bert, inspect.isclass)
    if cls.__module__ == bert.__name__ and "forward" in vars(cls)
]
FUNCTIONS = [
    name
    for name, function in inspect.getmembers(bert, inspect.isfunction)
    if function.__module__ == bert.__name__
]


def trained(steps: int = 1, **options) -> torch.Tensor:
    """All parameters after some steps of a trainer, by default of the default engine."""
    model = small_model(dropout=0.0, dtype=torch.float64)
    found = make_trainer(model, weighting="pcgrad", **options)
    for _ in range(steps):
        found.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def half_more(function):
    """An edit that no LayerNorm undoes: the result is half as large again."""
    return lambda *args, **options: 1.5 * function(*args, **options)


def test_there_are_layers_and_functions_to_edit():
    assert {cls.__name__ for cls in LAYERS} >= {"BertSelfAttention", "BertLayer", "BertModel"}
    assert set(FUNCTIONS) >= {"attention_scores", "mask_scores", "split_heads", "merge_heads"}


@pytest.mark.parametrize("layer", [cls for cls in LAYERS if cls is not bert.BertModel])
def test_an_edited_layer_of_bert_is_what_trains(layer, monkeypatch):
    before = trained()
    monkeypatch.setattr(layer, "forward", half_more(layer.forward))
    assert not torch.allclose(trained(), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_edited_function_of_bert_is_what_trains(name, monkeypatch):
    before = trained()
    monkeypatch.setattr(bert, name, half_more(getattr(bert, name)))
    assert not torch.allclose(trained(), before, rtol=0, atol=1e-5)


def test_the_edited_model_of_bert_is_what_trains_and_predicts(monkeypatch):
    forward, dev = bert.BertModel.forward, small_data()["sentiment"]["dev"]
    before, logits = trained(), predict(small_model(), dev)

    def edited(self, *args):
        output = forward(self, *args)
        return output._replace(pooler_output=1.5 * output.pooler_output)

    monkeypatch.setattr(bert.BertModel, "forward", edited)
    assert not torch.allclose(trained(), before, rtol=0, atol=1e-5)
    assert not np.allclose(predict(small_model(), dev), logits, atol=1e-5)


def test_an_edited_combination_of_the_gradients_is_what_trains(monkeypatch):
    before, combine = trained(), gradients.TaskGradients.combine

    def first_task_only(self, weights):
        combine(self, torch.zeros_like(weights).index_fill(0, torch.tensor([0]), 1.0))

    monkeypatch.setattr(gradients.TaskGradients, "combine", first_task_only)
    assert not torch.allclose(trained(), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (gradients.TaskGradients, "gram"),
        (weighting, "projected_weights"),
        (trainer.Trainer, "loss"),
    ],
)
def test_an_edited_part_of_the_step_is_what_trains(owner, name, monkeypatch):
    before, part = trained(), getattr(owner, name)

    def edited(*args):  # agreement for conflict and conflict for agreement; a larger weight or loss
        result = part(*args)
        return 2 * torch.diag(result.diag()) - result if result.dim() == 2 else 3 * result

    monkeypatch.setattr(owner, name, edited)
    assert not torch.allclose(trained(), before, rtol=0, atol=1e-9)


def test_an_edited_optimizer_is_what_trains(monkeypatch):
    before, update = trained(), optim._update
    monkeypatch.setattr(
        optim,
        "_update",
        lambda parameter, gradient, *rest: update(parameter, gradient.sign(), *rest),
    )
    assert not torch.allclose(trained(), before, rtol=0, atol=1e-6)


# The fast engine

KINDS = pytest.mark.parametrize("kind", SENTENCE_VECTORS)


def pair_of_trainers(kind="pooler", prepare=lambda model: None, **options):
    """Two trainers alike in all but their engine, in float64, and without dropout."""
    pair = []
    for engine in trainer.ENGINES:
        torch.manual_seed(0)
        encoder = small_encoder(dropout=0.0, dtype=torch.float64)
        heads = {task: HeadConfig((0.0,)) for task in TASKS}
        model = MultitaskModel(encoder, heads, kind).double()
        prepare(model)
        made = {name: value() for name, value in options.items()}
        pair.append(make_trainer(model, weighting="pcgrad", engine=engine, lr=1e-2, **made))
    return pair


def agree(plain, fast, steps=5):
    """Both take the same steps: losses, Gram matrices, gradients and parameters to 1e-9."""
    for _ in range(steps):
        (losses, gram), (fast_losses, fast_gram) = plain.step(), fast.step()
        assert fast_losses == pytest.approx(losses, rel=1e-9)
        torch.testing.assert_close(fast_gram, gram, rtol=1e-9, atol=1e-12)
        pairs = zip(plain.model.named_parameters(), fast.model.parameters(), strict=True)
        for (name, mine), other in pairs:
            torch.testing.assert_close(other, mine, rtol=1e-9, atol=1e-9, msg=name)
            if mine.grad is None or other.grad is None:
                assert (mine.grad is None) == (other.grad is None), name
            else:
                torch.testing.assert_close(other.grad, mine.grad, rtol=1e-9, atol=1e-12)


@KINDS
def test_the_two_engines_train_alike(kind):
    agree(*pair_of_trainers(kind))


@KINDS
def test_the_two_engines_predict_alike(kind):
    plain, fast = pair_of_trainers(kind)
    assert (plain.model.fast, fast.model.fast) == (False, True)
    for splits in plain.data.values():
        batch = splits["dev"].batch(range(12))
        for training in (True, False):  # without dropout
            logits = [t.model.train(training)(batch) for t in (plain, fast)]
            torch.testing.assert_close(*logits, rtol=1e-9, atol=1e-9)
        assert np.allclose(*(predict(t.model, splits["dev"]) for t in (plain, fast)), atol=1e-6)


@KINDS
@pytest.mark.parametrize(
    "frozen",
    ["embeddings", "word_embeddings", "layer.0", "query.weight", "LayerNorm", "pooler", "bias"],
)
def test_the_two_engines_train_a_partly_frozen_encoder_alike(kind, frozen):
    def freeze(model):
        for name, parameter in model.encoder.named_parameters():
            parameter.requires_grad_(frozen not in name)

    plain, fast = pair_of_trainers(kind, freeze)
    before = {n: p.clone() for n, p in fast.model.encoder.named_parameters() if frozen in n}
    assert before
    agree(plain, fast, steps=3)
    for name, parameter in fast.model.encoder.named_parameters():
        assert name not in before or torch.equal(parameter, before[name])


def test_the_two_engines_train_alike_where_a_layer_is_frozen_under_way():
    plain, fast = pair_of_trainers()
    agree(plain, fast, steps=2)
    for trained_model in (plain.model, fast.model):
        trained_model.encoder.encoder.layer[0].requires_grad_(False)
    agree(plain, fast, steps=2)
    for trained_model in (plain.model, fast.model):
        trained_model.encoder.encoder.layer[0].requires_grad_(True)
    agree(plain, fast, steps=2)


def test_the_two_engines_train_alike_with_terms_weights_clipping_and_schedule():
    def terms():
        noise = torch.Generator().manual_seed(3)
        return {
            "similarity": [penalty_term("similarity", 2, 0.5)],
            "sentiment": [smoothness_term(1e8, noise), penalty_term("sentiment", 1, 0.1)],
        }

    plain, fast = pair_of_trainers(
        terms=terms,
        class_weights=lambda: {"sentiment": class_weights([0, 1, 1, 2, 3, 4], 5).double()},
        clip=lambda: 0.5,
        schedule=lambda: lambda step: 1 / (1 + step),
    )
    agree(plain, fast)
