"""The encoder against transformers' BERT, and against the paper's formulas written out."""

import dataclasses
import json

import pytest
import small
import torch
import torch.nn.functional as F
import transformers

from mtl_lib.bert import (
    AddNorm,
    BertEmbeddings,
    BertLayer,
    BertModel,
    BertSelfAttention,
    attention_scores,
    mask_scores,
    merge_heads,
    split_heads,
)
from mtl_lib.errors import EncoderError
from mtl_lib.pretrained.config import read_config, write_config

SMALL = dataclasses.replace(
    small.SMALL, vocab_size=60, hidden_size=24, num_attention_heads=3, max_position_embeddings=16
)
SIZES = {
    "small": SMALL,
    "one head, one layer": dataclasses.replace(SMALL, num_hidden_layers=1, num_attention_heads=1),
    "head of size 1": dataclasses.replace(SMALL, num_attention_heads=24),
    "deep": dataclasses.replace(SMALL, num_hidden_layers=6, initializer_range=0.1),
    "minilm width": dataclasses.replace(
        SMALL, hidden_size=384, num_attention_heads=12, intermediate_size=1536
    ),
}


def without_dropout(config):
    return dataclasses.replace(config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def random_model(config, seed=0):
    """A model whose biases and LayerNorm weights are random too, so that parity tests see them."""
    torch.manual_seed(seed)
    model = BertModel(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("Norm.weight")), std=0.1)
    return model


def reference(model):
    """transformers' BertModel with the same weights; keys must match one to one."""
    config = transformers.BertConfig(
        **dataclasses.asdict(model.config), attn_implementation="eager"
    )
    peer = transformers.BertModel(config)
    peer.load_state_dict(model.state_dict(), strict=True)
    return peer


def ragged_batch(config, lengths=(12, 7, 1, 9), seed=1):
    """Ids, mask and segments, `[4, 12]` each; the second segment starts at token 3."""
    generator = torch.Generator().manual_seed(seed)
    L = max(lengths)
    ids = torch.randint(1, config.vocab_size, (len(lengths), L), generator=generator)
    mask = (torch.arange(L) < torch.tensor(lengths)[:, None]).long()
    segments = (torch.arange(L) >= 3).long().expand_as(ids)
    return ids * mask, mask, segments * mask


def assert_parity(model, peer, batch, tolerance=1e-5):
    ids, mask, segments = batch
    torch.manual_seed(5)
    ours = model(ids, mask, segments)
    torch.manual_seed(5)
    theirs = peer(ids, attention_mask=mask, token_type_ids=segments)
    torch.testing.assert_close(
        ours.last_hidden_state, theirs.last_hidden_state, rtol=tolerance, atol=tolerance
    )
    torch.testing.assert_close(
        ours.pooler_output, theirs.pooler_output, rtol=tolerance, atol=tolerance
    )
    return ours, theirs


# Parity with transformers


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES.keys())
def test_outputs_equal_transformers_in_eval_mode(config):
    model = random_model(config)
    assert_parity(model.eval(), reference(model).eval(), ragged_batch(config))


@pytest.mark.parametrize("config", SIZES.values(), ids=SIZES.keys())
def test_outputs_and_gradients_equal_transformers_in_train_mode(config):
    model = random_model(without_dropout(config))
    peer = reference(model)
    ours, theirs = assert_parity(model.train(), peer.train(), ragged_batch(config))
    for output in (ours, theirs):
        (output.last_hidden_state.square().mean() + output.pooler_output.sum()).backward()
    gradients = {name: parameter.grad for name, parameter in peer.named_parameters()}
    for name, parameter in model.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=1e-5, atol=1e-5 * max(scale, 1), msg=name
        )


def test_every_dropout_acts_where_transformers_has_it():
    # Both draw the masks in the same order and shape, so one seed gives both the same masks.
    config = dataclasses.replace(SMALL, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.4)
    model = random_model(config)
    assert_parity(model.train(), reference(model).train(), ragged_batch(config))


