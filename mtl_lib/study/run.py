"""One run, from its configuration to a stored result."""

import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_lib.data import Corpus
from mtl_lib.errors import NumericalError, RunError
from mtl_lib.evaluation import headline
from mtl_lib.files import replacing
from mtl_lib.methods.averaging import BestEpoch
from mtl_lib.parallel.data_parallel import LostProcess, Processes, data_parallel
from mtl_lib.pretrained import encoder_hash
from mtl_lib.study.build import build, constant_losses
from mtl_lib.study.by_label import is_constant
from mtl_lib.study.checkpoint import Checkpoint, Stopped, StopSignals
from mtl_lib.study.config import STUDY_VERSION, ExperimentConfig
from mtl_lib.study.gates import gate
from mtl_lib.study.resume import put_parameters, restore, state_of
from mtl_lib.study.store import Run, RunStore, run_key
from mtl_lib.tasks import BY_NAME
from mtl_lib.trainer import Callback, Fit, Trainer


def run_experiment(
    config: ExperimentConfig,
    corpus: Corpus,
    store: RunStore,
    on_epoch: Callable[[dict], None] | None = None,
    save_model: str | Path | None = None,
    wait: bool = True,
    processes: Processes | None = None,
) -> Run:
    """Train one configuration and store the run, or return it where it is stored already.

    An unfinished run goes on from its last checkpoint in the store, to the same bits on a CPU with
    the same number of threads.

    Args:
        on_epoch: called with each epoch's history entry while it trains.
        save_model: folder for the best epoch's model; a stored run is then trained again.
        wait: for another process that trains this run, and take its result.
        processes: those that share its steps; each of them calls this. The first alone reads and
            writes the store.

    Raises:
        ConfigError: if the corpus lacks a training or development set of one of the tasks.
        NumericalError: if a loss or a gradient becomes infinite or NaN.
        RunError: if the memory does not suffice, or the store cannot be written to.
        BusyError: if another process trains the run and `wait` is False.
        LostProcess: if one of `processes` is gone.
        Stopped: after Ctrl-C or SIGTERM, the state saved.
    """
    encoder_sha = encoder_hash(config.encoder)
    key = run_key(config.as_dict(), corpus.fingerprint, encoder_sha, STUDY_VERSION)
    folder = store.checkpoint_folder(config.as_dict(), key)
    if save_model:  # apart: this one keeps the best epoch's model as well
        folder = folder.with_name(f"{folder.name}-model")
    checkpoint = Checkpoint(folder)
    if processes and processes.rank:
        if run := processes.of_first(None):
            return run
        return _train(config, corpus, encoder_sha, key, SharedKeeper(checkpoint, processes))
    if not save_model and (run := store.get(key)):
        checkpoint.remove()  # a process may have been killed after it had stored the run
        return processes.of_first(run) if processes else run
    with store.lock(key, wait and not processes):  # the others would wait in vain
        if not save_model and (run := store.get(key)):  # trained by another process meanwhile
            return processes.of_first(run) if processes else run
        keeper = Keeper(checkpoint, on_epoch, bool(save_model))
        if processes:
            processes.of_first(None)
            keeper = SharedKeeper(checkpoint, processes, on_epoch, bool(save_model))
        run = _explained(
            lambda: _train(config, corpus, encoder_sha, key, keeper), config, checkpoint
        )
        if save_model:
            _move_model(folder / "model", Path(save_model))
        store.put(run)
        checkpoint.remove()
        return run


def _explained(train: Callable[[], Run], config: ExperimentConfig, checkpoint: Checkpoint) -> Run:
    """The result of training; of what can go wrong in it, what a user can do about it."""
    try:
        return train()
    except (NumericalError, LostProcess) as error:
        kept = checkpoint.path if checkpoint.path.exists() else "none yet"
        raise type(error)(f"{error}. Last good checkpoint: {kept}") from None
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        raise RunError(
            f"row {config.row}: out of memory with encoder {config.encoder}, batch size "
            f"{config.batch_size} and sentences of up to {config.max_length} tokens; run fewer at "
            "a time (`--jobs`) or choose a smaller encoder (`--encoder`)"
        ) from error


