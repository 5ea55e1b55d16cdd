"""The right answers of chapters 00 to 05 are the library's code, or equal to it or to an
independent source."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from scipy import stats
from sklearn import metrics
from small import small_encoder, small_splits
from tokenizers.models import WordPiece
from torch.testing import assert_close
from transformers.models.bert import modeling_bert

from mtl_lib import bert, evaluation
from mtl_lib.data import Batch, BatchStream
from mtl_lib.gradients import TaskGradients
from mtl_lib.handbook.checks import EXERCISES
from mtl_lib.handbook.checks.chapter_02 import CONFIG, ENTRIES, HIDDEN, IDS, MASK, SMALL, TYPES
from mtl_lib.handbook.checks.chapter_05 import TinyMultitask
from mtl_lib.handbook.checks.framework import draw
from mtl_lib.model import Head, HeadConfig, MultitaskModel
from mtl_lib.optim import AdamW
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY
from mtl_lib.trainer import Trainer
from mtl_lib.weighting import sum_weights


def reference(name: str):
    return EXERCISES[name].reference


def test_every_reference_is_compared_here():
    here = Path(__file__).read_text()
    names = [exercise.name for exercise in EXERCISES.values() if exercise.chapter <= 5]
    assert [name for name in names if f'"{name}"' not in here] == []


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("scores", bert.attention_scores),
        ("mask_scores", bert.mask_scores),
        ("split_heads", bert.split_heads),
        ("predict_in_order", evaluation.predict),
    ],
)
def test_the_reference_is_the_librarys_function(name, function):
    assert reference(name) is function


def test_share_right_is_scikit_learns_accuracy():
    predicted, labels = np.random.default_rng(0).integers(0, 5, (2, 200))
    found = reference("share_right")(torch.tensor(predicted), torch.tensor(labels))
    assert found == pytest.approx(metrics.accuracy_score(labels, predicted))


def test_attend_is_torchs_attention_in_evaluation():
    q, k, v = (draw(3, 2, 5, 4, seed=seed) for seed in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]])
    expected = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :].bool())
    assert_close(reference("attend")(q, k, v, mask, lambda weights: weights), expected)


def test_attend_is_the_librarys_attention_in_training():
    config = bert.BertConfig(hidden_size=8, num_attention_heads=2, attention_probs_dropout_prob=0.3)
    layer = bert.BertSelfAttention(config).train()
    hidden, mask = draw(3, 5, 8, seed=1), torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [0] * 5])
    q, k, v = (bert.split_heads(f(hidden), 2) for f in (layer.query, layer.key, layer.value))
    torch.manual_seed(2)
    expected = layer(hidden, mask)
    torch.manual_seed(2)
    assert_close(bert.merge_heads(reference("attend")(q, k, v, mask, layer.dropout)), expected)


def test_layer_norm_is_its_formula_in_float64():
    x, weight, bias = (
        draw(*shape, seed=1, dtype=torch.float64) for shape in ((2, 3, 8), (8,), (8,))
    )
    for eps in (1e-12, 0.5):
        mean = x.sum(dim=-1, keepdim=True) / 8
        variance = ((x - mean) ** 2).sum(dim=-1, keepdim=True) / 8
        expected = (x - mean) / (variance + eps).sqrt() * weight + bias
        assert_close(reference("layer_norm")(x, weight, bias, eps), expected)


def test_wordpiece_is_the_tokenizers_packages():
    model = WordPiece({piece: n for n, piece in enumerate(sorted(ENTRIES))}, unk_token="[UNK]")
    words = ("film", "unwanted", "unwantable", "playing", "abc", "aba", "unabc", "wantz", "zebra")
    for word in words:
        expected = [token.value for token in model.tokenize(word)]
        assert reference("wordpiece")(word, set(ENTRIES)) == expected


def test_the_module_layer_norm_is_its_function():
    module, x = reference("LayerNorm")(8), draw(2, 3, 8, seed=1)
    assert module.eps == 1e-12
    assert_close(module(x), reference("layer_norm")(x, torch.ones(8), torch.zeros(8)))


# The library's modules, and the reference library's that each of them equals.
MODULES = [
    ("Embeddings", bert.BertEmbeddings, modeling_bert.BertEmbeddings),
    ("AddNorm", bert.AddNorm, modeling_bert.BertSelfOutput),
    ("Attention", bert.BertAttention, modeling_bert.BertAttention),
    ("FeedForward", bert.BertIntermediate, modeling_bert.BertIntermediate),
    ("Layer", bert.BertLayer, modeling_bert.BertLayer),
    ("Encoder", bert.BertEncoder, modeling_bert.BertEncoder),
    ("Pooler", bert.BertPooler, modeling_bert.BertPooler),
    ("Bert", bert.BertModel, transformers.BertModel),
]


@pytest.mark.parametrize(("name", "own", "theirs"), MODULES)
def test_a_module_is_the_librarys_with_the_reference_librarys_names(name, own, theirs):
    assert reference(name) is own
    sizes = (SMALL.hidden_size, SMALL) if name == "AddNorm" else (SMALL,)
    expected = dict(theirs(transformers.BertConfig(**vars(SMALL))).named_parameters())
    found = dict(own(*sizes).named_parameters())
    assert {n: p.shape for n, p in found.items()} == {n: p.shape for n, p in expected.items()}


def test_the_whole_of_it_is_the_reference_librarys_stage_by_stage():
    theirs = transformers.BertModel(transformers.BertConfig(**vars(SMALL))).eval()
    ours = reference("Bert")(SMALL).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs(IDS, MASK, TYPES, output_hidden_states=True)
        stages = [ours.embeddings(IDS, TYPES)]
        for layer in ours.encoder.layer:
            stages.append(layer(stages[-1], MASK))
        for stage, other in zip(stages, expected.hidden_states, strict=True):
            assert_close(stage[MASK.bool()], other[MASK.bool()])
        assert_close(ours.pooler(stages[-1]), expected.pooler_output)


@pytest.mark.parametrize("heads", [2, 4])
def test_run_layer_is_the_layer_in_evaluation(heads):
    layer = bert.BertLayer(replace(SMALL, num_attention_heads=heads)).eval()
    assert_close(reference("run_layer")(layer, HIDDEN, MASK, heads), layer(HIDDEN, MASK))


@pytest.mark.parametrize("training", [True, False])
def test_add_norm_is_the_reference_librarys_output_layer(training):
    config = transformers.BertConfig(hidden_size=6, num_attention_heads=2, hidden_dropout_prob=0.3)
    module = modeling_bert.BertSelfOutput(config).train(training)
    x, residual = draw(2, 3, 6, seed=1), draw(2, 3, 6, seed=2)
    torch.manual_seed(3)
    expected = module(x, residual)
    torch.manual_seed(3)
    parts = module.dense, module.dropout, module.LayerNorm
    assert_close(reference("add_norm")(x, residual, *parts), expected)


def test_load_public_makes_the_model_equal_to_the_checkpoints():
    config = transformers.BertConfig(**vars(CONFIG))
    theirs, ours = transformers.BertModel(config).eval(), bert.BertModel(CONFIG).eval()
    reference("load_public")(ours, theirs.state_dict())
    ids, mask = torch.tensor([[2, 5, 3, 0]]), torch.tensor([[1, 1, 1, 0]])
    with torch.no_grad():
        assert_close(ours(ids, mask).pooler_output, theirs(ids, mask).pooler_output)


def test_bias_correct_gives_the_weighted_mean_of_the_gradients():
    gradients = draw(7, seed=1, dtype=torch.float64)
    for beta, t in product((0.0, 0.9, 0.999), range(1, 8)):
        m = 0.0
        for g in gradients[:t]:
            m = beta * m + (1 - beta) * g
        weights = beta ** torch.arange(t - 1, -1, -1, dtype=torch.float64)
        expected = (weights * gradients[:t]).sum() / weights.sum()
        assert_close(reference("bias_correct")(m, beta, t), expected)


def test_adamw_step_is_torchs_adamw():
    shapes, options = [(3, 2), (5,)], dict(lr=0.03, betas=(0.8, 0.95), eps=1e-5)
    ours = [draw(*shape, seed=n, dtype=torch.float64) for n, shape in enumerate(shapes)]
    theirs = [value.clone() for value in ours]
    optimizer = torch.optim.AdamW(theirs, weight_decay=0.2, **options)
    states = [{}, {}]
    for step in range(30):
        for n, shape in enumerate(shapes):
            g = 10.0**-n * draw(*shape, seed=10 * step + n, dtype=torch.float64)
            g = None if n == 1 and step % 3 == 1 else g
            theirs[n].grad = g
            ours[n] = reference("adamw_step")(ours[n], g, states[n], decay=0.2, **options)
        optimizer.step()
    assert_close(ours, theirs)


def test_decay_shrinkage_is_what_torchs_adamw_leaves_of_a_weight():
    weight = torch.ones(1, dtype=torch.float64)
    weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.3)
    for step in range(1, 21):
        optimizer.step()
        assert reference("decay_shrinkage")(0.1, 0.3, step) == pytest.approx(weight.item())


def test_train_epoch_is_the_librarys_trainer_with_one_task():
    split, models = small_splits()["sentiment"], []
    for _ in range(2):
        encoder = small_encoder()
        torch.manual_seed(0)
        models.append(MultitaskModel(encoder, {"sentiment": HeadConfig((0.3,))}))
    ours, theirs = models
    torch.manual_seed(1)  # dropout
    stream = BatchStream(split, 8, seed=0)
    losses = reference("train_epoch")(
        ours, (next(stream) for _ in range(4)), AdamW(ours.parameters())
    )
    torch.manual_seed(1)
    trainer = Trainer(
        theirs,
        {"sentiment": split},
        optimizer=AdamW(theirs.parameters()),
        weighting=sum_weights,
        batch_size=8,
        seed=0,
    )
    expected = [trainer.step()[0]["sentiment"] for _ in range(4)]
    assert losses == pytest.approx(expected)
    for own, library in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(own, library)


def test_balanced_accuracy_is_the_mean_of_scikit_learns_recalls():
    random = np.random.default_rng(0)
    for _ in range(20):
        labels, predicted = random.integers(0, random.integers(2, 6), 12), random.integers(0, 5, 12)
        classes = np.unique(labels)
        recalls = metrics.recall_score(labels, predicted, labels=classes, average=None)
        assert reference("balanced_accuracy")(labels, predicted) == pytest.approx(recalls.mean())


def test_paired_bootstrap_is_scipys_percentile_bootstrap():
    random = np.random.default_rng(0)
    a, b = random.random((2, 400)) < np.array([[0.5], [0.6]])
    found = reference("paired_bootstrap")(a, b, draws=10_000)
    expected = stats.bootstrap(
        (b.astype(float) - a,), np.mean, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=0.006)  # two examples of 400


@pytest.mark.parametrize("scale", [1, 300])
def test_multitask_loss_is_its_formula_in_float64(scale):
    labels = {
        SENTIMENT: torch.tensor([0, 4, 2, 1]),
        PARAPHRASE: torch.tensor([1.0, 0.0, 0.0, 1.0]),
        SIMILARITY: torch.tensor([4.6, 0.0, 5.0, 2.2]),
    }
    for task, y in labels.items():
        z = scale * draw(4, task.outputs, seed=1, dtype=torch.float64)
        ids = torch.ones(4 * task.sentences, 2).long()
        found = reference("multitask_loss")(z, Batch(task, list("abcd"), ids, ids, y))
        if task is SENTIMENT:
            expected = (z.logsumexp(dim=1) - z[range(4), y]).mean()
        elif task is PARAPHRASE:  # -log sigmoid(z) or -log sigmoid(-z)
            expected = torch.logaddexp(torch.zeros(4), (1 - 2 * y) * z[:, 0]).mean()
        else:
            expected = (z[:, 0] - y).square().mean()
        assert_close(found, expected, check_dtype=False)


def test_task_gradients_are_what_the_library_collects():
    model = TinyMultitask(seed=1)
    x = draw(5, 4, seed=2)
    names = list(model.heads)
    rows = reference("task_gradients")(model, [model.loss(name, x) for name in names]).double()
    collected = TaskGradients(model.shared_parameters())
    for name in names:
        model.loss(name, x).backward()
        collected.collect()
    assert_close(collected.gram(), rows @ rows.T)
    collected.combine(torch.tensor([1.0, 10.0, 100.0]))
    found = torch.cat([p.grad.flatten() for p in model.shared_parameters()])
    assert_close(found, torch.tensor([1.0, 10.0, 100.0]) @ rows.float())


def test_is_additive_agrees_with_the_librarys_heads_and_with_every_four():
    vectors = draw(6, 4, seed=1)
    for dropout, expected in (((0.3,), True), ((0.3, 0.3), False)):
        torch.manual_seed(0)
        head = Head(PARAPHRASE, 4, HeadConfig(dropout)).eval()

        def score(u, v, head=head):
            return head(torch.cat([u, v], dim=1)).squeeze(1)

        a, b, c, d = torch.cartesian_prod(*4 * [torch.arange(6)]).T
        with torch.no_grad():
            left = score(vectors[a], vectors[b]) + score(vectors[c], vectors[d])
            right = score(vectors[a], vectors[d]) + score(vectors[c], vectors[b])
        assert torch.allclose(left, right, atol=1e-4) == expected
        assert reference("is_additive")(score, vectors) == expected
