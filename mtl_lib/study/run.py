"""One run, from its configuration to a stored result."""

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from mtl_lib.data import Corpus, TokenizedSplit, tokenize
from mtl_lib.errors import ConfigError, NumericalError, RunError
from mtl_lib.evaluation import constant_loss, is_constant
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.model import MultitaskModel, has_fast_bfloat16
from mtl_lib.optim import linear_warmup
from mtl_lib.pretrained import encoder_hash, load_encoder
from mtl_lib.study.checkpoint import Checkpoint, Stopped, StopSignals
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.faulty_ports import CoupledAdam, PortTrainer, port_smoothness_term
from mtl_lib.study.gates import gate
from mtl_lib.study.store import Run, RunStore, run_key
from mtl_lib.tasks import BY_NAME, TASKS
from mtl_lib.trainer import Trainer, class_weights, penalty_term, smoothness_term
from mtl_lib.weighting import WEIGHTINGS


def run_experiment(
    config: ExperimentConfig,
    corpus: Corpus,
    store: RunStore,
    on_epoch: Callable[[dict], None] | None = None,
    save_model: str | Path | None = None,
    wait: bool = True,
) -> Run:
    """Train one configuration and store the run, or return it where it is stored already.

    An unfinished run goes on from its last checkpoint in the store, to the same bits on a CPU with
    the same number of threads.

    Args:
        on_epoch: called with each epoch's history entry while it trains.
        save_model: folder for the best epoch's model; a stored run is then trained again.
        wait: for another process that trains this run, and take its result.

    Raises:
        ConfigError: if the corpus lacks a training or development set of one of the tasks.
        NumericalError: if a loss or a gradient becomes infinite or NaN.
        RunError: if the memory does not suffice, or the store cannot be written to.
        BusyError: if another process trains the run and `wait` is False.
        Stopped: after Ctrl-C or SIGTERM, the state saved.
    """
    encoder_sha = encoder_hash(config.encoder)
    key = run_key(config.as_dict(), corpus.fingerprint, encoder_sha, STUDY_VERSION)
    folder = store.checkpoint_folder(config.as_dict(), key)
    if save_model:  # apart: this one keeps the best epoch's model as well
        folder = folder.with_name(f"{folder.name}-model")
    checkpoint = Checkpoint(folder)
    if not save_model and (run := store.get(key)):
        checkpoint.remove()  # a process may have been killed after it had stored the run
        return run
    with store.lock(key, wait):
        if not save_model and (run := store.get(key)):  # trained by another process meanwhile
            return run
        try:
            run = _train_run(
                config, corpus, encoder_sha, key, checkpoint, on_epoch, bool(save_model)
            )
        except NumericalError as error:
            kept = checkpoint.path if checkpoint.path.exists() else "none yet"
            raise NumericalError(f"{error}. Last good checkpoint: {kept}") from None
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise RunError(
                f"row {config.row}: out of memory with encoder {config.encoder}, batch size "
                f"{config.batch_size} and sentences of up to {config.max_length} tokens; lower "
                "JOBS (runs at a time) or choose a smaller ENCODER"
            ) from error
        if save_model:
            _move_model(folder / "model", Path(save_model))
        store.put(run)
        checkpoint.remove()
        return run