def test_missing_segments_mean_the_first_segment():
    model = random_model(SMALL).eval()
    ids, mask, _ = ragged_batch(SMALL)
    with_zeros = model(ids, mask, torch.zeros_like(ids))
    assert torch.equal(model(ids, mask).pooler_output, with_zeros.pooler_output)


# Attention


def test_attention_equals_the_formula_written_out_per_head_and_query():
    attention = BertSelfAttention(SMALL).double().eval()
    B, L, H, A = 2, 5, 24, 3
    hidden = torch.randn(B, L, H, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    q, k, v = attention.query(hidden), attention.key(hidden), attention.value(hidden)
    D = H // A
    expected = torch.zeros(B, L, H, dtype=torch.float64)
    for b in range(B):
        keys = [t for t in range(L) if mask[b, t]]
        for a in range(A):
            part = slice(a * D, (a + 1) * D)
            for t in range(L):
                weights = [torch.exp(q[b, t, part] @ k[b, s, part] / D**0.5) for s in keys]
                total = sum(weights)
                expected[b, t, part] = sum(
                    w / total * v[b, s, part] for w, s in zip(weights, keys, strict=True)
                )
    torch.testing.assert_close(attention(hidden, mask), expected, rtol=1e-12, atol=1e-12)


def test_scores_are_divided_by_the_root_of_the_head_size():
    query = torch.ones(1, 1, 2, 16)
    assert torch.equal(attention_scores(query, query), torch.full((1, 1, 2, 2), 4.0))


def test_padding_keys_get_probability_zero_and_the_rest_sums_to_one():
    scores = torch.randn(1, 2, 4, 4) * 50
    probabilities = mask_scores(scores, torch.tensor([[1, 1, 1, 0]])).softmax(dim=-1)
    assert torch.equal(probabilities[..., 3], torch.zeros(1, 2, 4))
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(1, 2, 4))


def test_split_heads_keeps_each_tokens_pieces_together():
    x = torch.arange(2 * 3 * 4).view(2, 3, 4)
    heads = split_heads(x, 2)
    assert heads.shape == (2, 2, 3, 2)
    assert torch.equal(heads[1, 1, 2], x[1, 2, 2:])
    assert torch.equal(merge_heads(heads), x)


def test_a_sentence_of_padding_only_gives_finite_outputs_and_gradients():
    model = random_model(SMALL)
    ids, mask, _ = ragged_batch(SMALL, lengths=(5, 0))
    output = model(ids, mask)
    output.pooler_output.sum().backward()
    assert output.last_hidden_state.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_sentences_vector_does_not_depend_on_its_padding():
    model = random_model(SMALL).double().eval()
    ids, mask, segments = ragged_batch(SMALL)
    batch = model(ids, mask, segments).pooler_output
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        alone = model(*(x[row : row + 1, :length] for x in (ids, mask, segments)))
        torch.testing.assert_close(alone.pooler_output[0], batch[row], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_the_mask_may_have_any_type(dtype):
    model = random_model(SMALL).eval()
    ids, mask, _ = ragged_batch(SMALL)
    assert torch.equal(model(ids, mask.to(dtype))[1], model(ids, mask)[1])


# Dropout, in train mode under a fixed seed


def test_attention_dropout_acts_on_the_probabilities():
    attention = BertSelfAttention(dataclasses.replace(SMALL, attention_probs_dropout_prob=0.5))
    hidden, mask = torch.randn(2, 5, 24), torch.ones(2, 5)
    heads = (split_heads(layer(hidden), 3) for layer in (attention.query, attention.key))
    probabilities = attention_scores(*heads).softmax(dim=-1)
    value = split_heads(attention.value(hidden), 3)
    torch.manual_seed(3)
    expected = merge_heads(F.dropout(probabilities, 0.5) @ value)
    torch.manual_seed(3)
    torch.testing.assert_close(attention(hidden, mask), expected)


def test_add_norm_drops_the_dense_output_and_spares_the_residual():
    add_norm = AddNorm(40, dataclasses.replace(SMALL, hidden_dropout_prob=0.5))
    x, residual = torch.randn(2, 5, 40), torch.randn(2, 5, 24)
    torch.manual_seed(3)
    expected = F.layer_norm(residual + F.dropout(add_norm.dense(x), 0.5), (24,), eps=1e-12)
    torch.manual_seed(3)
    torch.testing.assert_close(add_norm(x, residual), expected)


def test_embedding_dropout_acts_after_the_layer_norm():
    embeddings = BertEmbeddings(dataclasses.replace(SMALL, hidden_dropout_prob=0.5))
    ids = torch.randint(1, 60, (2, 5))
    clean = embeddings.eval()(ids)
    dropped = embeddings.train()(ids)
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * clean[kept])


