"""The ladder of chapter 12 and the final model: one change a rung, and what is shipped."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from fake_runs import fake_run
from small import small_corpus, small_encoder, small_model, small_splits, small_tokenizer

from mtl_lib.data import Corpus, SentenceExample
from mtl_lib.errors import ConfigError, CorpusError
from mtl_lib.evaluation import predict
from mtl_lib.methods.quantized import load_quantized
from mtl_lib.model import HeadConfig, MultitaskModel
from mtl_lib.study import corpora, final, ladder
from mtl_lib.study.build import FinalAverage, build
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.study.config import ExperimentConfig, paper_heads
from mtl_lib.study.groups import corpus_notes
from mtl_lib.study.profiles import ALL_PROFILES, FURTHER
from mtl_lib.study.resume import restore, state_of
from mtl_lib.study.rows import FINISHED, LADDER
from mtl_lib.study.run import run_experiment
from mtl_lib.study.store import RunStore
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.tasks import SIMILARITY
from mtl_lib.trainer import Trainer

RUNGS = list(LADDER)


def changed(row: str, below: str) -> set[str]:
    a, b = asdict(LADDER[row]), asdict(LADDER[below])
    return {name for name in a if a[name] != b[name]} - {"row", "name"}


def test_each_rung_changes_one_thing():
    changes = [changed(*pair) for pair in zip(RUNGS[1:], RUNGS, strict=False)]
    assert changes == [
        {"heads"},
        {"heads"},
        {"sampler", "batch_size"},
        {"schedule", "warmup", "lr", "layer_decay", "weight_decay"},
        {"average"},
        {"phrases"},
    ]


def test_a_step_holds_as_many_examples_on_every_rung():
    for row, config in LADDER.items():
        tasks = 3 if config.sampler == "all" else 1
        assert tasks * config.batch_size in (32, 33), row


def test_the_mean_rate_of_the_schedule_is_that_of_the_rung_below():
    below, rung = LADDER["ladder-sampler"], LADDER["ladder-schedule"]
    assert rung.lr / 2 == below.lr


def test_the_final_model_is_the_last_rung_with_more_steps():
    last = LADDER[RUNGS[-1]]
    assert FINISHED["final"] == replace(last, row="final", name="the final model")
    short, long = FURTHER["ladder"], FURTHER["final"]
    assert long.instrument["steps"] > short.instrument["steps"]
    assert long.instrument | {"steps": 0} == short.instrument | {"steps": 0}


def test_the_gain_of_a_rung_is_over_the_rung_below_that_was_run():
    runs = [
        fake_run(row, seed, noise=noise, size=400)
        for row, noise in zip(RUNGS[:3], (2.0, 1.5, 1.0), strict=True)
        for seed in (0, 1)
    ]
    found = ladder.rungs(runs).set_index(["rung", "task"])
    names = [LADDER[row].name for row in RUNGS[:3]]
    scores = [found.loc[(name, "sentiment"), "score"] for name in names]
    gains = [found.loc[(name, "sentiment"), "gain"] for name in names]
    assert np.isnan(gains[0])
    assert gains[1:] == pytest.approx(np.diff(scores))
    assert (found["low"].dropna() < found["high"].dropna()).all()


def test_without_a_rung_the_next_is_compared_with_the_one_below_it():
    runs = [fake_run(row, 0, size=100) for row in (RUNGS[0], RUNGS[2])]
    found = ladder.rungs(runs).set_index(["rung", "task"])["gain"]
    assert not np.isnan(found[LADDER[RUNGS[2]].name, "average"])


# --- what the rungs switch on --------------------------------------------------------------------

SHORT = {"profile": "small", "epochs": 1, "max_length": 32, "lr": 1e-2, "batch_size": 4}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    from mtl_lib.pretrained import save_encoder

    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder, small_encoder(), small_tokenizer())
    return str(folder)


def config_of(encoder, **changes) -> ExperimentConfig:
    return ExperimentConfig("small", "small", encoder=encoder, **SHORT | {"steps": 6} | changes)


def test_the_number_of_steps_is_an_epoch_of_its_own(encoder):
    trainer, _ = build(config_of(encoder, steps=9), small_corpus())
    assert trainer.steps_per_epoch == 9


def test_a_configured_sampler_decides_the_tasks_of_a_step(encoder):
    trainer, _ = build(config_of(encoder, sampler="round-robin"), small_corpus())
    seen = [list(trainer.step()[0]) for _ in range(4)]
    assert seen == [["sentiment"], ["paraphrase"], ["similarity"], ["sentiment"]]


def test_the_average_stands_in_the_model_when_the_training_ends(encoder):
    trainer, _ = build(config_of(encoder, average=0.5), small_corpus())
    (average,) = [c for c in trainer.callbacks if isinstance(c, FinalAverage)]
    parameter = dict(trainer.model.named_parameters())["heads.similarity.linears.0.weight"]
    for last in (False, False, False, False, False, True):
        trainer.step()
        average.after_step(trainer, None)
        value = average.values["heads.similarity.linears.0.weight"]
        assert torch.equal(parameter, value) is (last or average.count == 1)


def test_rates_by_layer_reach_the_optimizer(encoder):
    config = config_of(encoder, layer_decay=0.5, head_lr=1e-1, weight_decay=0.1)
    trainer, _ = build(config, small_corpus())
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {1e-2 * 0.25, 1e-2 * 0.5, 1e-2, 1e-1}


@pytest.mark.parametrize("weighting", [w for w in WEIGHTINGS if w not in ("sum", "pcgrad")])
def test_every_kind_of_weighting_trains_a_row(weighting, encoder, tmp_path):
    run = run_experiment(
        config_of(encoder, weighting=weighting), small_corpus(), RunStore(tmp_path)
    )
    assert set(run.history[0]["loss"]) == {"sentiment", "paraphrase", "similarity"}


def test_fixed_weights_of_three_tasks_are_refused_for_one(encoder):
    with pytest.raises(ConfigError, match="for three tasks"):
        config_of(encoder, weighting="static-4-1-1", heads={"sentiment": HeadConfig()})


def test_a_sampler_of_one_task_leaves_a_weighting_nothing_to_weigh(encoder):
    with pytest.raises(ConfigError, match="nothing to weigh"):
        config_of(encoder, sampler="sqrt", weighting="pcgrad")


def test_a_frozen_encoder_does_not_read_pairs_together(encoder):
    heads = paper_heads(paraphrase=HeadConfig(features="together"))
    with pytest.raises(ConfigError, match="frozen encoder remembers sentences"):
        config_of(encoder, frozen=True, heads=heads)


@pytest.mark.parametrize("weighting", ["famo", "uncertainty", "dwa", "gradvac"])
def test_a_weightings_memory_is_in_the_checkpoint_from_the_first_step_on(
    weighting, encoder, tmp_path
):
    gram = torch.tensor([[1.0, -0.5, 0.1], [-0.5, 2.0, 0.0], [0.1, 0.0, 1.0]], dtype=torch.float64)
    for steps in (0, 1):
        trainer, _ = build(config_of(encoder, weighting=weighting), small_corpus())
        for _ in range(steps):
            trainer.step()
        checkpoint = Checkpoint(tmp_path / str(steps))
        checkpoint.save(state_of(trainer))
        other, _ = build(config_of(encoder, weighting=weighting), small_corpus())
        restore(other, checkpoint.load())
        weights = []
        for one in (trainer.weighting, other.weighting):
            if hasattr(one, "see"):
                one.see(torch.tensor([1.0, 2.0, 0.5]))
            weights.append(one(gram, torch.Generator().manual_seed(0)))
        assert torch.equal(*weights)


def test_a_run_that_learned_from_phrases_says_so():
    run, plain = fake_run("ladder-phrases", notes=("a file",)), fake_run("ladder-average")
    run.config["phrases"] = 4
    assert corpus_notes([plain]) == []
    assert corpus_notes([plain, run])[-1].endswith(
        "more than the class gives, in row ladder-phrases"
    )


# --- phrases --------------------------------------------------------------------------------------

PHRASES = "phrase\tsentiment\na fine film\t3\nnot a dull scene at all\t3\nbad\t0\n"


@pytest.fixture
def with_phrases(tmp_path, monkeypatch) -> Corpus:
    import hashlib

    (tmp_path / "corpus").mkdir()
    (tmp_path / "extra").mkdir()
    path = tmp_path / "extra" / corpora.PHRASES
    path.write_text(PHRASES, encoding="utf-8")
    monkeypatch.setattr(
        corpora, "PHRASES_SHA256", hashlib.sha256(PHRASES.encode("utf-8")).hexdigest()
    )
    return replace(small_corpus(), folder=tmp_path / "corpus")


def test_phrases_are_read_from_beside_the_corpus(with_phrases):
    found = corpora.phrases(with_phrases)
    assert found[0] == SentenceExample("phrase-0", "a fine film", 3)
    assert len(found) == 3


def test_a_row_with_phrases_learns_from_those_of_enough_words_and_three_copies(
    with_phrases, encoder
):
    trainer, _ = build(config_of(encoder, phrases=3), with_phrases)
    split = trainer.data["sentiment"]["train"]
    sentences = len(with_phrases.splits["sentiment"]["train"])
    assert len(split) == 3 * sentences + 2
    assert split.ids[-2:] == ["phrase-0", "phrase-1"]
    assert split.labels[-2:].tolist() == [3, 3]
    dev = trainer.data["sentiment"]["dev"]
    assert len(dev) == len(with_phrases.splits["sentiment"]["dev"])


def test_other_phrases_than_the_known_ones_are_refused(with_phrases, monkeypatch):
    monkeypatch.setattr(corpora, "PHRASES_SHA256", "0" * 64)
    with pytest.raises(CorpusError, match="SHA-256"):
        corpora.phrases(with_phrases)


def test_a_corpus_without_phrases_is_named_with_the_remedy(tmp_path):
    with pytest.raises(CorpusError, match="put it there"):
        corpora.phrases(replace(small_corpus(), folder=tmp_path))


# --- what is shipped ------------------------------------------------------------------------------


def test_a_pair_is_answered_the_same_from_either_side():
    heads = paper_heads(similarity=HeadConfig((0.0,), features="together"))
    model = MultitaskModel(small_encoder(), heads)
    split = small_splits()["similarity"]
    turned = replace(split, sentences=split.sentences[::-1])
    ours, other = (final.predict_in_both_orders(model, s) for s in (split, turned))
    np.testing.assert_allclose(ours, other, atol=1e-6)
    assert not np.allclose(predict(model, split), predict(model, turned), atol=1e-4)


def test_single_sentences_are_answered_as_ever():
    model, split = small_model(), small_splits()["sentiment"]
    assert np.array_equal(final.predict_in_both_orders(model, split), predict(model, split))


def test_the_shipped_folder_holds_model_scores_card_and_predictions(encoder, tmp_path):
    corpus = small_corpus(size=40, seed=3)
    for task in corpus.splits.values():
        task["test"] = [replace(example, label=None) for example in task["dev"]]
    config = config_of(encoder)
    store, models, folder = RunStore(tmp_path / "runs"), tmp_path / "models", tmp_path / "shipped"
    run, trained = final.trained(config, corpus, store, models)
    paths = final.ship(trained, run, corpus, folder, tmp_path / "predictions")
    scores = json.loads((folder / final.SCORES).read_text(encoding="utf-8"))
    for name, of_task in scores["tasks"].items():
        assert of_task["shipped"] == pytest.approx(of_task["trained"], abs=0.15), name
        assert of_task["low"] <= of_task["high"]
    assert "| sentiment | accuracy |" in (folder / final.CARD).read_text(encoding="utf-8")
    assert load_quantized(folder).tasks["similarity"] == SIMILARITY
    names = {path.name for path in paths if path.parent.name == "predictions"}
    assert names == {"sst-test-output.csv", "para-test-output.csv", "sts-test-output.csv"}


def test_a_finished_training_of_the_final_model_is_not_repeated(encoder, tmp_path, monkeypatch):
    config, store = config_of(encoder), RunStore(tmp_path / "runs")
    first = final.trained(config, small_corpus(), store, tmp_path / "models")
    monkeypatch.setattr(Trainer, "step", None)
    assert final.trained(config, small_corpus(), store, tmp_path / "models")[1] == first[1]


def test_every_profile_can_be_chosen_by_a_command():
    from mtl_lib.cli import _parser

    for name in ALL_PROFILES:
        assert _parser().parse_args(["sweep", "--profile", name]).profile == name