class Keeper(Callback):
    """Keeps a run's state in its checkpoint, its best epoch's model beside it, and stops it where
    it is asked to.

    Args:
        checkpoint: of the run.
        on_epoch: called with each epoch's history entry.
        save_model: whether the best epoch's model is kept.
    """

    alone = True  # whether no other process waits for this one

    def __init__(
        self,
        checkpoint: Checkpoint,
        on_epoch: Callable[[dict], None] | None = None,
        save_model: bool = False,
    ):
        self.checkpoint, self.on_epoch, self.save_model = checkpoint, on_epoch, save_model
        self.resumes = 0
        self.signals: StopSignals | None = None
        self._before, self._started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the run has taken, earlier processes included."""
        return self._before + time.perf_counter() - self._started

    def resume(self, trainer: Trainer) -> None:
        """Go on from the last checkpoint, if there is one."""
        if state := self.load():
            self._before, self.resumes = state["seconds"], state["resumes"] + 1
            restore(trainer, state)

    def load(self) -> dict[str, Any] | None:
        return self.checkpoint.load()

    def save(self, trainer: Trainer) -> None:
        self.checkpoint.save(state_of(trainer) | {"seconds": self.seconds, "resumes": self.resumes})

    def asked(self, trainer: Trainer) -> bool:
        """Whether the run is to stop after this step."""
        return bool(self.signals and self.signals.asked)

    def after_step(self, trainer: Trainer, gram: Tensor) -> None:
        if self.asked(trainer):
            raise Stopped
        if self.checkpoint.due():
            self.save(trainer)

    def after_best(self, trainer: Trainer) -> None:
        if self.save_model:
            trainer.model.save(self.checkpoint.folder / "model")

    def after_epoch(self, trainer: Trainer, entry: dict[str, Any]) -> None:
        self.save(trainer)
        if self.on_epoch:
            self.on_epoch(entry)


class SharedKeeper(Keeper):
    """The keeper of a run that several processes train: the first one writes, all stop at once.

    Args:
        checkpoint: of the run.
        processes: those that share its steps.
        options: further ones of `Keeper`.
    """

    alone = False

    def __init__(self, checkpoint: Checkpoint, processes: Processes, *options: Any) -> None:
        super().__init__(checkpoint, *options)
        self.processes = processes

    def resume(self, trainer: Trainer) -> None:
        """Share the steps, and go on from the checkpoint of the first process."""
        data_parallel(trainer, self.processes)
        super().resume(trainer)
        if self.resumes:
            torch.manual_seed(1000 * trainer.steps + self.processes.rank)  # dropout, apart in each

    def load(self) -> dict[str, Any] | None:
        state: dict[str, Any] | None = self.processes.of_first(
            None if self.processes.rank else super().load()
        )
        return state

    def save(self, trainer: Trainer) -> None:
        if not self.processes.rank:
            super().save(trainer)

    def asked(self, trainer: Trainer) -> bool:
        """Whether any process is asked to stop: at different steps they would wait for ever."""
        here = torch.tensor([float(super().asked(trainer))], device=trainer.device)
        self.processes.add_up(here)
        return bool(here)

    def after_best(self, trainer: Trainer) -> None:
        if not self.processes.rank:
            super().after_best(trainer)


def _train(
    config: ExperimentConfig, corpus: Corpus, encoder_sha: str, key: str, keeper: Keeper
) -> Run:
    """Train from the checkpoint, or from the start, to the end."""
    best = BestEpoch()  # where epochs are judged by a sample
    trainer, dev = build(config, corpus, [*([best] if config.dev_sample else []), keeper])
    keeper.resume(trainer)
    # An evaluation that others share is finished first.
    with StopSignals(now=lambda: keeper.alone and trainer.evaluating) as keeper.signals:
        try:
            fit = trainer.fit(
                config.epochs * config.epoch_factor,
                max_steps=config.max_steps,
                train_sample=config.train_sample,
            )
            if config.dev_sample:
                fit = _whole(trainer, fit, dev, best)
        except Stopped:
            keeper.save(trainer)
            raise Stopped(
                f"row {config.row}, seed {config.seed}: stopped after step {trainer.steps}, "
                f"kept in {keeper.checkpoint.folder}"
            ) from None
    return Run(
        config=config.as_dict(),
        metrics={"best": fit.best, "last": fit.last},
        history=fit.history,
        predictions=fit.logits,
        labels={name: split.labels.numpy() for name, split in dev.items()},
        ids={name: split.ids for name, split in dev.items()},
        provenance=_provenance(config, corpus, encoder_sha, trainer, fit, keeper),
        key=key,
    )


def _whole(trainer: Trainer, fit: Fit, dev: dict, best: BestEpoch) -> Fit:
    """The result with the best and the last epoch evaluated on whole development sets; the history
    stays that of the sample."""
    logits, scores = trainer.evaluate(dev)
    whole = replace(fit, last=fit.last | {"dev": scores})
    judged = [headline(entry["dev"]) for entry in fit.history]
    if judged.index(max(judged)) < len(judged) - 1:
        last = {name: p.detach().clone() for name, p in trainer.trainable().items()}
        best.apply_to(trainer.model)
        try:
            logits, scores = trainer.evaluate(dev)
        finally:  # whoever stops here finds the parameters of the last step
            put_parameters(trainer, last)
    return replace(whole, best=fit.best | {"dev": scores}, logits=logits)


def _provenance(
    config: ExperimentConfig,
    corpus: Corpus,
    encoder_sha: str,
    trainer: Trainer,
    fit: Fit,
    keeper: Keeper,
) -> dict[str, Any]:
    """What the run was: on what, of which versions, where, for how long."""
    memory = peak_memory()
    return {
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
        "constant_loss": constant_losses(trainer),
        # Tasks whose best epoch predicts the same for every development example.
        "constant_predictions": [
            name for name, logits in fit.logits.items() if is_constant(BY_NAME[name], logits)
        ],
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "seconds": round(keeper.seconds, 1),
        "resumes": keeper.resumes,
        "peak_memory_mb": memory and memory // 2**20,  # of the process, with its earlier runs
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if trainer.model.low_precision else "float32",
        "hardware": hardware(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "tokenizers")},
    }


def _out_of_memory(error: Exception) -> bool:
    words = ("can't allocate memory", "not enough memory")  # of torch's allocator on the CPU
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in str(error) for word in words
    )


def _move_model(source: Path, target: Path) -> None:
    """Put a finished model in its place, its weights last: a folder with weights is whole."""
    weights = "model.safetensors"
    with ExitStack() as files:  # copied: the disk may be another
        for path in sorted(source.iterdir(), key=lambda path: path.name != weights):
            shutil.copyfile(path, files.enter_context(replacing(target / path.name)))
        (target / weights).unlink(missing_ok=True)  # the weights of another model


def peak_memory() -> int | None:
    """The most memory that this process ever held, in bytes; None where the system does not say."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kept if platform.system() == "Darwin" else kept * 1024  # Linux counts in KiB


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
