"""A task, head, encoder, weighting, loss or corpus of one's own, without touching a registry."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import transformers
from small import WORDS, small_data, small_encoder, small_model, small_splits, small_tokenizer
from tokenizers import processors
from torch import nn

from mtl_lib import (
    Callback,
    Corpus,
    Head,
    HeadConfig,
    MultitaskModel,
    PairExample,
    SentenceExample,
    Task,
    Trainer,
    evaluate,
    metrics,
    pcgrad_weights,
    predict,
)
from mtl_lib.bert import BertModel
from mtl_lib.errors import ConfigError, CorpusError, EncoderError, NumericalError
from mtl_lib.optim import AdamW
from mtl_lib.study.by_label import confusion, per_class_report
from mtl_lib.study.conflicts import ConflictLog
from mtl_lib.study.rows import FIGURE_3
from mtl_lib.study.store import run_key
from mtl_lib.tasks import PARAPHRASE, SENTIMENT, SIMILARITY
from mtl_lib.trainer import PlainEngine


def focal_loss(logits, labels):
    """Lin et al. (2017), equation 4, with a focus of 2."""
    log_p = logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def multi_label_loss(logits, labels):
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def several(logits):
    return (logits > 0).long()


def subset_accuracy(predicted, labels):
    return (predicted == labels).all(axis=1).mean()


def error_below(predicted, labels):
    return -np.abs(predicted - labels).mean()


NLI = Task("multi-nli", sentences=2, outputs=3, loss="cross_entropy", metric="accuracy")
FOCAL = Task("focal", outputs=3, loss=focal_loss, metric="macro_f1")
TAGS = Task(
    "tags", outputs=4, loss=multi_label_loss, metric=subset_accuracy, prediction=several
)  # fmt: skip
RATING = Task(
    "rating", loss="mean_squared_error", metric=error_below, max_label=10
)  # fmt: skip


def sentence(number: int, length: int = 4) -> str:
    return " ".join(WORDS[(number * 7 + k * (number + 3)) % len(WORDS)] for k in range(length))


def rows(task: Task, size: int = 16, start: int = 0) -> list[tuple]:
    """Sentences without meaning, and labels that the task can take."""
    made = []
    for n in range(start, start + size):
        texts = [sentence(n + 5 * column) for column in range(task.sentences)]
        label = {"tags": [n % 2, 1, 0, (n // 2) % 2], "rating": n % 11}.get(
            task.name, n % max(task.outputs, 2)
        )
        made.append((*texts, label))
    return made


def corpus_of(*tasks: Task) -> Corpus:
    return Corpus.from_examples(
        {task: {"train": rows(task), "dev": rows(task, 8, 40)} for task in tasks}
    )


def data_of(*tasks: Task):
    return corpus_of(*tasks).tokenized(small_tokenizer())


class BagOfEmbeddings(nn.Module):
    """The mean of the words' vectors: an encoder of one's own."""

    hidden_size = 6

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(16, self.hidden_size)

    def encode(self, input_ids, attention_mask):
        mask = attention_mask[:, :, None].float()
        return (self.words(input_ids) * mask).sum(dim=1) / mask.sum(dim=1)


class Distance(nn.Module):
    """A head of one's own: classes by how far apart the two sentences are."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.scale = nn.Linear(1, classes)

    def forward(self, vectors):
        u, v = vectors.chunk(2, dim=1)
        return self.scale((u - v).norm(dim=1, keepdim=True))


def model_of(*tasks: Task, encoder=None, **heads) -> MultitaskModel:
    torch.manual_seed(0)
    encoder = encoder or small_encoder()
    return MultitaskModel(encoder, {t: heads.get(t.name, HeadConfig((0.1,))) for t in tasks})


def trainer_of(model, data, **options) -> Trainer:
    return Trainer(
        model,
        data,
        **({"optimizer": AdamW(model.parameters(), lr=1e-2)} | {"batch_size": 4} | options),
    )


def moved(model, before) -> set[str]:
    return {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}


