import json

import pytest
import torch
from small import small_encoder, small_model, small_splits, small_tokenizer
from torch import nn

from mtl_lib import model as model_module
from mtl_lib.bert import SENTENCE_VECTORS
from mtl_lib.errors import ConfigError, EncoderError
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.model import Head, HeadConfig, MultitaskModel, pair_features
from mtl_lib.study.build import start_at_mean
from mtl_lib.study.submission import load_model
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY
from mtl_lib.trainer import Trainer


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


def test_a_dropout_that_is_no_tuple_is_named_as_it_was_given():
    with pytest.raises(ConfigError, match="head dropout 0.3: give one rate in"):
        HeadConfig(0.3)


def test_two_tasks_of_one_name_are_refused():
    heads = {SIMILARITY: HeadConfig(), "similarity": HeadConfig()}
    with pytest.raises(ConfigError, match=r"two tasks have one name: \['similarity', 'similarity"):
        MultitaskModel(small_encoder(), heads)


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
    assert not any(p.requires_grad for p in model.shared_parameters())
    assert model.heads["sentiment"].training


def test_an_encoder_that_is_trained_again_in_part_has_its_dropout_again():
    model = small_model(dropout=0.5)
    model.freeze()
    assert model.frozen and not model.train().encoder.training
    model.encoder.encoder.layer[-1].requires_grad_(True)
    assert not model.frozen and model.train().encoder.training


def test_heads_are_made_in_the_type_and_place_of_their_encoder():
    batch = small_splits()["sentiment"].batch([0, 1])
    model = MultitaskModel(small_encoder(dtype=torch.float64), {SENTIMENT: HeadConfig()})
    assert model(batch).dtype == torch.float64
    elsewhere = MultitaskModel(small_encoder().to("meta"), {SENTIMENT: HeadConfig()})
    assert {p.device.type for p in elsewhere.heads.parameters()} == {"meta"}


def test_an_encoder_compiled_by_a_wrapper_is_refused_by_name():
    with pytest.raises(ConfigError, match="OptimizedModule is no encoder: it needs encode"):
        MultitaskModel(torch.compile(small_encoder()), {SENTIMENT: HeadConfig()})


class Unwritable:
    """A tokenizer that no file takes."""

    def to_str(self, pretty):
        raise OSError("no space left on device")


def full(path, text):
    raise OSError("no space left on device")


