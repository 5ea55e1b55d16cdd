"""The right answers of chapters 00 to 05 are the library's code, or equal to it or to an
independent source."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from scipy import stats
from sklearn import metrics
from small import small_data, small_encoder, small_model, small_splits
from tokenizers.models import WordPiece
from torch import nn
from torch.testing import assert_close
from transformers.models.bert import modeling_bert

from mtl_lib import bert
from mtl_lib.data import Batch, BatchStream
from mtl_lib.gradients import TaskGradients
from mtl_lib.handbook.checks import EXERCISES, chapter_02b
from mtl_lib.handbook.checks.chapter_02 import CONFIG, ENTRIES, HIDDEN, IDS, MASK, SMALL, TYPES
from mtl_lib.handbook.checks.chapter_05 import TinyMultitask
from mtl_lib.handbook.checks.framework import draw
from mtl_lib.model import Head, HeadConfig, MultitaskModel
from mtl_lib.optim import AdamW
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY, TASKS
from mtl_lib.trainer import Callback, Trainer
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


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_mended_attention_is_torchs_attention_of_every_word(heads):
    hidden, mask = draw(3, 5, 8, seed=1), torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]])
    matrices = [draw(8, 8, seed=seed) / 2 for seed in (2, 3, 4)]
    q, k, v = ((hidden @ W).view(3, 5, heads, -1).transpose(1, 2) for W in matrices)
    expected = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :].bool())
    expected = expected.transpose(1, 2).reshape(3, 5, 8)
    found = reference("mended_attention")(hidden, mask, *matrices, heads)
    assert_close(found[mask.bool()], expected[mask.bool()])


def right_choice(name: str) -> str:
    return reference("what_breaks")()[name]


def attention_layer(heads: int = 2) -> bert.BertSelfAttention:
    torch.manual_seed(0)
    config = bert.BertConfig(hidden_size=12, num_attention_heads=heads, initializer_range=0.5)
    return reference("SelfAttention")(config).eval()


def test_without_the_root_one_key_gets_nearly_all_and_hardly_any_gradient_passes():
    q, k = draw(1000, 1, 64, seed=1), draw(1000, 8, 64, seed=2)
    products = (q @ k.transpose(1, 2)).squeeze(1)  # [1000, 8]
    most, passes = [], []
    for scores in (products, products / 8):
        weights = scores.softmax(dim=1)
        most.append(weights.amax(dim=1).median().item())
        passes.append((weights * (1 - weights)).sum(dim=1).median().item())  # softmax' own slopes
    assert most[0] > 0.95 and most[1] < 0.5
    assert passes[0] < passes[1] / 5
    assert right_choice("no root") == "b"


def test_without_the_mask_a_short_sentence_depends_on_the_length_of_the_other():
    layer, words = attention_layer(), draw(1, 3, 12, seed=1)
    alone = layer(words, torch.ones(1, 3))
    longer = []
    for zeros in (1, 4):
        hidden = torch.cat([words, torch.zeros(1, zeros, 12)], dim=1)
        longer.append(layer(hidden, torch.ones(1, 3 + zeros))[:, :3])
        mask = torch.tensor([[1] * 3 + [0] * zeros])
        assert_close(layer(hidden, mask)[:, :3], alone)
    assert all(vectors.isfinite().all() for vectors in longer)
    assert not torch.allclose(longer[0], alone, atol=1e-2)
    assert not torch.allclose(longer[0], longer[1], atol=1e-2)
    assert right_choice("no mask") == "c"


def test_one_head_has_the_parameters_of_twelve_but_other_weights():
    twelve, one = attention_layer(12), attention_layer(1)
    one.load_state_dict(twelve.state_dict())  # as many parameters
    hidden, mask = draw(1, 5, 12, seed=1), torch.ones(1, 5)
    assert not torch.allclose(one(hidden, mask), twelve(hidden, mask), atol=1e-2)
    assert right_choice("one head") == "b"


def test_with_one_matrix_a_score_is_the_same_both_ways():
    hidden, W, other = draw(5, 12, seed=1), draw(12, 12, seed=2), draw(12, 12, seed=3)
    scores = reference("scores")(hidden @ W, hidden @ W)
    assert_close(scores, scores.T)
    assert (scores.softmax(dim=-1).diagonal() < 0.999).any()  # not every word looks at itself alone
    scores = reference("scores")(hidden @ W, hidden @ other)
    assert not torch.allclose(scores, scores.T, atol=1e-2)
    assert right_choice("one matrix") == "a"


def test_shuffled_words_keep_their_vectors():
    layer, hidden, mask = attention_layer(), draw(1, 5, 12, seed=1), torch.ones(1, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_close(layer(hidden[:, order], mask), layer(hidden, mask)[:, order])
    assert right_choice("shuffled") == "a"


def test_what_breaks_answers_these_five_questions():
    names = {"no root", "no mask", "one head", "one matrix", "shuffled"}
    assert set(reference("what_breaks")()) == names


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
    ("SelfAttention", bert.BertSelfAttention, modeling_bert.BertSelfAttention),
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


def test_mask_tokens_has_the_shares_of_the_paper():
    ids = torch.randint(5, 1000, (200, 1000), generator=torch.Generator().manual_seed(1))
    ids[:, ::10] = torch.arange(5).repeat(20)  # special ones
    special, generator = torch.arange(5), torch.Generator().manual_seed(2)
    inputs, labels = reference("mask_tokens")(ids, special, 4, 1000, generator)
    chosen, ordinary = labels != -100, ids >= 5
    assert not chosen[~ordinary].any()
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(inputs[~chosen], ids[~chosen])
    same, masks = inputs == ids, inputs == 4
    fates = [(chosen & fate).sum().item() for fate in (masks, ~masks & ~same, same)]
    counts = [*fates, (ordinary & ~chosen).sum().item()]
    expected = ordinary.sum().item() * np.array([0.12, 0.015, 0.015, 0.85])
    assert stats.chisquare(counts, expected).pvalue > 0.001
    words = inputs[chosen & ~masks & ~same]
    places = np.histogram(words, bins=10, range=(0, 1000))[0]
    assert stats.chisquare(places).pvalue > 0.001


def test_masked_word_loss_is_torchs_with_an_ignored_label():
    logits = draw(3, 5, 7, seed=1)
    labels = torch.tensor([[-100, 3, -100, 0, -100], [-100, -100, 6, -100, -100], [-100] * 5])
    expected = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100)
    assert_close(reference("masked_word_loss")(logits, labels), expected)
    nothing = reference("masked_word_loss")(logits, torch.full_like(labels, -100))
    assert nothing.item() == 0


def masked_language_models(dropout: float = 0.0):
    """The reference library's model, and a tokenizer, encoder and head with its numbers."""
    tokenizer = chapter_02b.TOKENIZER
    config = replace(
        chapter_02b.CONFIG,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
    )
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**vars(config)))
    with torch.no_grad():
        for n, (name, parameter) in enumerate(theirs.named_parameters()):
            scale = 1.0 if parameter.dim() > 1 else 0.2  # else the biases name one word for all
            parameter.copy_(scale * draw(*parameter.shape, seed=n) + ("Norm.weight" in name))
    encoder = bert.BertModel(config)
    without = encoder.load_state_dict(theirs.bert.state_dict(), strict=False)
    assert {name.split(".")[0] for name in without.missing_keys} == {"pooler"}
    head = reference("MaskedWordHead")(config, encoder.embeddings.word_embeddings.weight)
    weights = theirs.cls.predictions.state_dict()
    weights.pop("bias")  # the decoder's, under another name
    head.load_state_dict({name.removeprefix("transform."): w for name, w in weights.items()})
    return theirs, tokenizer, encoder, head