def snapshot(model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


# Tasks


def test_a_task_of_ones_own_trains_is_evaluated_saved_and_loaded(tmp_path):
    model, data = model_of(NLI, SENTIMENT), data_of(NLI, SENTIMENT)
    before = snapshot(model)
    fit = trainer_of(model, data, weighting=pcgrad_weights).fit(epochs=2)
    assert any("multi-nli" in name for name in moved(model, before))
    assert list(fit.last["dev"]["multi-nli"]) == ["accuracy", "balanced_accuracy", "macro_f1"]
    model.save(tmp_path)
    loaded = MultitaskModel.load(tmp_path)
    assert loaded.tasks == {"multi-nli": NLI, "sentiment": SENTIMENT}
    assert loaded.tokenizer.to_str() == small_tokenizer().to_str()
    for splits in data.values():
        assert np.array_equal(predict(loaded, splits["dev"]), predict(model, splits["dev"]))
        assert evaluate(loaded, splits["dev"]) == evaluate(model, splits["dev"])


def test_a_saved_model_with_a_task_of_ones_own_predicts_in_a_new_process(tmp_path):
    model, data = model_of(NLI), data_of(NLI)
    trainer_of(model, data).fit(epochs=1)
    model.save(tmp_path / "model")
    code = textwrap.dedent("""
        import json, sys
        from mtl_lib import Corpus, MultitaskModel, predict
        model = MultitaskModel.load(sys.argv[1])
        (task,) = model.tasks.values()
        corpus = Corpus.from_examples({task: {"dev": [tuple(r) for r in json.loads(sys.argv[2])]}})
        data = corpus.tokenized(model.tokenizer)
        print(json.dumps(predict(model, data[task.name]["dev"]).tolist()))
    """)
    words = [sys.executable, "-c", code, str(tmp_path / "model"), json.dumps(rows(NLI, 8, 40))]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    expected = predict(model, data["multi-nli"]["dev"])
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, atol=1e-6)


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_loss_of_ones_own_is_the_loss_that_trains(engine):
    model, data = model_of(FOCAL), data_of(FOCAL)
    trainer = trainer_of(model, data, engine=engine)
    model.eval()  # of the numbers below
    stream = trainer_of(model_of(FOCAL), data).streams["focal"]
    reference = model_of(FOCAL)
    for module in (*model.modules(), *reference.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = next(stream)
    logits = reference(batch)
    p = torch.softmax(logits, dim=1)[range(4), batch.labels]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    losses, gram = trainer.step()
    assert losses["focal"] == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(expected, list(reference.encoder.parameters()))
    assert gram.item() == pytest.approx(sum(g.square().sum().item() for g in gradients), rel=1e-4)


def test_a_task_with_a_loss_of_ones_own_predicts_the_largest_output():
    logits = np.eye(3, dtype=np.float32)[[2, 0, 1]]
    assert FOCAL.predict(torch.tensor(logits)).tolist() == [2, 0, 1]
    assert metrics(FOCAL, logits, np.array([2, 0, 0])) == {
        "macro_f1": pytest.approx((2 / 3 + 1) / 3)
    }


def test_several_labels_at_once_with_a_prediction_and_a_metric_of_ones_own():
    model, data = model_of(TAGS), data_of(TAGS)
    labels = data["tags"]["train"].labels
    assert (tuple(labels.shape), labels.dtype) == ((16, 4), torch.int64)
    fit = trainer_of(model, data).fit(epochs=8)
    logits, dev = fit.logits["tags"], data["tags"]["dev"]
    expected = ((logits > 0) == dev.labels.numpy().astype(bool)).all(axis=1).mean()
    assert fit.best["dev"]["tags"] == {"subset_accuracy": pytest.approx(expected)}
    assert fit.history[-1]["loss"]["tags"] < fit.history[0]["loss"]["tags"]


def test_a_metric_of_ones_own_chooses_the_best_epoch():
    model, data = model_of(RATING), data_of(RATING)
    fit = trainer_of(model, data).fit(epochs=4)
    found = [entry["dev"]["rating"]["error_below"] for entry in fit.history]
    assert fit.best["dev"]["rating"]["error_below"] == max(found)
    labels = data["rating"]["dev"].labels.numpy()
    assert max(found) == pytest.approx(-np.abs(fit.logits["rating"][:, 0] - labels).mean())


def test_functions_of_ones_own_are_given_when_a_model_is_loaded(tmp_path):
    model = model_of(TAGS, FOCAL, RATING).eval()
    model.save(tmp_path)
    with pytest.raises(EncoderError, match="tags.*its own; give the task"):
        MultitaskModel.load(tmp_path)
    loaded = MultitaskModel.load(tmp_path, tasks=[TAGS, FOCAL, RATING])
    assert loaded.tasks == model.tasks
    batch = data_of(TAGS)["tags"]["dev"].batch([0, 1, 2])
    assert torch.equal(loaded(batch), model(batch))


def test_a_prediction_of_ones_own_is_not_lost_in_a_saved_model(tmp_path):
    task = Task("careful", outputs=3, prediction=lambda logits: logits[:, 1:].argmax(dim=1) + 1)
    model_of(task).save(tmp_path)
    with pytest.raises(EncoderError, match="careful.*prediction is its own"):
        MultitaskModel.load(tmp_path)
    assert MultitaskModel.load(tmp_path, tasks=[task]).tasks == {"careful": task}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "hinge"}, r"loss 'hinge': choose from \['cross_entropy'.*or give a function"),
        ({"loss": "classes"}, "loss 'classes': choose from"),
        ({"loss": None}, "loss None: choose from"),
        ({"metric": "f1"}, r"metric 'f1': choose from \['accuracy'.*or give a function"),
        ({"metric": "mse"}, "metric 'mse': choose from"),
        ({"metric": None}, "metric None: choose from"),
        ({"sentences": 3}, "sentences is 3"),
        ({"sentences": True}, "sentences is True"),
        ({"outputs": 0}, "outputs is 0"),
        ({"outputs": 2.0}, "outputs is 2.0"),
        ({"outputs": 1}, "1 output has a cross-entropy of 0"),
        ({"loss": "binary_cross_entropy", "outputs": 2}, "binary_cross_entropy takes one"),
        ({"loss": "mean_squared_error", "outputs": 2}, "mean_squared_error takes one"),
        ({"loss": "mean_squared_error", "outputs": 1}, "accuracy compares classes"),
        ({"name": "a b"}, "a name holds letters"),
        ({"name": "a.b"}, "a name holds letters"),
        ({"name": ""}, "a name holds letters"),
        ({"name": 3}, "a name holds letters"),
        ({"name": "keys"}, "taken by torch"),
        ({"name": "file"}, "taken by torch or numpy"),
    ],
    ids=str,
)
def test_an_impossible_task_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Task(**({"name": "nli", "outputs": 3} | values))


def test_one_output_of_a_loss_of_ones_own_has_no_classes_to_compare():
    with pytest.raises(ConfigError, match="accuracy compares classes, and one output is a score"):
        Task("nli", outputs=1, loss=multi_label_loss)


def test_one_output_of_a_loss_of_ones_own_is_told_by_its_prediction():
    def loss(logits, labels):
        return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())

    spam = Task("spam", loss=loss, prediction=lambda logits: (logits[:, 0] > 0).long())
    scores = trainer_of(model_of(spam), data_of(spam)).fit(epochs=1).last["dev"]["spam"]
    assert 0 <= scores["accuracy"] <= 1


def test_several_labels_an_example_that_no_metric_compares_are_refused_before_training():
    task = Task("tags", outputs=4, loss=multi_label_loss)
    with pytest.raises(ConfigError, match=r"'tags': accuracy compares one label .* \[16, 4\]"):
        trainer_of(model_of(task), data_of(task))


