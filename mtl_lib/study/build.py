"""From a configuration to a trainer: data, model, optimizer, loss terms."""

import os
import sys
from collections.abc import Sequence
from functools import partial

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mtl_lib.data import Corpus, TokenizedCorpus, TokenizedSplit, tokenize
from mtl_lib.errors import ConfigError
from mtl_lib.fast import has_fast_bfloat16
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.methods.averaging import WeightAverage
from mtl_lib.methods.rates import linear_warmup, parameter_groups
from mtl_lib.methods.sampling import SAMPLERS
from mtl_lib.model import Head, MultitaskModel
from mtl_lib.pretrained import load_encoder
from mtl_lib.study.by_label import constant_loss
from mtl_lib.study.config import ExperimentConfig
from mtl_lib.study.conflicts import ConflictLog
from mtl_lib.study.corpora import phrases
from mtl_lib.study.faulty_ports import CoupledAdam, PortTrainer, port_smoothness_term
from mtl_lib.study.frozen import FrozenModel, Memory
from mtl_lib.study.terms import class_weights, penalty_term, smoothness_term
from mtl_lib.study.weightings import WEIGHTINGS
from mtl_lib.tasks import TASKS
from mtl_lib.trainer import Callback, Schedule, Trainer


def build(
    config: ExperimentConfig, corpus: Corpus, callbacks: Sequence[Callback] = ()
) -> tuple[Trainer, dict[str, TokenizedSplit]]:
    """The trainer of a configuration, all its weights drawn from its seed, and the development
    sets by task, whole where the trainer judges by a sample.

    Raises:
        ConfigError: if the corpus lacks a training or development set of one of the tasks, or one
            is too small.
    """
    torch.manual_seed(config.seed)
    encoder, tokenizer = load_encoder(config.encoder)
    tokenizer.enable_truncation(cut_length(config, tokenizer))  # what a saved model will keep
    train = tokenized(corpus, "train", config, tokenizer)
    if config.phrases:
        train["sentiment"] = _with_phrases(train["sentiment"], corpus, config, tokenizer)
    dev = tokenized(corpus, "dev", config, tokenizer)
    model = _model(config, encoder, train)
    noise = torch.Generator().manual_seed(config.seed)
    log = ConflictLog(config.same_task_every)
    memory = [Memory(model)] if config.frozen else []
    average = [FinalAverage(config.average)] if config.average else []
    kind = PortTrainer if config.fault == "port-surgery" else Trainer
    trainer = kind(
        model,
        TokenizedCorpus(
            {n: {"train": train[n], "dev": dev[n].sample(config.dev_sample)} for n in config.heads},
            tokenizer,
        ),
        optimizer=_optimizer(config, model),
        weighting=WEIGHTINGS[config.weighting](len(config.heads)),
        batch_size=config.batch_size,
        seed=config.seed,
        engine="fast",
        terms=_loss_terms(config, noise),
        class_weights=_class_weights(config, train, model),
        generators={"smoothness": noise},
        steps_per_epoch=config.steps or _joint_epoch(config, corpus),
        clip=config.clip,
        callbacks=[log, *memory, *average, *callbacks],
    )
    log.check(trainer)
    total = _total_steps(config, trainer)
    trainer.schedule = _schedule(config, total)
    for callback in average:
        callback.until = total
    if config.sampler != "all":
        sizes = {name: len(split) for name, split in train.items()}
        trainer.sampler = SAMPLERS[config.sampler](sizes, total, config.seed)
    return trainer, dev


class FinalAverage(WeightAverage):
    """A moving average of the weights that takes their place after step `until`, the last one: it
    is what the last epoch's evaluation sees, and what is saved."""

    until = sys.maxsize

    def after_step(self, trainer: Trainer, gram: Tensor) -> None:
        super().after_step(trainer, gram)
        if trainer.steps == self.until:
            self.apply_to(trainer.model)


def _with_phrases(
    sentences: TokenizedSplit, corpus: Corpus, config: ExperimentConfig, tokenizer: Tokenizer
) -> TokenizedSplit:
    """Three copies of the sentences, then the treebank's phrases of enough words."""
    key = (corpus.fingerprint, tokenizer.to_str(), config.phrases)
    if key not in _PHRASES:
        examples = [e for e in phrases(corpus) if len(e.text.split()) >= config.phrases]
        _PHRASES.clear()
        _PHRASES[key] = tokenize(examples, sentences.task, tokenizer)
    further = _PHRASES[key]
    return TokenizedSplit(
        sentences.task,
        sentences.ids * 3 + further.ids,
        torch.cat([*[sentences.labels] * 3, further.labels]),
        [sentences.sentences[0] * 3 + further.sentences[0]],
    )


_PHRASES: dict[tuple[str, str, int], TokenizedSplit] = {}


def cut_length(config: ExperimentConfig, tokenizer: Tokenizer) -> int:
    """Tokens kept of a sentence: as configured, but no more than the encoder knows positions."""
    known = tokenizer.truncation["max_length"] if tokenizer.truncation else sys.maxsize
    return min(config.max_length, known)