def test_masked_word_head_is_the_reference_librarys_over_the_same_table():
    theirs, _, encoder, head = masked_language_models()
    assert head.decoder.weight is encoder.embeddings.word_embeddings.weight
    new = reference("MaskedWordHead")(encoder.config, head.decoder.weight)
    assert not new.decoder.bias.any()
    hidden = draw(2, 3, 8, seed=1)
    assert_close(head(hidden), theirs.cls.predictions(hidden))


def test_next_sentence_pairs_are_neighbours_or_drawn_evenly_from_other_documents():
    documents = [[f"{n}-{place}" for place in range(size)] for n, size in enumerate((3, 1, 4))]
    neighbours = [pair for document in documents for pair in pairwise(document)]
    generator, runs = torch.Generator().manual_seed(0), 2000
    counts = [{} for _ in neighbours]
    for _ in range(runs):
        first, second, is_next = reference("next_sentence_pairs")(documents, generator)
        assert list(first) == [one for one, _ in neighbours]
        for count, two, mark in zip(counts, second, is_next.tolist(), strict=True):
            count[two, mark] = count.get((two, mark), 0) + 1
    for (one, two), count in zip(neighbours, counts, strict=True):
        others = [s for document in documents if one not in document for s in document]
        assert set(count) == {(two, 1), *((other, 0) for other in others)}
        found = [count[two, 1], *(count[other, 0] for other in others)]
        expected = [runs / 2, *len(others) * [runs / 2 / len(others)]]
        assert stats.chisquare(found, expected).pvalue > 0.001