def test_dropout_acts_in_train_mode_and_never_in_eval_mode():
    model = random_model(SMALL)
    ids, mask, _ = ragged_batch(SMALL)
    assert not torch.equal(model.train()(ids, mask)[1], model(ids, mask)[1])
    assert torch.equal(model.eval()(ids, mask)[1], model(ids, mask)[1])


# Embeddings and layers


def test_embeddings_add_word_position_and_segment_then_normalise():
    embeddings = BertEmbeddings(SMALL).eval()
    ids, segments = torch.tensor([[5, 9, 5]]), torch.tensor([[0, 1, 1]])
    total = (
        embeddings.word_embeddings.weight[[5, 9, 5]]
        + embeddings.position_embeddings.weight[:3]
        + embeddings.token_type_embeddings.weight[[0, 1, 1]]
    )
    expected = F.layer_norm(total, (24,), eps=1e-12)
    torch.testing.assert_close(embeddings(ids, segments)[0], expected)


def test_segments_change_the_sentence_vector():
    model = random_model(SMALL).eval()
    ids, mask, segments = ragged_batch(SMALL)
    moved = (model(ids, mask, segments)[1] - model(ids, mask)[1]).abs().amax(dim=1)
    assert (moved[[0, 1, 3]] > 1e-4).all()  # row 2 has one token, of the first segment


def test_embed_then_run_layers_is_forward_and_adds_nothing_twice():
    model = random_model(SMALL).eval()
    ids, mask, segments = ragged_batch(SMALL)
    whole = model(ids, mask, segments)
    halves = model.run_layers(model.embed(ids, segments), mask)
    assert torch.equal(whole.last_hidden_state, halves.last_hidden_state)
    assert torch.equal(whole.pooler_output, halves.pooler_output)


def test_layer_norm_epsilon_stands_inside_the_root_and_is_1e_12():
    add_norm = AddNorm(24, SMALL).double().eval()
    torch.nn.init.zeros_(add_norm.dense.weight)
    torch.nn.init.zeros_(add_norm.dense.bias)
    residual = 1e-6 * torch.randn(1, 1, 24, dtype=torch.float64)  # variance as small as epsilon
    centred = residual - residual.mean()
    expected = centred / torch.sqrt(centred.square().mean() + 1e-12)
    torch.testing.assert_close(add_norm(torch.randn(1, 1, 24).double(), residual), expected)


def test_a_layer_uses_the_exact_gelu():
    layer = BertLayer(SMALL)
    x = torch.linspace(-4, 4, 24).view(1, 1, 24)
    z = layer.intermediate.dense(x)
    expected = z * 0.5 * (1 + torch.erf(z / 2**0.5))
    torch.testing.assert_close(layer.intermediate(x), expected)


def test_the_pooler_reads_the_first_token_only():
    model = random_model(SMALL).eval()
    hidden = torch.randn(2, 5, 24)
    changed = hidden.clone()
    changed[:, 1:] = 0
    assert torch.equal(model.pooler(hidden), model.pooler(changed))