def _train_run(
    config: ExperimentConfig,
    corpus: Corpus,
    encoder_sha: str,
    key: str,
    checkpoint: Checkpoint,
    on_epoch: Callable[[dict], None] | None,
    save_model: bool,
) -> Run:
    """Train from the checkpoint, or from the start, to the end."""
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    encoder, tokenizer = load_encoder(config.encoder)
    train = tokenized(corpus, "train", config, tokenizer)
    dev = tokenized(corpus, "dev", config, tokenizer)
    model = MultitaskModel(encoder, dict(config.heads), config.sentence_vector)
    if config.label_mean_bias:
        for name, split in train.items():
            model.heads[name].start_at_mean(split.labels)
    if config.frozen:
        model.freeze()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    model.bfloat16 = config.bfloat16 and has_fast_bfloat16(device)
    # Every number of tokens makes new bfloat16 kernels: a step needs some hundred, a thousand kept
    # take 1 GB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    noise = torch.Generator().manual_seed(config.seed)
    epoch = _joint_epoch(config, corpus)
    kind = PortTrainer if config.fault == "port-surgery" else Trainer
    trainer = kind(
        model,
        train,
        optimizer=_optimizer(config, model),
        weighting=WEIGHTINGS[config.weighting],
        batch_size=config.batch_size,
        seed=config.seed,
        terms=_loss_terms(config, noise),
        class_weights=_class_weights(config, train, device),
        generators={"smoothness": noise},
        same_task_every=config.same_task_every,
        steps_per_epoch=epoch,
        clip=config.clip,
    )
    epochs = config.epochs * config.epoch_factor
    if config.schedule == "linear":
        total = min(epochs * trainer.steps_per_epoch, config.max_steps or sys.maxsize)
        trainer.schedule = partial(
            linear_warmup, warmup_steps=int(config.warmup * total), total_steps=total
        )
    before = {"seconds": 0.0, "resumes": 0}
    if state := checkpoint.load():
        before = {"seconds": state["seconds"], "resumes": state["resumes"] + 1}
        trainer.load_state_dict(state)

    def seconds() -> float:
        return before["seconds"] + time.perf_counter() - started

    def save() -> None:
        checkpoint.save(trainer.state_dict() | before | {"seconds": seconds()})

    def after_step() -> None:
        if signals.asked:
            raise Stopped
        if checkpoint.due():
            save()

    def after_epoch(entry: dict) -> None:
        save()
        if on_epoch:
            on_epoch(entry)

    with StopSignals(now=lambda: trainer.evaluating) as signals:
        try:
            fit = trainer.fit(
                dev,
                {name: _sample(split, config.train_sample) for name, split in train.items()},
                epochs=epochs,
                max_steps=config.max_steps,
                dev_sample={name: _sample(split, config.dev_sample) for name, split in dev.items()}
                if config.dev_sample
                else None,
                on_step=after_step,
                on_epoch=after_epoch,
                on_best=(lambda: model.save(checkpoint.folder / "model", tokenizer))
                if save_model
                else None,
            )
        except Stopped:
            save()
            raise Stopped(
                f"row {config.row}, seed {config.seed}: stopped after step {trainer.steps}, "
                f"kept in {checkpoint.folder}"
            ) from None
    return Run(
        config=config.as_dict(),
        metrics={"best": fit.best, "last": fit.last},
        history=fit.history,
        predictions=fit.logits,
        labels={name: split.labels.numpy() for name, split in dev.items()},
        ids={name: split.ids for name, split in dev.items()},
        provenance={
            "study_version": STUDY_VERSION,
            "corpus": {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "files": corpus.files,
                "skipped_rows": len(corpus.skipped),
                "notes": corpus.notes,
            },
            "encoder": {"name": config.encoder, "sha256": encoder_sha},
            "steps": trainer.steps,
            "constant_loss": _constant_losses(train, trainer.class_weights),
            # Tasks whose best epoch predicts the same for every development example.
            "constant_predictions": [
                name for name, logits in fit.logits.items() if is_constant(BY_NAME[name], logits)
            ],
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": round(seconds(), 1),
            "resumes": before["resumes"],
            "peak_memory_mb": peak_memory() // 2**20,  # of the process, with its earlier runs
            "threads": torch.get_num_threads(),
            "precision": "bfloat16" if model.bfloat16 else "float32",
            "hardware": hardware(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "numpy", "tokenizers")},
        },
        key=key,
    )


def _out_of_memory(error: Exception) -> bool:
    words = ("can't allocate memory", "not enough memory")  # of torch's allocator on the CPU
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in words
    )