def test_predict_masked_ranks_words_as_the_reference_librarys_model():
    theirs, tokenizer, encoder, head = masked_language_models(dropout=0.5)
    encoder.train()
    text = "the [MASK] sees a small [MASK]"
    ids = tokenizer.encode(text).ids
    with torch.no_grad():
        chances = theirs.eval()(torch.tensor([ids])).logits[0].double().softmax(dim=1)
    places = [place for place, i in enumerate(ids) if tokenizer.id_to_token(i) == "[MASK]"]
    assert len(places) == 2
    found = reference("predict_masked")(encoder, head, tokenizer, text, 3)
    for gap, place in zip(found, places, strict=True):
        best = sorted(range(len(chances[place])), key=lambda i: -chances[place, i])[:3]
        assert [word for word, _ in gap] == [tokenizer.id_to_token(i) for i in best]
        assert [p for _, p in gap] == pytest.approx(chances[place, best].tolist(), rel=1e-4)


def masked_batch(seed: int, sentences: int):
    """Sentences, some of their words hidden, the second half padded: ids, inputs, mask, labels."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 19, (sentences, 8), generator=random)
    mask = torch.ones_like(ids)
    mask[sentences // 2 :, 6:] = 0
    chosen = (torch.rand(ids.shape, generator=random) < 0.4) & (mask > 0)
    return ids, ids.masked_fill(chosen, 4), mask, ids.masked_fill(~chosen, -100)


def test_pretrain_step_is_a_step_of_the_reference_librarys_model():
    theirs, _, encoder, head = masked_language_models()
    ours = nn.ModuleList([encoder, head])
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (ours, theirs)]
    for seed in range(3):
        _, inputs, mask, labels = masked_batch(seed, 4)
        found = reference("pretrain_step")(encoder, head, inputs, mask, labels, optimizers[0])
        optimizers[1].zero_grad()
        loss = theirs(inputs, mask, labels=labels).loss
        loss.backward()
        optimizers[1].step()
        assert found == pytest.approx(loss.item(), rel=1e-5)
    expected = theirs.bert.state_dict()
    found = {name: value for name, value in encoder.state_dict().items() if name in expected}
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    decoder = theirs.cls.predictions.decoder
    assert_close(head.decoder.bias, decoder.bias, rtol=1e-4, atol=1e-5)


def test_masked_accuracy_is_scikit_learns_over_all_hidden_words():
    theirs, _, encoder, head = masked_language_models(dropout=0.5)
    nn.ModuleList([encoder, head]).train()
    batches, right, said = [], [], []
    for seed, sentences in enumerate((6, 1, 3)):
        ids, inputs, mask, labels = masked_batch(seed, sentences)
        with torch.no_grad():
            guesses = theirs.eval()(inputs, mask).logits.argmax(dim=2)
        labels[:, :4] = torch.where(labels != -100, guesses, labels)[:, :4]  # some are right
        batches.append((ids, inputs, mask, labels))
        right += labels[labels != -100].tolist()
        said += guesses[labels != -100].tolist()
    expected = metrics.accuracy_score(right, said)
    assert 0 < expected < 1
    assert reference("masked_accuracy")(encoder, head, batches) == pytest.approx(expected)


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


@pytest.mark.parametrize("name", ["AdamW", "FoundAdamW"])
def test_an_optimizer_is_torchs_adamw(name):
    shapes, options = [(3, 2), (5,), (5,)], dict(lr=0.03, betas=(0.8, 0.95), eps=1e-5)
    ours = [nn.Parameter(draw(*s, seed=n, dtype=torch.float64)) for n, s in enumerate(shapes)]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    found = reference(name)(iter(ours), decay=0.2, **options)
    expected = torch.optim.AdamW(theirs, weight_decay=0.2, **options)
    for step in range(30):
        found.lr = expected.param_groups[0]["lr"] = 0.03 / (1 + step // 5)
        found.zero_grad()
        for n, (p, other) in enumerate(zip(ours, theirs, strict=True)):
            assert p.grad is None
            g = 10.0**-n * draw(*shapes[n], seed=10 * step + n, dtype=torch.float64)
            g = 0 * g if n == 2 and step % 4 == 2 else g
            other.grad = None if n == 1 and step % 3 == 1 else g
            p.grad = None if other.grad is None else g.clone()
        found.step()
        expected.step()
    assert_close(ours, theirs)


def test_decay_shrinkage_is_what_torchs_adamw_leaves_of_a_weight():
    weight = torch.ones(1, dtype=torch.float64)
    weight.grad = torch.zeros_like(weight)
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.3)
    for step in range(1, 21):
        optimizer.step()
        assert reference("decay_shrinkage")(0.1, 0.3, step) == pytest.approx(weight.item())


def test_class_loss_is_its_formula_in_float64():
    labels = torch.tensor([0, 4, 2, 1])
    for scale, shift in ((1, 0), (300, 1000)):
        z = scale * draw(4, 5, seed=1, dtype=torch.float64) + shift
        expected = (z.logsumexp(dim=1) - z[range(4), labels]).mean()
        assert_close(reference("class_loss")(z, labels), expected)


@pytest.mark.parametrize("training", [True, False])
def test_sentiment_classifier_is_the_librarys_model_with_one_head(training):
    theirs = MultitaskModel(small_encoder(), {"sentiment": HeadConfig((0.3,))}).train(training)
    ours = reference("SentimentClassifier")(theirs.encoder, 16).train(training)
    ours.head.load_state_dict(theirs.heads["sentiment"].linears[0].state_dict())
    batch = small_splits()["sentiment"].batch(range(6))
    torch.manual_seed(1)  # dropout
    expected = theirs(batch)
    torch.manual_seed(1)
    assert_close(ours(batch), expected)


class Keeper(Callback):
    """Keeps the parameters of the best epoch."""

    def after_best(self, trainer):
        self.best = deepcopy(trainer.model.state_dict())


def test_fit_is_the_librarys_trainer_with_its_best_epoch():
    data, models, keeper = small_data(), [], Keeper()
    for _ in range(2):
        encoder = small_encoder()
        torch.manual_seed(0)
        models.append(MultitaskModel(encoder, {"sentiment": HeadConfig((0.3,))}))
    ours, theirs = models
    splits = data["sentiment"]
    torch.manual_seed(1)  # dropout
    scores = reference("fit")(
        ours, splits["train"], splits["dev"], AdamW(ours.parameters(), lr=0.01), 6, 5
    )
    torch.manual_seed(1)
    trainer = Trainer(
        theirs,
        {"sentiment": splits},
        optimizer=AdamW(theirs.parameters(), lr=0.01),
        batch_size=5,
        callbacks=[keeper],
    )
    expected = [epoch["dev"]["sentiment"]["accuracy"] for epoch in trainer.fit(6).history]
    assert scores == pytest.approx(expected)
    assert expected[-1] < max(expected)  # else the last epoch would do
    assert_close(dict(ours.state_dict()), dict(keeper.best))


def test_predict_in_order_is_one_sentence_after_another():
    split = small_splits()["sentiment"]
    torch.manual_seed(0)
    model = MultitaskModel(small_encoder(), {"sentiment": HeadConfig((0.3,))}).train()
    found = reference("predict_in_order")(model, split, 3)
    assert model.training and not found.requires_grad
    model.eval()
    with torch.no_grad():
        one_by_one = torch.cat([model(split.batch([n])) for n in range(len(split))])
    assert_close(found, one_by_one, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_head_is_the_librarys_with_the_vectors_of_each_pair_side_by_side(task):
    theirs = Head(task, 4, HeadConfig((0.6,))).train()
    ours = reference("Head")(task, 4, 0.6).train()
    ours.linear.load_state_dict(theirs.linears[0].state_dict())
    vectors = draw(3 * task.sentences, 4, seed=1)
    rows = [torch.cat([vectors[i + 3 * n] for n in range(task.sentences)]) for i in range(3)]
    torch.manual_seed(2)  # dropout
    expected = theirs(torch.stack(rows))
    torch.manual_seed(2)
    assert_close(ours(vectors), expected)


@pytest.mark.parametrize("training", [True, False])
def test_multitask_model_is_the_librarys_with_paper_heads(training):
    theirs = small_model().train(training)
    ours = reference("MultitaskModel")(theirs.encoder, 16, TASKS, 0.1).train(training)
    weights = theirs.state_dict()
    ours.load_state_dict({n.replace("linears.0", "linear"): w for n, w in weights.items()})
    for task, split in zip(TASKS, small_splits().values(), strict=True):
        batch = split.batch(range(4))
        assert batch.task is task
        torch.manual_seed(1)  # dropout
        expected = theirs(batch)
        torch.manual_seed(1)
        assert_close(ours(batch), expected)
    for own, library in zip(ours.shared_parameters(), theirs.shared_parameters(), strict=True):
        assert own is library


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


def test_joint_step_is_a_step_along_the_gradient_of_what_backward_is_given():
    ours, theirs = (small_model(dropout=0.0, dtype=torch.float64) for _ in range(2))
    batches = [split.batch(range(5)) for split in small_splits().values()]
    for parameter in ours.parameters():
        parameter.grad = torch.ones_like(parameter)  # of an earlier step: does not count

    def weighted(losses, model):
        assert model is ours and model.training
        sum((n + 1) * loss for n, loss in enumerate(losses)).backward()

    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    found = reference("joint_step")(ours.eval(), batches, optimizer, weighted)
    losses = [batch.task.loss(theirs(batch), batch.labels) for batch in batches]
    assert found == pytest.approx([loss.item() for loss in losses])
    names, parameters = zip(*theirs.named_parameters(), strict=True)
    total = losses[0] + 2 * losses[1] + 3 * losses[2]
    gradients = torch.autograd.grad(total, parameters)
    expected = {n: p - 0.1 * g for n, p, g in zip(names, parameters, gradients, strict=True)}
    assert_close(dict(ours.named_parameters()), expected)


def test_evaluate_is_scikit_learns_and_scipys_of_each_example_alone():
    model, data = small_model(), small_data()
    with torch.no_grad():
        for n, parameter in enumerate(model.heads.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=n))
        model.heads["paraphrase"].linears[0].bias.fill_(0.1)  # some logits above 0
    found = reference("evaluate")(model.train(), data)
    assert model.training
    model.eval()
    for name, splits in data.items():
        dev = splits["dev"]
        with torch.no_grad():
            logits = torch.cat([model(dev.batch([i])) for i in range(len(dev))])
        labels = dev.labels.numpy()
        if name == "sentiment":
            expected = metrics.accuracy_score(labels, logits.argmax(dim=1))
        elif name == "paraphrase":
            expected = metrics.accuracy_score(labels, logits[:, 0] > 0)
        else:
            expected = stats.pearsonr(logits[:, 0], labels).statistic
        assert found[name] == pytest.approx(expected, abs=1e-4)
    assert set(found) == set(data)


def test_train_tasks_is_the_librarys_trainer_with_the_plain_sum():
    data, (ours, theirs) = small_data(), (small_model() for _ in range(2))
    torch.manual_seed(1)  # dropout
    optimizer = AdamW(ours.parameters())
    losses = reference("train_tasks")(ours, data, optimizer, 8, batch_size=4, seed=3)
    torch.manual_seed(1)
    trainer = Trainer(
        theirs,
        data,
        optimizer=AdamW(theirs.parameters()),
        weighting=sum_weights,
        batch_size=4,
        seed=3,
    )
    assert len(losses) == 8  # more than an epoch
    for of_step in losses:
        assert of_step == pytest.approx(list(trainer.step()[0].values()), rel=1e-4)
    for own, library in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(own, library, rtol=1e-4, atol=1e-4)


def test_pair_batch_is_padded_row_by_row():
    first, second = [[2, 5, 3], [2, 0, 7, 3], [2, 3]], [[2, 9, 5, 6, 3], [2, 3], [2, 4, 0, 3]]
    labels = [4.6, 0.0, 2.25]
    ids, mask, values = reference("pair_batch")(first, second, labels)
    rows = first + second
    assert ids.tolist() == [[*row, *(5 - len(row)) * [0]] for row in rows]
    assert mask.tolist() == [len(row) * [1] + (5 - len(row)) * [0] for row in rows]
    assert values.tolist() == pytest.approx(labels)
