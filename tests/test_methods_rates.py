"""Groups of parameters with rates of their own: every one once, each at the rate of its layer."""

import pytest
import torch
from small import small_model, small_splits
from torch import nn

from mtl_lib.errors import ConfigError
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.methods.rates import OPTIMIZERS, parameter_groups
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.tasks import SENTIMENT
from mtl_lib.trainer import Trainer


def options_by_name(model, **options):
    """Of each parameter's name its rate and weight decay."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, **options)
    return {names[p]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_every_trained_parameter_is_there_once(decay):
    model = small_model()
    groups = parameter_groups(model, 1e-3, layer_decay=decay, weight_decay=0.01)
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in model.parameters()}


def test_frozen_parameters_are_left_out():
    model = small_model()
    model.freeze()
    assert all(name.startswith("heads.") for name in options_by_name(model, lr=1e-3))


def test_rates_fall_by_a_factor_a_layer_down_to_the_embeddings():
    rates = options_by_name(small_model(), lr=1.0, head_lr=7.0, layer_decay=0.5)  # two layers
    for name, (rate, _) in rates.items():
        if name.startswith("encoder.embeddings."):
            assert rate == 0.25
        elif name.startswith("encoder.encoder.layer.0."):
            assert rate == 0.5
        elif name.startswith(("encoder.encoder.layer.1.", "encoder.pooler.")):
            assert rate == 1.0
        else:
            assert name.startswith("heads.") and rate == 7.0


def test_the_last_layer_that_is_left_has_the_whole_rate():
    model = small_model()
    model.encoder.encoder.layer = model.encoder.encoder.layer[:1]  # of two
    rates = options_by_name(model, lr=1.0, layer_decay=0.5)
    assert rates["encoder.encoder.layer.0.output.dense.weight"][0] == 1.0
    assert rates["encoder.embeddings.word_embeddings.weight"][0] == 0.5


def test_without_rates_of_their_own_all_learn_at_one_rate():
    groups = parameter_groups(small_model(), 3e-4)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(3e-4, 0.0)]


def test_biases_and_layer_norms_are_not_decayed():
    for name, (_, decay) in options_by_name(small_model(), lr=1.0, weight_decay=0.01).items():
        assert decay == (0.0 if "LayerNorm" in name or name.endswith(".bias") else 0.01), name


class OwnEncoder(nn.Module):
    hidden_size = 4

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 4)

    def encode(self, input_ids, attention_mask):
        return self.table(input_ids).mean(dim=1)


def test_an_encoder_of_ones_own_has_one_rate():
    model = MultitaskModel(OwnEncoder(), {SENTIMENT: HeadConfig()})
    rates = options_by_name(model, lr=1.0, head_lr=2.0)
    assert rates["encoder.table.weight"][0] == 1.0
    assert rates["heads.sentiment.linears.0.weight"][0] == 2.0


def test_the_layers_of_an_encoder_of_ones_own_are_not_known():
    model = MultitaskModel(OwnEncoder(), {SENTIMENT: HeadConfig()})
    with pytest.raises(ConfigError, match="the layers of OwnEncoder are not known"):
        parameter_groups(model, 1.0, layer_decay=0.9)


@pytest.mark.parametrize("decay", [0.0, 1.1])
def test_a_factor_outside_its_range_is_refused(decay):
    with pytest.raises(ConfigError, match=f"layer_decay = {decay}"):
        parameter_groups(small_model(), 1.0, layer_decay=decay)


def first_step(name, gradient, lr=0.01, weight_decay=0.0):
    """How far a parameter at 2 moves at the first step."""
    parameter = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    groups = [{"params": [parameter], "lr": lr, "weight_decay": weight_decay}]
    parameter.grad = torch.tensor([[gradient]], dtype=torch.float64)
    OPTIMIZERS[name](groups).step()
    return 2.0 - parameter.item()


@pytest.mark.parametrize(
    "name, moved",
    [
        ("adamw", 0.01),  # lr, whatever the gradient's size
        ("adagrad", 0.01),  # lr g / sqrt(g^2)
        ("rmsprop", 0.01 / 0.1**0.5),  # lr g / sqrt((1 - 0.9) g^2)
        ("sgd", 0.01 * 4.0 * 1.9),  # lr (g + 0.9 g): Nesterov's look ahead
    ],
)
def test_an_optimizer_moves_as_its_formula_says(name, moved):
    assert first_step(name, 4.0) == pytest.approx(moved, rel=1e-4)


def test_the_fused_adamw_is_ours():
    assert OPTIMIZERS["adamw"] is FusedAdamW


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trainer_trains_with_each_optimizer_and_its_groups(name):
    model = small_model()
    before = [p.detach().clone() for p in model.parameters()]
    groups = parameter_groups(model, 1e-3, head_lr=1e-2, layer_decay=0.5, weight_decay=0.01)
    trainer = Trainer(model, small_splits(), optimizer=OPTIMIZERS[name](groups))
    trainer.fit(epochs=1, max_steps=2)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(moved)