def tokenized(
    corpus: Corpus, split: str, config: ExperimentConfig, tokenizer: Tokenizer
) -> dict[str, TokenizedSplit]:
    """One split of each of the configuration's tasks, tokenised once per process.

    Raises:
        ConfigError: if the corpus has no such split of a task.
    """
    for name in config.heads:
        _check_split(corpus, name, split, config)
    length = cut_length(config, tokenizer)
    cache_key = (corpus.fingerprint, tokenizer.to_str(), length)
    if cache_key not in _TOKENIZED:
        _TOKENIZED.clear()  # one corpus at a time in memory
    cache = _TOKENIZED.setdefault(cache_key, {})
    for name in config.heads:
        if (name, split) not in cache:
            examples = corpus.splits[name][split]
            found = tokenize(examples, corpus.tasks[name], tokenizer, length)
            at_the_cut = int((found.lengths == length).sum())
            if at_the_cut and length < config.max_length:
                print(
                    f"{name}, {split}: encoder {config.encoder} knows {length} positions; "
                    f"{at_the_cut} examples are cut there",
                    flush=True,
                )
            cache[name, split] = found
    return {name: cache[name, split] for name in config.heads}


def _check_split(corpus: Corpus, task: str, split: str, config: ExperimentConfig) -> None:
    if split not in corpus.splits.get(task, {}):
        raise ConfigError(
            f"row {config.row} needs the {split} split of {task}: corpus {corpus.name!r} has none"
        )


_TOKENIZED: dict[tuple[str, str, int], dict[tuple[str, str], TokenizedSplit]] = {}


def _model(config: ExperimentConfig, encoder, train: dict[str, TokenizedSplit]) -> MultitaskModel:
    kind = FrozenModel if config.frozen else MultitaskModel
    model = kind(encoder, dict(config.heads), config.sentence_vector)
    if config.label_mean_bias:
        for name, split in train.items():
            start_at_mean(model.heads[name], split.labels)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if torch.backends.mps.is_available():  # it has no float64, in which inner products are summed
        print("Apple's GPU is not used: the study runs on the CPU", flush=True)
    model.to(device)
    model.low_precision = config.bfloat16 and has_fast_bfloat16(device)
    # Every number of tokens makes new bfloat16 kernels: a step needs some hundred, a thousand kept
    # take 1 GB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    return model


def start_at_mean(head: Head, labels: Tensor) -> None:
    """Start a score's last bias at the mean of its training labels `[N]`, in place of near 0.

    Otherwise the first epochs go into learning it. A class's logits, and a cosine, which is on the
    labels' scale from the start, stay as they are.
    """
    if head.task.kind == "score" and head.config.features != "cosine":
        torch.nn.init.constant_(head.linears[-1].bias, labels.float().mean().item())


def _total_steps(config: ExperimentConfig, trainer: Trainer) -> int:
    steps = config.epochs * config.epoch_factor * trainer.steps_per_epoch
    return min(steps, config.max_steps or sys.maxsize)


def _schedule(config: ExperimentConfig, total: int) -> Schedule | None:
    if config.schedule != "linear":
        return None
    return partial(linear_warmup, warmup_steps=int(config.warmup * total), total_steps=total)


def _joint_epoch(config: ExperimentConfig, corpus: Corpus) -> int | None:
    """Steps of an epoch of all three tasks together, where the row asks for them."""
    if not config.joint_epochs:
        return None
    for task in TASKS:
        _check_split(corpus, task.name, "train", config)
    return min(len(corpus.splits[task.name]["train"]) for task in TASKS) // config.batch_size


def _optimizer(config: ExperimentConfig, model: MultitaskModel) -> FusedAdamW:
    """AdamW on all trainable parameters, the heads in a group of their own if they have a rate;
    with rates by layer, no decay of what is no matrix."""
    if config.layer_decay < 1:
        return FusedAdamW(
            parameter_groups(
                model, config.lr, config.head_lr, config.layer_decay, config.weight_decay
            )
        )
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if config.head_lr:
        groups = [{"params": model.shared_parameters()}] if not config.frozen else []
        groups.append({"params": list(model.heads.parameters()), "lr": config.head_lr})
    kind = CoupledAdam if config.fault == "coupled-decay" else FusedAdamW
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay)


def _loss_terms(config: ExperimentConfig, noise: torch.Generator) -> dict:
    terms = {}
    if config.penalty is not None:
        terms["similarity"] = [penalty_term("similarity", config.penalty, config.penalty_strength)]
    if config.smoothness:
        term = port_smoothness_term if config.fault == "port-smart" else smoothness_term
        terms["sentiment"] = [term(config.smoothness, noise)]
    return terms


def _class_weights(config: ExperimentConfig, train: dict, model: MultitaskModel) -> dict:
    if not config.class_weights:
        return {}
    split = train["sentiment"]
    weights = class_weights(split.labels, split.task.num_classes)
    return {"sentiment": weights.to(next(model.parameters()).device)}


def constant_losses(trainer: Trainer) -> dict[str, float]:
    """Of each task the mean training loss of the best constant answer, class weights included."""
    return {
        name: constant_loss(
            splits["train"].task, splits["train"].labels.numpy(), trainer.class_weights.get(name)
        )
        for name, splits in trainer.data.items()
    }