# Initialisation


def test_weights_start_normal_biases_zero_and_the_padding_row_zero():
    torch.manual_seed(0)
    state = BertModel(SIZES["minilm width"]).state_dict()
    for name, tensor in state.items():
        if name.endswith("LayerNorm.weight"):
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        else:
            assert abs(tensor.std().item() - 0.02) < 0.002, name
    assert not state["embeddings.word_embeddings.weight"][0].any()


def test_the_padding_row_receives_no_gradient():
    model = random_model(SMALL)
    ids, mask, _ = ragged_batch(SMALL)
    model(ids, mask).last_hidden_state.square().sum().backward()
    assert not model.embeddings.word_embeddings.weight.grad[0].any()


# Faults


def test_too_long_a_sentence_names_length_and_limit():
    with pytest.raises(EncoderError, match="17 tokens.*16 positions"):
        BertModel(SMALL)(torch.ones(1, 17, dtype=torch.long), torch.ones(1, 17))


@pytest.mark.parametrize("shape", [(2, 1), (1, 5), (5,), (2, 1, 5)])
def test_a_mask_that_would_only_broadcast_is_refused(shape):
    with pytest.raises(ValueError, match="attention_mask"):
        BertModel(SMALL)(torch.ones(2, 5, dtype=torch.long), torch.ones(shape))


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 5},
        {"hidden_act": "relu"},
        {"hidden_size": 0},
        {"hidden_size": "24"},
        {"num_hidden_layers": 2.0},
        {"hidden_dropout_prob": 1.0},
        {"layer_norm_eps": "tiny"},
        {"layer_norm_eps": 0.0},
        {"attention_probs_dropout_prob": -0.1},
        {"pad_token_id": 60},
        {"pad_token_id": None},
    ],
    ids=str,
)
def test_an_impossible_configuration_is_refused_by_name(change):
    with pytest.raises(EncoderError, match=next(iter(change))):
        dataclasses.replace(SMALL, **change)


# config.json


def test_a_config_survives_the_file(tmp_path):
    write_config(SMALL, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == SMALL
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_public_config_is_read_and_unrelated_keys_are_ignored(tmp_path):
    transformers.BertConfig(**dataclasses.asdict(SMALL)).save_pretrained(tmp_path)
    assert "model_type" in json.loads((tmp_path / "config.json").read_text())
    assert read_config(tmp_path / "config.json") == SMALL


@pytest.mark.parametrize(
    "text", [None, "not json", "[1]", "3", '{"hidden_size": 24}', "\xff"], ids=str
)
def test_a_file_that_is_no_bert_config_is_refused_by_path(tmp_path, text):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(EncoderError, match="config.json"):
        read_config(path)


def test_an_impossible_value_in_a_file_is_refused_by_path_and_name(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**dataclasses.asdict(SMALL), "hidden_dropout_prob": "a lot"}))
    with pytest.raises(EncoderError, match="config.json"):
        read_config(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "roberta"),
        ("model_type", "electra"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("hidden_act", "gelu_new"),
        ("hidden_act", "relu"),
    ],
)
def test_another_architecture_is_refused_by_name_with_a_remedy(tmp_path, name, value):
    config = transformers.BertConfig(**dataclasses.asdict(SMALL)).to_dict() | {name: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=f"{name} is {value!r}; .* an encoder of your own"):
        read_config(tmp_path / "config.json")


def test_another_architecture_is_named_before_the_sizes_that_it_lacks(tmp_path):
    transformers.DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="model_type is 'distilbert'"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize("change", [{"use_cache": False}, {"position_embedding_type": "absolute"}])
def test_settings_that_do_not_shape_the_encoder_are_ignored(tmp_path, change):
    values = dataclasses.asdict(SMALL) | {"is_decoder": False, "model_type": None} | change
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8-sig")
    assert read_config(tmp_path / "config.json") == SMALL