def _move_model(source: Path, target: Path) -> None:
    """Put a finished model in its place, its weights last: a folder with weights is whole."""
    target.mkdir(parents=True, exist_ok=True)
    paths = sorted(source.iterdir(), key=lambda path: path.suffix == ".safetensors")
    for path in paths:
        shutil.copyfile(path, target / f"{path.name}.tmp")  # not a rename: the disk may be another
    (target / paths[-1].name).unlink(missing_ok=True)  # the weights of another model
    for path in paths:
        os.replace(target / f"{path.name}.tmp", target / path.name)


def tokenized(
    corpus: Corpus, split: str, config: ExperimentConfig, tokenizer
) -> dict[str, TokenizedSplit]:
    """One split of each of the configuration's tasks, tokenised once per process.

    Raises:
        ConfigError: if the corpus has no such split of a task.
    """
    for name in config.heads:
        _check_split(corpus, name, split, config)
    cache_key = (corpus.fingerprint, tokenizer.to_str(), config.max_length)
    if cache_key not in _TOKENIZED:
        _TOKENIZED.clear()  # one corpus at a time in memory
    cache = _TOKENIZED.setdefault(cache_key, {})
    for name in config.heads:
        if (name, split) not in cache:
            examples = corpus.splits[name][split]
            cache[name, split] = tokenize(examples, BY_NAME[name], tokenizer, config.max_length)
    return {name: cache[name, split] for name in config.heads}


def _check_split(corpus: Corpus, task: str, split: str, config: ExperimentConfig) -> None:
    if split not in corpus.splits.get(task, {}):
        raise ConfigError(
            f"row {config.row} needs the {split} split of {task}: corpus {corpus.name!r} has none"
        )


_TOKENIZED: dict[tuple, dict[tuple[str, str], TokenizedSplit]] = {}


def _sample(split: TokenizedSplit, size: int | None) -> TokenizedSplit:
    """The fixed sample on which training metrics are measured: the same for every run."""
    if size is None or size >= len(split):
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.take(order[:size])


def _joint_epoch(config: ExperimentConfig, corpus: Corpus) -> int | None:
    """Steps of an epoch of all three tasks together, where the row asks for them."""
    if not config.joint_epochs:
        return None
    for task in TASKS:
        _check_split(corpus, task.name, "train", config)
    return min(len(corpus.splits[task.name]["train"]) for task in TASKS) // config.batch_size


def _optimizer(config: ExperimentConfig, model: MultitaskModel) -> FusedAdamW:
    """AdamW on all trainable parameters; the heads in a group of their own if they have a rate."""
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


def _constant_losses(train: dict[str, TokenizedSplit], weights: dict) -> dict[str, float]:
    """Of each task the mean training loss of the best constant answer, class weights included."""
    return {
        name: constant_loss(split.task, split.labels.numpy(), weights.get(name))
        for name, split in train.items()
    }


def _class_weights(config: ExperimentConfig, train: dict, device: torch.device) -> dict:
    if not config.class_weights:
        return {}
    split = train["sentiment"]
    return {"sentiment": class_weights(split.labels, split.task.num_classes).to(device)}


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes."""
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept if sys.platform == "darwin" else kept * 1024  # Linux counts in KiB


def hardware() -> str:
    """The machine in words: processor architecture, cores, GPU."""
    words = f"{platform.machine()}, {os.cpu_count()} cores"
    return f"{words}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else words


def summary(run: Run) -> str:
    """A run in one line: row, seed, development metrics of its best epoch, time."""
    scores = ", ".join(
        f"{name} {values[BY_NAME[name].metric]:.3f}"
        for name, values in run.metrics["best"]["dev"].items()
    )
    config = run.config
    held = gate(run, run.config["heads"])
    warning = f"; {held}" if held else ""
    return (
        f"{config['row']} {config['name']}, seed {config['seed']}: dev {scores} "
        f"({run.provenance['steps']} steps, {run.provenance['seconds']:.0f} s){warning}"
    )