@pytest.mark.parametrize(
    "given", [{"heads": {"multi-nil": Distance()}}, {"tasks": [Task("multi-nil", outputs=3)]}]
)
def test_a_name_that_the_loaded_model_has_not_is_refused(given, tmp_path):
    model_of(NLI).save(tmp_path)
    with pytest.raises(EncoderError, match=r"no task 'multi-nil' among \['multi-nli'\]"):
        MultitaskModel.load(tmp_path, **given)


def test_a_loss_that_is_no_mean_is_refused():
    task = Task("raw", outputs=3, loss=lambda logits, labels: logits.sum(dim=1))
    with pytest.raises(ValueError, match=r"its loss has shape \(4,\); give the mean"):
        task.loss(torch.zeros(4, 3), torch.zeros(4).long())


def test_tasks_travel_as_words_and_come_back_equal():
    for task in (NLI, SENTIMENT, PARAPHRASE, SIMILARITY):
        assert Task.from_dict(json.loads(json.dumps(task.as_dict()))) == task


# Scores that do not end at 5


def test_a_score_up_to_10_is_not_clipped_to_5_in_the_table_by_label():
    labels = np.array([9.0, 10.0, 7.0, 0.0])
    logits = np.array([[9.2], [12.0], [6.6], [-3.0]], np.float32)
    report = per_class_report(RATING, logits, labels)
    assert report["label"].tolist() == list(range(11))
    assert report["count"].tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1]
    assert report["accuracy"][[0, 7, 9, 10]].tolist() == [1, 1, 1, 1]
    assert confusion(RATING, logits, labels).shape == (11, 11)


def test_a_table_by_label_of_a_score_without_end_is_refused():
    score = Task("price", loss="mean_squared_error", metric="pearson")
    with pytest.raises(ConfigError, match="price.*needs its max_label"):
        per_class_report(score, np.zeros((2, 1), np.float32), np.array([1.0, 200.0]))


def test_labels_of_a_score_without_end_may_be_any_number():
    score = Task("price", loss="mean_squared_error", metric="pearson")
    corpus = Corpus.from_examples({score: {"train": [("good film", -3.5), ("bad film", 1e4)]}})
    labels = corpus.tokenized(small_tokenizer())["price"]["train"].labels
    assert labels.tolist() == [-3.5, 1e4]


# Heads


def test_a_head_of_ones_own_trains_is_saved_and_loaded(tmp_path):
    model, data = model_of(NLI, **{"multi-nli": Distance()}), data_of(NLI)
    before = snapshot(model)
    trainer_of(model, data).fit(epochs=1)
    assert {"heads.multi-nli.scale.weight", "heads.multi-nli.scale.bias"} <= moved(model, before)
    model.save(tmp_path)
    with pytest.raises(EncoderError, match="the head of multi-nli is none of ours"):
        MultitaskModel.load(tmp_path)
    loaded = MultitaskModel.load(tmp_path, heads={"multi-nli": Distance()})
    dev = data["multi-nli"]["dev"]
    assert np.array_equal(predict(loaded, dev), predict(model, dev))


class FromZeroToFive(Head):
    """Our head, bounded."""

    def forward(self, vectors):
        return 5 * super().forward(vectors).sigmoid()


def test_a_subclass_of_our_head_is_given_when_its_model_is_loaded(tmp_path):
    model, dev = model_of(SIMILARITY, similarity=FromZeroToFive(SIMILARITY, 16)), small_splits()
    model.save(tmp_path)
    with pytest.raises(EncoderError, match="the head of similarity is none of ours"):
        MultitaskModel.load(tmp_path)
    loaded = MultitaskModel.load(tmp_path, heads={"similarity": FromZeroToFive(SIMILARITY, 16)})
    assert np.array_equal(predict(loaded, dev["similarity"]), predict(model, dev["similarity"]))


class NegativeDistance(nn.Module):
    """A head without parameters."""

    def forward(self, vectors):
        u, v = vectors.chunk(2, dim=1)
        return -(u - v).norm(dim=1, keepdim=True)


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_head_without_parameters_trains_its_encoder(engine):
    model = model_of(SIMILARITY, similarity=NegativeDistance())
    before = snapshot(model)
    losses, gram = trainer_of(model, data_of(SIMILARITY), engine=engine).step()
    assert list(model.heads.parameters()) == []
    assert np.isfinite(losses["similarity"]) and gram.item() > 0
    assert any("query" in name for name in moved(model, before))


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("weighting", [pcgrad_weights, lambda gram, generator: [1.0, 2.0]])
def test_a_head_parameter_without_gradient_is_left_as_it_is(engine, weighting):
    head = Distance()
    head.spare = nn.Parameter(torch.ones(2))
    model = model_of(NLI, SENTIMENT, **{"multi-nli": head})
    before = snapshot(model)
    options = {"weighting": weighting, "clip": 1.0, "engine": engine}
    trainer_of(model, data_of(NLI, SENTIMENT), **options).fit(epochs=1)
    assert "heads.multi-nli.spare" not in moved(model, before)
    assert "heads.multi-nli.scale.weight" in moved(model, before)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_head_of_another_width_is_refused_and_not_broadcast(width):
    model, data = model_of(NLI, **{"multi-nli": Distance(width)}), data_of(NLI)
    message = rf"multi-nli: head gives \[\d+, {width}\], not \[B, 3\]"
    with pytest.raises(ConfigError, match=message):
        predict(model, data["multi-nli"]["dev"])
    with pytest.raises(ConfigError, match=message):
        trainer_of(model, data).step()


def test_a_frozen_head_stays_as_it_is():
    model = model_of(NLI, SENTIMENT)
    model.heads["sentiment"].requires_grad_(False)
    before = snapshot(model)
    Trainer(model, data_of(NLI, SENTIMENT), batch_size=4).fit(epochs=1)
    assert not any("sentiment" in name for name in moved(model, before))


