"""The model in 8 bits: near the one it was, small on disk, and whole or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import small_encoder, small_model, small_splits, small_tokenizer
from torch import nn

from mtl_lib.bert import BertConfig, BertModel
from mtl_lib.errors import ConfigError, EncoderError
from mtl_lib.methods.losses import label_smoothed_cross_entropy
from mtl_lib.methods.quantized import dequantize, load_quantized, quantize, save_quantized
from mtl_lib.model import Head, HeadConfig, MultitaskModel
from mtl_lib.pretrained import SPECIAL_TOKENS, load_encoder, wordpiece_tokenizer
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, Task

TASKS = (SENTIMENT, PARAPHRASE, SIMILARITY)


def model_of(sentence_vector):
    heads = {task: HeadConfig() for task in TASKS}
    return MultitaskModel(small_encoder(), heads, sentence_vector).eval()


def test_a_row_is_rounded_to_254_steps_of_its_own():
    matrix = torch.tensor([[127.0, -3.4, 0.0], [0.0, 0.0, 0.0], [-0.5, 0.25, 0.1]])
    small = quantize({"w": matrix})
    assert small["w"].tolist() == [[127, -3, 0], [0, 0, 0], [-127, 64, 25]]
    torch.testing.assert_close(small["w.scale"], torch.tensor([1.0, 1.0, 0.5 / 127]))


def test_no_weight_moves_by_more_than_half_a_step():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(50, 40, generator=generator) * torch.logspace(-6, 6, 50)[:, None]
    back = dequantize(quantize({"w": matrix}))["w"]
    steps = matrix.double().abs().amax(dim=1) / 127
    assert ((back.double() - matrix.double()).abs() <= 0.5001 * steps[:, None]).all()


def test_vectors_stay_as_they_are():
    vector = torch.randn(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dequantize(quantize({"b": vector}))["b"], vector)


@pytest.mark.parametrize("sentence_vector", ["pooler", "mean", "cls"])
def test_outputs_before_and_after_lie_close_together(tmp_path, sentence_vector):
    model = model_of(sentence_vector)
    save_quantized(model, tmp_path)
    loaded = load_quantized(tmp_path)
    for name, split in small_splits().items():
        batch = split.batch(range(len(split)))
        with torch.no_grad():
            before, after = model(batch).numpy(), loaded(batch).numpy()
        assert not np.array_equal(before, after)
        assert np.abs(before - after).max() < 0.05 * np.abs(before).max(), name


def test_what_is_loaded_is_what_was_rounded(tmp_path):
    model = small_model()
    save_quantized(model, tmp_path)
    expected = dequantize(quantize(model.state_dict()))
    loaded = load_quantized(tmp_path).state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == torch.float32


def test_a_loaded_model_is_in_eval_mode_with_its_tokenizer_and_can_be_trained_on(tmp_path):
    save_quantized(small_model(), tmp_path, small_tokenizer())
    model = load_quantized(tmp_path)
    assert type(model) is MultitaskModel
    assert not any(module.training for module in model.modules())
    assert model.tokenizer.to_str() == small_tokenizer().to_str()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = small_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_quantized(model, tmp_path)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_pooler_that_no_head_sees_is_left_out_and_comes_back_as_zero(tmp_path):
    save_quantized(model_of("mean"), tmp_path)
    assert not any("pooler" in name for name in load_file(tmp_path / "model.safetensors"))
    assert not any(p.any() for p in load_quantized(tmp_path).encoder.pooler.parameters())


def test_a_number_takes_a_byte_on_disk(tmp_path):
    config = BertConfig(2000, 128, 2, 2, 512, max_position_embeddings=64)
    model = MultitaskModel(BertModel(config), {SENTIMENT: HeadConfig()}, "mean")
    save_quantized(model, tmp_path)
    parameters = sum(p.numel() for p in model.shared_parameters())
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert parameters < size < 1.1 * parameters


def test_what_is_saved_twice_is_equal_byte_by_byte(tmp_path):
    for name in ("first", "second"):
        save_quantized(small_model(), tmp_path / name, small_tokenizer())
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["config.json", "heads.json", "model.safetensors", "tokenizer.json"]
    for name in files:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_a_task_with_a_loss_of_its_own_is_given(tmp_path):
    task = Task("tone", outputs=3, loss=label_smoothed_cross_entropy(), max_label=2)
    save_quantized(MultitaskModel(small_encoder(), {task: HeadConfig()}), tmp_path)
    with pytest.raises(EncoderError, match="its loss is its own"):
        load_quantized(tmp_path)
    assert load_quantized(tmp_path, tasks=[task]).tasks["tone"] is task


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def write_noise(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights at all")


def lose_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.embeddings.word_embeddings.weight"]
    save_file(state, folder / "model.safetensors")


def write_another_model(folder: Path) -> None:
    save_file({"weight": torch.zeros(3)}, folder / "model.safetensors")


def change_the_sizes(folder: Path) -> None:
    sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes["hidden_size"] *= 2
    (folder / "config.json").write_text(json.dumps(sizes), encoding="utf-8")


FAULTS = [cut, write_noise, lose_a_tensor, write_another_model, change_the_sizes]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, fault):
    save_quantized(small_model(), tmp_path)
    fault(tmp_path)
    with pytest.raises(EncoderError, match="does not fit"):
        load_quantized(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "heads.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    save_quantized(small_model(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(EncoderError, match=name):
        load_quantized(tmp_path)


def test_load_refuses_what_is_in_8_bits(tmp_path):
    save_quantized(small_model(), tmp_path, wordpiece_tokenizer(SPECIAL_TOKENS))
    for load in (MultitaskModel.load, load_encoder):
        with pytest.raises(EncoderError, match="stored in 8 bits: use .*load_quantized"):
            load(tmp_path)


def test_a_weight_that_is_not_finite_is_refused_by_name(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.encoder.pooler.dense.weight[0, 0] = torch.nan
    with pytest.raises(ConfigError, match=r"encoder\.pooler\.dense\.weight"):
        save_quantized(model, tmp_path)


def test_a_head_of_ones_own_is_refused(tmp_path):
    model = MultitaskModel(small_encoder(), {SENTIMENT: nn.Linear(16, 5)})
    with pytest.raises(ConfigError, match="one's own"):
        save_quantized(model, tmp_path)


@pytest.mark.parametrize("subclass", [Head, BertModel])
def test_a_subclass_is_ones_own_and_refused(subclass, tmp_path):
    model = model_of("pooler")
    part = model.encoder if subclass is BertModel else model.heads["sentiment"]
    part.__class__ = type("Own", (subclass,), {})
    with pytest.raises(ConfigError, match="one's own"):
        save_quantized(model, tmp_path)


def test_layers_that_share_their_weights_come_back(tmp_path):
    model = model_of("mean")
    model.encoder.encoder.layer[1] = model.encoder.encoder.layer[0]
    save_quantized(model, tmp_path)
    batch = small_splits()["similarity"].batch(range(6))
    with torch.no_grad():
        given, back = model(batch), load_quantized(tmp_path)(batch)
    torch.testing.assert_close(back, given, rtol=0, atol=5e-3)
