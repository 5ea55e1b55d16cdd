import pytest
import torch
from small import small_encoder, small_model, small_splits, small_tokenizer
from torch import nn

from mtl_lib.errors import ConfigError, EncoderError
from mtl_lib.model import Head, HeadConfig, MultitaskModel, load_model, pair_features
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY


def test_a_head_has_one_dropout_before_each_linear_layer():
    head = Head(SIMILARITY, 8, HeadConfig((0.5, 0.3)))
    assert [d.p for d in head.dropouts] == [0.5, 0.3]
    assert [tuple(w.shape) for w in head.matrices()] == [(8, 16), (1, 8)]


def test_the_activation_stands_between_the_layers():
    head = Head(SIMILARITY, 4, HeadConfig((0.0, 0.0), "leaky_relu")).eval()
    x = torch.randn(3, 8)
    first, last = head.linears
    torch.testing.assert_close(head(x), last(nn.functional.leaky_relu(first(x))))


def test_a_single_linear_layer_over_a_pair_is_additive():
    head = Head(SIMILARITY, 4, HeadConfig((0.0,))).double().eval()
    a, b, c, d = torch.randn(4, 1, 4, dtype=torch.float64)

    def score(u, v):
        return head(torch.cat([u, v], dim=1))

    torch.testing.assert_close(score(a, b) + score(c, d), score(a, d) + score(c, b))


def test_a_hidden_layer_over_a_pair_is_not_additive():
    torch.manual_seed(0)
    head = Head(SIMILARITY, 4, HeadConfig((0.0, 0.0))).double().eval()
    a, b, c, d = torch.randn(4, 1, 4, dtype=torch.float64)
    scores = [head(torch.cat(pair, dim=1)) for pair in [(a, b), (c, d), (a, d), (c, b)]]
    assert abs(scores[0] + scores[1] - scores[2] - scores[3]).item() > 1e-3


@pytest.mark.parametrize("rates", [(), (1.0,), (-0.1,)])
def test_impossible_dropout_is_refused(rates):
    with pytest.raises(ConfigError, match="one rate in"):
        HeadConfig(rates)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match="tanh"):
        HeadConfig((0.3,), "tanh")


def test_a_pair_is_scored_from_the_pooled_vectors_of_its_sentences():
    model, split = small_model().eval(), small_splits()["similarity"]
    batch = split.batch([0, 1, 2])
    singles = []
    for i in range(3):
        pair = split.batch([i])
        u, v = (
            model.encoder(pair.input_ids[k : k + 1], pair.attention_mask[k : k + 1]).pooler_output
            for k in range(2)
        )
        singles.append(model.heads["similarity"](torch.cat([u, v], dim=1)))
    torch.testing.assert_close(model(batch), torch.cat(singles), rtol=1e-4, atol=1e-5)


def test_shared_parameters_are_the_encoders_and_no_heads():
    model = small_model()
    shared = {id(p) for p in model.shared_parameters()}
    assert shared == {id(p) for p in model.encoder.parameters()}


def test_a_task_without_a_head_is_named():
    model = MultitaskModel(small_encoder(), {"sentiment": HeadConfig()})
    with pytest.raises(ConfigError, match="similarity"):
        model(small_splits()["similarity"].batch([0]))


def test_a_frozen_encoder_gives_the_same_vectors_in_train_mode():
    model = small_model(dropout=0.5)
    model.freeze()
    model.train()
    batch = small_splits()["sentiment"].batch([0, 1])
    vectors = [model.encoder(batch.input_ids, batch.attention_mask).pooler_output for _ in "ab"]
    assert torch.equal(*vectors)
    assert model.shared_parameters() == []
    assert model.heads["sentiment"].training


def test_a_saved_model_predicts_the_same(tmp_path):
    model, split = small_model().eval(), small_splits()["sentiment"]
    model.save(tmp_path, small_tokenizer())
    loaded, tokenizer = load_model(tmp_path)
    batch = split.batch([0, 1, 2])
    assert torch.equal(model(batch), loaded(batch))
    assert tokenizer.to_str() == small_tokenizer().to_str()


def test_a_model_folder_without_a_file_is_named(tmp_path):
    small_model().save(tmp_path, small_tokenizer())
    (tmp_path / "heads.json").unlink()
    with pytest.raises(EncoderError, match=r"no heads\.json"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_the_heads_are_refused(tmp_path):
    small_model().save(tmp_path, small_tokenizer())
    (tmp_path / "heads.json").write_text('{"similarity": {"dropout": [0.3, 0.3]}}')
    with pytest.raises(EncoderError, match="does not fit"):
        load_model(tmp_path)


def test_the_default_head_is_dropout_and_one_linear_layer():
    assert Head(SENTIMENT, 4).config == HeadConfig((0.3,), "relu")


def test_comparing_features_are_u_v_their_distance_and_their_product():
    u, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    features = pair_features(torch.cat([u, v], dim=1), "compare")
    assert features.tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]


def test_a_comparing_head_is_not_additive_and_has_four_blocks_of_weights():
    head = Head(SIMILARITY, 4, HeadConfig((0.0,), features="compare")).double().eval()
    assert head.matrices()[0].shape == (1, 16)
    a, b, c, d = torch.randn(4, 1, 4, dtype=torch.float64)
    scores = [head(torch.cat(pair, dim=1)) for pair in [(a, b), (c, d), (a, d), (c, b)]]
    assert abs(scores[0] + scores[1] - scores[2] - scores[3]).item() > 1e-3


def test_a_cosine_head_starts_as_five_times_the_cosine():
    head = Head(SIMILARITY, 4, HeadConfig((0.0,), features="cosine")).train()
    u, v = torch.randn(2, 3, 4)
    expected = 5 * nn.functional.cosine_similarity(u, v)[:, None]
    torch.testing.assert_close(head(torch.cat([u, v], dim=1)), expected)


@pytest.mark.parametrize(
    ("task", "features"),
    [(SENTIMENT, "compare"), (SENTIMENT, "cosine"), (PARAPHRASE, "cosine")],
)
def test_features_that_do_not_fit_the_task_are_refused(task, features):
    with pytest.raises(ConfigError, match=task.name):
        Head(task, 4, HeadConfig((0.0,), features=features))


def test_unknown_features_and_dropout_on_a_cosine_are_refused():
    with pytest.raises(ConfigError, match="difference"):
        HeadConfig(features="difference")
    with pytest.raises(ConfigError, match="one number"):
        HeadConfig((0.3,), features="cosine")


def test_the_papers_features_leave_no_trace_in_a_stored_configuration():
    assert HeadConfig().as_dict() == {"dropout": (0.3,), "activation": "relu"}
    assert HeadConfig(features="compare").as_dict()["features"] == "compare"


def test_a_comparing_model_is_saved_and_loaded(tmp_path):
    heads = {"similarity": HeadConfig((0.2,), features="compare")}
    model = MultitaskModel(small_encoder(), heads).eval()
    model.save(tmp_path, small_tokenizer())
    loaded, _ = load_model(tmp_path)
    batch = small_splits()["similarity"].batch([0, 1, 2])
    assert torch.equal(model(batch), loaded(batch))


def test_bfloat16_products_stay_close_and_leave_weights_and_vectors_in_float32():
    model = small_model().eval()
    batch = small_splits()["paraphrase"].batch([0, 1, 2])
    (exact,) = model.vectors([batch])
    model.bfloat16 = True
    (rounded,) = model.vectors([batch])
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    model(batch).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