def test_the_heads_of_a_configuration_cannot_be_changed_in_place():
    heads = FIGURE_3["3.1"].heads
    with pytest.raises(TypeError):
        heads["sentiment"] = HeadConfig((0.9,))
    for change in (
        lambda: heads.update(sentiment=HeadConfig((0.9,))),
        lambda: heads.pop("sentiment"),
        lambda: heads.clear(),
        lambda: heads.popitem(),
        lambda: heads.setdefault("cfimdb", HeadConfig()),
        lambda: heads.__delitem__("sentiment"),
        lambda: heads.__ior__({"sentiment": HeadConfig((0.9,))}),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    assert heads["sentiment"] == HeadConfig((0.3,))
    assert list(heads) == ["sentiment", "paraphrase", "similarity"]


def test_the_heads_of_a_configuration_are_a_copy_of_what_was_given():
    from dataclasses import replace

    given = {"sentiment": HeadConfig()}
    config = replace(FIGURE_3["3.1"], heads=given)
    given["paraphrase"] = HeadConfig()
    assert list(config.heads) == ["sentiment"]


# Encoders


@pytest.mark.parametrize("weighting", [pcgrad_weights, None])
def test_an_encoder_of_ones_own_trains_is_saved_and_loaded(weighting, tmp_path):
    model, data = model_of(NLI, SENTIMENT, encoder=BagOfEmbeddings()), data_of(NLI, SENTIMENT)
    before = snapshot(model)
    options = {"weighting": weighting} if weighting else {}
    trainer_of(model, data, **options).fit(epochs=1)
    assert moved(model, before) == set(before)
    model.save(tmp_path)
    with pytest.raises(EncoderError, match="give `encoder`"):
        MultitaskModel.load(tmp_path)
    loaded = MultitaskModel.load(tmp_path, encoder=BagOfEmbeddings())
    for name, splits in data.items():
        assert np.array_equal(predict(loaded, splits["dev"]), predict(model, splits["dev"])), name


class Lazy(BagOfEmbeddings):
    """Keeps what it computed at its first call, as encoders do with sines and cosines."""

    kept = None

    def encode(self, input_ids, attention_mask):
        if self.kept is None:
            self.kept = torch.linspace(0, 1, self.hidden_size).cos()
        return super().encode(input_ids, attention_mask) * self.kept


def test_an_encoder_that_was_evaluated_first_is_trained():
    model, data = model_of(SENTIMENT, encoder=Lazy()), data_of(SENTIMENT)
    evaluate(model, data["sentiment"]["dev"])
    trainer_of(model, data).step()
    assert not model.encoder.kept.is_inference()


def test_the_gradients_of_a_foreign_encoder_are_those_of_plain_backward_passes():
    model, data = model_of(NLI, SENTIMENT, encoder=BagOfEmbeddings()), data_of(NLI, SENTIMENT)
    model.heads.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    trainer = trainer_of(model, data, optimizer=torch.optim.SGD(model.parameters(), lr=0.0))
    batches = [next(s) for s in trainer_of(model, data).streams.values()]
    _, gram = trainer.step()
    gradients = []
    for batch in batches:
        loss = batch.task.loss(model(batch), batch.labels)
        gradients.append(torch.autograd.grad(loss, model.encoder.words.weight)[0].flatten())
    found = torch.stack(gradients).double()
    torch.testing.assert_close(gram, found @ found.T, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(
        model.encoder.words.weight.grad.flatten(), sum(gradients), rtol=1e-4, atol=1e-7
    )


def test_the_fast_engine_says_that_a_foreign_encoder_is_trained_by_the_plain_one():
    weights = []
    for engine in ("plain", "fast"):
        torch.manual_seed(0)
        model = model_of(NLI, encoder=BagOfEmbeddings())
        if engine == "fast":
            with pytest.warns(UserWarning, match="BagOfEmbeddings is trained by the plain one"):
                trainer = trainer_of(model, data_of(NLI), engine=engine)
        else:
            trainer = trainer_of(model, data_of(NLI), engine=engine)
        assert isinstance(trainer.engine, PlainEngine)
        trainer.fit(epochs=1)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


class Transformer(nn.Module):
    """One of transformers' encoders, its [CLS] vector as the sentence's."""

    def __init__(self, config):
        super().__init__()
        self.model = transformers.AutoModel.from_config(config)
        self.hidden_size = config.hidden_size

    def encode(self, input_ids, attention_mask):
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return output.last_hidden_state[:, 0]


SMALL = {"vocab_size": 16, "max_position_embeddings": 32}
BERT_LIKE = SMALL | {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**BERT_LIKE),
    "roberta": lambda: transformers.RobertaConfig(**BERT_LIKE, pad_token_id=0),
    "distilbert": lambda: transformers.DistilBertConfig(
        **SMALL, dim=8, n_layers=1, n_heads=2, hidden_dim=16
    ),
}


def transformers_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A fast tokenizer around a vocabulary of twelve words."""
    tokenizer = small_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_and_a_tokenizer_of_transformers_train_and_are_saved(name, tmp_path):
    tokenizer, encoder = transformers_tokenizer(), Transformer(CONFIGS[name]())
    data = corpus_of(NLI, SENTIMENT).tokenized(tokenizer)
    sentences = [pair[0] for pair in rows(NLI)]
    expected = [tokenizer(text)["input_ids"] for text in sentences]
    found = [ids.tolist() for ids in data["multi-nli"]["train"].sentences[0]]
    assert found == expected
    model = model_of(NLI, SENTIMENT, encoder=encoder)
    before = snapshot(model)
    trainer_of(model, data, weighting=pcgrad_weights).fit(epochs=1)
    assert any(n.startswith("encoder.model") for n in moved(model, before))
    model.save(tmp_path)
    loaded = MultitaskModel.load(tmp_path, encoder=Transformer(CONFIGS[name]()))
    dev = data["multi-nli"]["dev"]
    np.testing.assert_allclose(predict(loaded, dev), predict(model, dev), atol=1e-6)
    again = corpus_of(NLI).tokenized(loaded.tokenizer)["multi-nli"]["dev"]
    np.testing.assert_allclose(predict(loaded, again), predict(model, dev), atol=1e-6)


def test_a_saved_model_keeps_where_its_sentences_were_cut(tmp_path):
    corpus, model = corpus_of(NLI), model_of(NLI)
    data = corpus.tokenized(small_tokenizer(), max_length=3)
    assert data["multi-nli"]["train"].lengths.max() == 3
    trainer_of(model, data).fit(epochs=1)
    model.save(tmp_path)
    again = corpus.tokenized(MultitaskModel.load(tmp_path).tokenizer)
    assert again["multi-nli"]["train"].lengths.max() == 3


def test_a_tokenizer_of_transformers_may_be_given_when_a_model_is_saved(tmp_path):
    model_of(NLI).save(tmp_path, transformers_tokenizer())
    words = transformers_tokenizer().backend_tokenizer.to_str()
    assert MultitaskModel.load(tmp_path).tokenizer.to_str() == words


def test_what_cannot_encode_is_refused():
    with pytest.raises(ConfigError, match="Linear is no encoder: it needs encode"):
        MultitaskModel(nn.Linear(2, 2), {NLI: HeadConfig()})

    class Sizeless(nn.Module):
        def encode(self, input_ids, attention_mask):
            return input_ids

    with pytest.raises(ConfigError, match="hidden_size, H"):
        MultitaskModel(Sizeless(), {NLI: HeadConfig()})


# Weightings, schedules, callbacks


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, 3.0],
        (1, 3),
        np.array([1.0, 3.0]),
        torch.tensor([1, 3]),
        nn.Parameter(torch.tensor([1.0, 3.0])),
    ],
    ids=lambda weights: type(weights).__name__,
)
@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_weighting_of_ones_own_may_give_any_two_numbers(weights, engine):
    gradients = []
    for given in (
        lambda gram, generator: weights,
        lambda gram, generator: torch.tensor([1.0, 3.0]),
    ):
        model = model_of(NLI, SENTIMENT)
        torch.manual_seed(0)
        trainer_of(model, data_of(NLI, SENTIMENT), weighting=given, engine=engine).step()
        gradients.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]))
    torch.testing.assert_close(*gradients)


def test_a_weighting_of_ones_own_sees_the_gram_matrix_and_a_generator():
    seen = []

    def norms(gram, generator):
        seen.append((gram, generator))
        return 1 / gram.diagonal().sqrt()  # every task pulls with the same force

    model = model_of(NLI, SENTIMENT)
    trainer = trainer_of(model, data_of(NLI, SENTIMENT), weighting=norms)
    _, gram = trainer.step()
    assert torch.equal(seen[0][0], gram)
    assert seen[0][1] is trainer.generator


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], 1.0], ids=repr)
@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_weighting_of_another_shape_is_refused_before_the_step(weights, engine):
    model = model_of(NLI, SENTIMENT)
    before = snapshot(model)
    trainer = trainer_of(
        model, data_of(NLI, SENTIMENT), weighting=lambda gram, generator: weights, engine=engine
    )
    with pytest.raises(ConfigError, match="one weight for each of the 2 tasks"):
        trainer.step()
    assert moved(model, before) == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_weighting_that_is_not_finite_is_not_stepped_with(value, engine):
    model = model_of(NLI, SENTIMENT)
    before = snapshot(model)
    trainer = trainer_of(
        model,
        data_of(NLI, SENTIMENT),
        weighting=lambda gram, generator: [1.0, value],
        engine=engine,
    )
    with pytest.raises(NumericalError, match="step 1: the weighting gives .*must be finite"):
        trainer.step()
    assert moved(model, before) == set()
    assert trainer.steps == 0


def test_a_schedule_of_ones_own_multiplies_the_rate():
    model = model_of(NLI)
    trainer = trainer_of(model, data_of(NLI), schedule=lambda step: 1 / (1 + step))
    rates = []
    for _ in range(3):
        trainer.step()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 5e-3, 1e-2 / 3])


def test_a_callback_of_ones_own_stops_the_training():
    class Stop(Exception):
        pass

    class Patience(Callback):
        def after_epoch(self, trainer, entry):
            if entry["epoch"] == 2:
                raise Stop

    trainer = trainer_of(model_of(NLI), data_of(NLI), callbacks=[Patience()])
    with pytest.raises(Stop):
        trainer.fit(epochs=10)
    assert len(trainer.result.history) == 2


def test_the_default_optimizer_trains_what_is_not_frozen():
    model = model_of(NLI)
    model.encoder.embeddings.requires_grad_(False)
    trainer = Trainer(model, data_of(NLI), batch_size=4)
    assert isinstance(trainer.optimizer, AdamW)
    (group,) = trainer.optimizer.param_groups
    assert group["lr"] == 2e-5
    assert set(group["params"]) == {p for p in model.parameters() if p.requires_grad}


# Faults of the loop


@pytest.mark.parametrize("size", [7.3, 0, -1, "8", True, None, 4.0], ids=repr)
def test_an_impossible_batch_size_is_refused(size):
    with pytest.raises(ConfigError, match="batch_size = .*whole number above 0"):
        Trainer(small_model(), small_data(), batch_size=size)


@pytest.mark.parametrize("value", [2.5, 0, -1, True], ids=repr)
@pytest.mark.parametrize("name", ["epochs", "max_steps", "steps_per_epoch"])
def test_a_length_of_training_that_is_no_count_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} = .*whole number above 0"):
        if name == "steps_per_epoch":
            Trainer(small_model(), small_data(), steps_per_epoch=value)
        Trainer(small_model(), small_data()).fit(**({"epochs": 1} | {name: value}))


@pytest.mark.parametrize("clip", [0, 0.0, -1.0, float("nan")], ids=repr)
def test_a_norm_that_cuts_nothing_or_all_is_refused(clip):
    with pytest.raises(ConfigError, match="clip = .*above 0"):
        Trainer(small_model(), small_data(), clip=clip)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match=r"engine 'quick': choose from \['plain', 'fast'\]"):
        Trainer(small_model(), small_data(), engine="quick")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_evaluating_is_over_after_an_exception(error):
    def fails(predicted, labels):
        raise error

    class Head(nn.Module):
        def forward(self, vectors):
            raise error

    model = model_of(NLI, **{"multi-nli": Head()})
    trainer = trainer_of(model, data_of(NLI))
    with pytest.raises(error):
        trainer.evaluate({"multi-nli": trainer.data["multi-nli"]["dev"]})
    assert not trainer.evaluating
    task = Task("broken", outputs=3, metric=fails)
    trainer = trainer_of(model_of(task), data_of(task))
    with pytest.raises(error):
        trainer.fit(epochs=1)
    assert not trainer.evaluating


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "no task to train"),
        ({"cfimdb": small_splits()["sentiment"]}, "no head for task 'cfimdb'"),
        ({"sentiment": {"dev": small_splits()["sentiment"]}}, 'no split "train"'),
    ],
)
def test_data_that_cannot_train_the_model_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        Trainer(small_model(), data)


def test_data_without_labels_are_refused_before_training():
    unlabelled = Corpus.from_examples({NLI: {"train": [{"a": "good", "b": "bad film"}] * 1}})
    with pytest.raises(ConfigError, match="multi-nli: the train split has no labels"):
        Trainer(model_of(NLI), unlabelled.tokenized(small_tokenizer()), batch_size=1)


@pytest.mark.parametrize("names", [("a", "b", "a-b"), ("a-b", "c", "a", "b-c")])
def test_the_conflicts_of_tasks_with_a_dash_in_their_name_are_told_apart(names):
    tasks = [Task(name, outputs=3) for name in names]
    model, data = model_of(*tasks), data_of(*tasks)
    fit = trainer_of(model, data, callbacks=[ConflictLog(same_task_every=1)]).fit(epochs=1)
    count = len(names) * (len(names) + 1) // 2
    assert len(fit.history[0]["conflict"]) == count
    for values in fit.history[0]["conflict"].values():
        assert -1 - 1e-9 <= values["cosine"] <= 1 + 1e-9


# Corpora in memory


def frame(task: Task) -> pd.DataFrame:
    names = ["premise", "hypothesis"][: task.sentences]
    return pd.DataFrame(rows(task), columns=[*names, "label"])


FORMS = {
    "tuples": rows,
    "a generator": lambda task: (row for row in rows(task)),
    "dicts": lambda task: frame(task).to_dict("records"),
    "a DataFrame": frame,
    "a DataFrame with its label first": lambda task: frame(task)[
        ["label", "premise", "hypothesis"]
    ],
    "examples": lambda task: [PairExample(f"train-{n}", *row) for n, row in enumerate(rows(task))],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_corpus_is_made_of_lists_dicts_or_frames_alike(form):
    corpus = Corpus.from_examples({NLI: {"train": FORMS[form](NLI)}})
    assert corpus.splits["multi-nli"]["train"] == [
        PairExample(f"train-{n}", *row) for n, row in enumerate(rows(NLI))
    ]
    assert corpus.fingerprint == Corpus.from_examples({NLI: {"train": rows(NLI)}}).fingerprint


CHANGES = {
    "a word": [("good film", 1), ("bad scene", 0)],
    "a label": [("good film", 1), ("bad film", 1)],
    "the order": [("bad film", 0), ("good film", 1)],
    "one row less": [("good film", 1)],
    "one row more": [("good film", 1), ("bad film", 0), ("a", 1)],
    "an id": [{"id": "x", "text": "good film", "label": 1}, ("bad film", 0)],
    "where a sentence ends": [("good", 1), ("film bad film", 0)],
    "a tag": [SentenceExample("train-0", "good film", 1, ("short",)), ("bad film", 0)],
    "no label": [{"text": "good film"}, {"text": "bad film"}],
}


@pytest.mark.parametrize("change", CHANGES)
def test_two_corpora_in_memory_with_other_content_have_other_fingerprints_and_run_keys(change):
    first = Corpus.from_examples({SENTIMENT: {"train": [("good film", 1), ("bad film", 0)]}})
    other = Corpus.from_examples({SENTIMENT: {"train": CHANGES[change]}})
    assert first.fingerprint != other.fingerprint
    words = FIGURE_3["3.1"].as_dict()
    assert len({run_key(words, c.fingerprint, "0" * 64, 2) for c in (first, other)}) == 2


def test_a_corpus_in_memory_made_by_hand_has_its_contents_fingerprint_too():
    made = [
        Corpus("hand", {"sentiment": {"train": [SentenceExample("1", text, 0)]}})
        for text in ("good", "bad", "good")
    ]
    assert made[0].fingerprint != made[1].fingerprint
    assert made[0].fingerprint == made[2].fingerprint


def test_another_split_or_task_is_another_corpus():
    examples = [("good film", 1)]
    task = Task("other", outputs=5)
    prints = {
        Corpus.from_examples(given).fingerprint
        for given in (
            {SENTIMENT: {"train": examples}},
            {SENTIMENT: {"dev": examples}},
            {task: {"train": examples}},
            {Task("other", outputs=4): {"train": examples}},
        )
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("good", "bad", 3)], r"multi-nli, train, row 0: label 3; multi-nli takes 0 to 2"),
        ([("good", "bad", -1)], "label -1"),
        ([("good", "bad", 0.5)], "label 0.5"),
        ([("good", "bad", float("nan"))], "label nan"),
        ([("good", "bad", "entailment")], "label 'entailment'"),
        ([("good", "bad", 1), ("good", 2)], "row 1: 2 texts expected"),
        ([("good", 7, 1)], "row 0: 2 texts expected"),
        (
            [{"id": 1, "a": "x", "b": "y"}, {"id": "1", "a": "x", "b": "z"}],
            "row 1: id '1' is there",
        ),
        ([], "multi-nli, train: no rows; leave the split out"),
        (pd.DataFrame({"a": [], "b": [], "label": []}), "no rows"),
        ([SentenceExample("s", "good film", 0)], "row 0: 2 texts expected"),
    ],
    ids=str,
)
def test_a_row_that_is_none_of_the_tasks_is_named(given, message):
    with pytest.raises(CorpusError, match=message):
        Corpus.from_examples({NLI: {"train": given}})


def test_a_task_that_a_corpus_does_not_know_is_named():
    with pytest.raises(CorpusError, match="no task is called 'weather'; give it in `tasks`"):
        Corpus("hand", {"weather": {"train": [SentenceExample("1", "good", 0)]}})


def test_the_labels_of_numpy_are_labels():
    given = [("good film", "bad film", np.int64(2)), ("good", "bad", np.float32(1.0))]
    corpus = Corpus.from_examples({NLI: {"train": given}})
    assert [e.label for e in corpus.splits["multi-nli"]["train"]] == [2, 1]
    assert (
        corpus.fingerprint
        == Corpus.from_examples(
            {NLI: {"train": [("good film", "bad film", 2), ("good", "bad", 1)]}}
        ).fingerprint
    )


def test_data_of_another_kind_of_task_than_the_models_is_refused():
    model = model_of(Task("x", sentences=2, loss="binary_cross_entropy"))
    score = Task("x", sentences=2, loss="mean_squared_error", metric="pearson")
    with pytest.raises(ConfigError, match="x: the train split's task has other kind"):
        trainer_of(model, data_of(score))


def test_data_under_the_name_of_another_task_is_refused():
    yes, no = (Task(name, sentences=2, loss="binary_cross_entropy") for name in ("yes", "no"))
    with pytest.raises(ConfigError, match="yes: the train split's task has other name"):
        trainer_of(model_of(yes, no), {"yes": data_of(no)["no"]})


@pytest.mark.parametrize("name", ["training", "_modules", "keys", "file"])
def test_names_that_torch_or_numpy_take_are_refused(name):
    with pytest.raises(ConfigError, match="taken by torch or numpy"):
        Task(name, outputs=2)


def test_a_model_saved_over_another_keeps_nothing_of_it(tmp_path):
    first = model_of(SIMILARITY)
    first.save(tmp_path, small_tokenizer())
    model_of(SIMILARITY, encoder=BagOfEmbeddings()).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.json", "model.safetensors"]
    with pytest.raises(EncoderError, match="give `encoder`"):
        MultitaskModel.load(tmp_path)


def test_rows_that_are_none_are_named_and_an_id_of_none_is_no_id():
    task = Task("x", outputs=2)
    with pytest.raises(CorpusError, match="x, train, row 1: 5 is no row"):
        Corpus.from_examples({task: {"train": [("a", 0), 5]}})
    rows = [{"text": "a", "label": 0, "id": None}, {"text": "b", "label": 1, "id": None}]
    corpus = Corpus.from_examples({task: {"train": rows}})
    assert [example.id for example in corpus.splits["x"]["train"]] == ["train-0", "train-1"]


def test_corpora_whose_tasks_have_other_functions_have_other_fingerprints():
    def near(predicted, labels):
        return 1.0

    def far(predicted, labels):
        return 0.0

    prints = {
        Corpus.from_examples({Task("x", outputs=2, metric=m): {"train": [("a", 0)]}}).fingerprint
        for m in (near, far)
    }
    assert len(prints) == 2


def test_an_undefined_metric_of_ones_own_is_worse_than_any_number():
    values = iter([-3.0, 0.0, float("nan"), 0.0, float("nan"), 0.0])  # development, training, ..

    def minus_error(predicted, labels):
        return next(values)

    task = Task("rated", outputs=2, metric=minus_error)
    fit = trainer_of(model_of(task), data_of(task)).fit(epochs=3)
    assert fit.best["dev"]["rated"]["minus_error"] == -3.0


def hooked(encoder):
    encoder.pooler.register_forward_hook(lambda module, inputs, output: output * 0)


def exchanged(encoder):
    attention = encoder.encoder.layer[0].attention.self
    attention.query = nn.Sequential(attention.query, nn.Identity())


def parametrized(encoder):
    query = encoder.encoder.layer[0].attention.self.query
    nn.utils.parametrizations.weight_norm(query)


def hooked_behind(encoder):
    encoder.pooler.register_full_backward_hook(lambda module, inputs, outputs: None)


def hooked_before(encoder):
    encoder.pooler.register_full_backward_pre_hook(lambda module, outputs: None)


def hooked_at_a_parameter(encoder):
    encoder.pooler.dense.weight.register_hook(lambda gradient: 2 * gradient)


def with_a_forward_of_its_own(encoder):
    forward = encoder.pooler.forward
    encoder.pooler.forward = lambda hidden: 2 * forward(hidden)


def without_a_bias(encoder):
    encoder.encoder.layer[0].attention.self.query.register_parameter("bias", None)


def scaled_by_frequency(encoder):
    encoder.embeddings.word_embeddings.scale_grad_by_freq = True


CHANGED = [hooked, exchanged, parametrized, hooked_behind, hooked_before, hooked_at_a_parameter]
CHANGED += [with_a_forward_of_its_own, without_a_bias, scaled_by_frequency]


@pytest.mark.parametrize("change", CHANGED)
def test_a_bert_that_is_changed_after_its_fast_trainer_was_made_is_refused(change):
    model = model_of(SIMILARITY)
    trainer = trainer_of(model, data_of(SIMILARITY), engine="fast")
    change(model.encoder)
    with pytest.raises(ConfigError, match="the model was changed; make the trainer anew"):
        trainer.fit(epochs=1)


@pytest.mark.parametrize("change", CHANGED)
def test_a_bert_with_changed_parts_is_trained_by_the_plain_engine_with_a_word(change):
    steps = []
    for engine in ("plain", "fast"):
        model = model_of(SIMILARITY, encoder=small_encoder(dropout=0.0))
        change(model.encoder)
        if engine == "fast":
            with pytest.warns(UserWarning, match="as it is built only"):
                trainer = trainer_of(model.eval(), data_of(SIMILARITY), engine=engine)
        else:
            trainer = trainer_of(model.eval(), data_of(SIMILARITY), engine=engine)
        torch.manual_seed(1)
        steps.append(trainer.step()[0]["similarity"])
    assert steps[0] == steps[1]


class NearestWord(nn.Module):
    """The inner product with a word's vector, which is the encoder's own."""

    def __init__(self, words):
        super().__init__()
        self.words = words

    def forward(self, pairs):
        return pairs[:, : self.words.embedding_dim] @ self.words.weight[4:5].T


def test_an_encoder_that_shares_a_parameter_with_a_head_is_trained_by_the_plain_engine():
    gradients = []
    for engine in ("plain", "fast"):
        encoder = small_encoder(dropout=0.0)
        words = encoder.embeddings.word_embeddings
        model = model_of(SIMILARITY, encoder=encoder, similarity=NearestWord(words))
        if engine == "fast":
            with pytest.warns(UserWarning, match="no part of it a head's too"):
                trainer = trainer_of(model, data_of(SIMILARITY), engine=engine)
        else:
            trainer = trainer_of(model, data_of(SIMILARITY), engine=engine)
        trainer.step()
        gradients.append(words.weight.grad.clone())
    assert torch.equal(*gradients)


class Squared(nn.Module):
    """The widening of the feed-forward part with another activation."""

    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def forward(self, hidden):
        return self.dense(hidden).relu().square()


def squared(encoder):
    for layer in encoder.encoder.layer:
        layer.intermediate = Squared(layer.intermediate.dense)


@pytest.mark.parametrize("change", [squared, with_a_forward_of_its_own])
def test_a_bert_with_exchanged_parts_is_given_when_its_model_is_loaded(change, tmp_path):
    model, dev = model_of(SIMILARITY), small_splits()["similarity"]
    model.save(tmp_path)  # as it was built, over which the changed one is written
    change(model.encoder)
    model.save(tmp_path)
    with pytest.raises(EncoderError, match="the encoder was none of ours; give `encoder`"):
        MultitaskModel.load(tmp_path)
    encoder = small_encoder(seed=1)
    change(encoder)
    loaded = MultitaskModel.load(tmp_path, encoder=encoder)
    assert np.array_equal(predict(loaded, dev), predict(model, dev))


def another_activation(head):
    head.activation = nn.Tanh()


def tanh_of_the_outputs(head):
    forward = head.forward
    head.forward = lambda vectors: forward(vectors).tanh()


@pytest.mark.parametrize("change", [another_activation, tanh_of_the_outputs])
def test_a_head_with_exchanged_parts_is_given_when_its_model_is_loaded(change, tmp_path):
    deep = HeadConfig(dropout=(0.1, 0.1))
    model, dev = MultitaskModel(small_encoder(), {SIMILARITY: deep}), small_splits()["similarity"]
    change(model.heads["similarity"])
    model.save(tmp_path)
    with pytest.raises(EncoderError, match="head of similarity is none of ours; give it"):
        MultitaskModel.load(tmp_path)
    head = Head(SIMILARITY, 16, deep)
    change(head)
    loaded = MultitaskModel.load(tmp_path, heads={"similarity": head})
    assert np.array_equal(predict(loaded, dev), predict(model, dev))


def test_a_bert_with_hooks_is_saved_without_them(tmp_path):
    model = model_of(SIMILARITY)
    model.encoder.pooler.register_forward_hook(lambda module, inputs, output: None)  # looks on
    model.save(tmp_path)
    assert type(MultitaskModel.load(tmp_path).encoder) is BertModel


def test_a_plain_trainer_stays_plain_beside_a_fast_one_of_the_same_model(monkeypatch):
    model = model_of(SIMILARITY)
    plain = trainer_of(model, data_of(SIMILARITY))
    trainer_of(model, data_of(SIMILARITY), engine="fast")
    seen, forward = [], BertModel.forward
    monkeypatch.setattr(BertModel, "forward", lambda *a, **o: seen.append(1) or forward(*a, **o))
    plain.step()
    assert seen


def test_the_first_row_gives_the_order_of_the_sentences():
    task = Task("nli", sentences=2, outputs=3)
    rows = [
        {"premise": "a", "hypothesis": "b", "label": 0},
        {"hypothesis": "d", "label": 1, "premise": "c"},
    ]
    corpus = Corpus.from_examples({task: {"train": rows}})
    assert [e.sentences for e in corpus.splits["nli"]["train"]] == [("a", "b"), ("c", "d")]
    with pytest.raises(CorpusError, match="nli, train, row 1: 2 texts expected"):
        Corpus.from_examples({task: {"train": [rows[0], {"s1": "c", "s2": "d", "label": 1}]}})


def test_labels_are_all_there_or_none():
    task = Task("x", outputs=2)
    with pytest.raises(CorpusError, match="x, train: some rows have labels and some have none"):
        Corpus.from_examples({task: {"train": [("a", 0), ("b", None)]}})


def test_a_schedule_goes_on_from_the_rate_that_its_optimizer_began_with():
    model = model_of(SIMILARITY)
    optimizer = AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        options = {"optimizer": optimizer, "schedule": lambda step: 0.5}
        trainer_of(model, data_of(SIMILARITY), **options).step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_weighting_that_is_no_function_is_refused():
    with pytest.raises(ConfigError, match="weighting 'pcgrad': give a function"):
        trainer_of(model_of(SIMILARITY), data_of(SIMILARITY), weighting="pcgrad")