@pytest.mark.parametrize("fails", ["the tokenizer", "a text", "the weights"])
def test_a_save_that_fails_leaves_the_model_that_was_there(fails, tmp_path, monkeypatch):
    before = small_model().eval()
    before.save(tmp_path, small_tokenizer())
    names = sorted(path.name for path in tmp_path.iterdir())
    if fails != "the tokenizer":
        name = "write_text" if fails == "a text" else "save_weights"
        monkeypatch.setattr(model_module, name, full)
    tokenizer = Unwritable() if fails == "the tokenizer" else small_tokenizer()
    with pytest.raises(OSError, match="no space"):
        model_of("mean").save(tmp_path, tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    loaded, _ = load_model(tmp_path)
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    assert torch.equal(before(batch), loaded(batch))


def test_a_model_of_fewer_layers_than_it_was_made_with_is_loaded_again(tmp_path):
    model = small_model().eval()
    model.encoder.encoder.layer = model.encoder.encoder.layer[:1]
    model.save(tmp_path, small_tokenizer())
    loaded, _ = load_model(tmp_path)
    batch = small_splits()["sentiment"].batch([0, 1, 2])
    assert torch.equal(model(batch), loaded(batch))


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
    exact = model.vectors(batch)
    model.low_precision = True
    rounded = model.vectors(batch)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    model(batch).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("fast", [False, True])
def test_an_autocast_around_the_model_stays_on_in_its_encoder(fast):
    model = small_model().eval()
    batch, model.fast = small_splits()["paraphrase"].batch([0, 1, 2]), fast
    exact = model.vectors(batch)
    with torch.autocast("cpu", torch.bfloat16):
        around = model.vectors(batch)
    model.low_precision = True
    assert torch.equal(around, model.vectors(batch))
    assert not torch.equal(around, exact)


def model_of(kind, dropout=0.1) -> MultitaskModel:
    heads = {task.name: HeadConfig((dropout,)) for task in (SENTIMENT, PARAPHRASE, SIMILARITY)}
    return MultitaskModel(small_encoder(dropout=dropout), heads, kind)


def vectors_by_hand(encoder, batch, kind):
    """The sentence vectors `[n*B, H]` from the padded encoder, sentence by sentence."""
    rows = []
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        length = int(mask.sum())
        output = encoder(ids[None, :length], mask[None, :length])
        tokens = output.last_hidden_state[0]
        row = {"pooler": output.pooler_output[0], "cls": tokens[0], "mean": tokens.mean(0)}
        rows.append(row | {"cls+mean": torch.cat([row["cls"], row["mean"]])})
    return torch.stack([row[kind] for row in rows])


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
@pytest.mark.parametrize("training", [True, False])
def test_the_heads_see_the_sentence_vector_of_the_models_kind(kind, training):
    model = model_of(kind, dropout=0.0).train(training)
    batch = small_splits()["paraphrase"].batch([0, 1, 2])
    expected = vectors_by_hand(model.encoder, batch, kind)
    torch.testing.assert_close(model.vectors(batch), expected, rtol=1e-4, atol=1e-5)
    logits = model.heads["paraphrase"](torch.cat(expected.chunk(2), dim=1))
    torch.testing.assert_close(model(batch), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_a_saved_model_keeps_its_sentence_vector(kind, tmp_path):
    model = model_of(kind).eval()
    model.save(tmp_path, small_tokenizer())
    loaded, _ = load_model(tmp_path)
    assert loaded.sentence_vector == kind
    batch = small_splits()["similarity"].batch([0, 1, 2])
    assert torch.equal(model(batch), loaded(batch))


@pytest.mark.parametrize("kind", [None, "mean"])
def test_a_model_saved_with_the_heads_alone_has_the_built_in_tasks(kind, tmp_path):
    model = model_of(kind or "pooler").eval()
    model.save(tmp_path, small_tokenizer())
    first = json.loads((tmp_path / "heads.json").read_text(encoding="utf-8"))["heads"]
    first |= {"sentence_vector": kind} if kind else {}  # younger than the format
    (tmp_path / "heads.json").write_text(json.dumps(first), encoding="utf-8")
    loaded, _ = load_model(tmp_path)
    assert loaded.sentence_vector == model.sentence_vector
    assert loaded.tasks == model.tasks
    for split in small_splits().values():
        assert torch.equal(model(split.batch([0, 1])), loaded(split.batch([0, 1])))


def test_an_unknown_sentence_vector_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="'max': choose from"):
        model_of("max")
    small_model().save(tmp_path, small_tokenizer())
    heads = json.loads((tmp_path / "heads.json").read_text(encoding="utf-8")) | {
        "sentence_vector": "max"
    }
    (tmp_path / "heads.json").write_text(json.dumps(heads))
    with pytest.raises(EncoderError, match="not a model's heads: .*'max'"):
        load_model(tmp_path)


@pytest.mark.parametrize("weighting", ["sum", "pcgrad"])
@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_the_pooler_moves_only_where_its_output_is_used(kind, weighting):
    model = model_of(kind)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(
        model,
        small_splits(),
        optimizer=FusedAdamW(model.parameters(), lr=1e-2, weight_decay=0.5),
        weighting=WEIGHTINGS[weighting](3),
        batch_size=4,
        seed=0,
    )
    for _ in range(3):
        trainer.step()
    gradients = {name for name, p in model.named_parameters() if p.grad is not None}
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    pooler = {name for name in before if "pooler" in name}
    assert len(pooler) == 2
    assert gradients == moved == before.keys() - (set() if kind == "pooler" else pooler)


@pytest.mark.parametrize("kind", SENTENCE_VECTORS)
def test_the_shared_parameters_are_those_that_the_heads_depend_on(kind):
    model = model_of(kind)
    batches = [split.batch([0, 1]) for split in small_splits().values()]
    sum(model(batch).sum() for batch in batches).backward()
    reached = {id(p) for p in model.encoder.parameters() if p.grad is not None}
    assert {id(p) for p in model.shared_parameters()} == reached


@pytest.mark.parametrize("config", [HeadConfig(), HeadConfig((0.3, 0.3)),
                                    HeadConfig(features="compare")])  # fmt: skip
def test_a_score_starts_at_the_mean_training_label(config):
    head, labels = Head(SIMILARITY, 8, config), torch.tensor([0.0, 5.0, 4.0, 4.5])
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    start_at_mean(head, labels)
    assert head.linears[-1].bias.item() == pytest.approx(3.375)
    moved = {name for name, p in head.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"linears.{len(config.dropout) - 1}.bias"}
    head.train()
    assert head(torch.zeros(1, 16)).item() == pytest.approx(3.375, abs=1.0)


@pytest.mark.parametrize(
    ("task", "config"),
    [
        (SENTIMENT, HeadConfig()),
        (PARAPHRASE, HeadConfig()),
        (SIMILARITY, HeadConfig((0.0,), features="cosine")),
    ],
    ids=["classes", "binary", "cosine"],
)
def test_classes_and_cosines_do_not_start_at_a_mean_label(task, config):
    head = Head(task, 8, config)
    before = [p.detach().clone() for p in head.parameters()]
    start_at_mean(head, torch.tensor([1, 1, 0]))
    assert all(torch.equal(p, old) for p, old in zip(head.parameters(), before, strict=True))
