"""Several processes take the steps that one takes: gloo, on this machine, without dropout."""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small import small_data, small_model

from mtl_lib.errors import RunError
from mtl_lib.fast.fused import FusedAdamW
from mtl_lib.parallel.data_parallel import LostProcess, Processes, data_parallel
from mtl_lib.study.checkpoint import Checkpoint
from mtl_lib.study.resume import restore, state_of
from mtl_lib.study.terms import class_weights, penalty_term, smoothness_term
from mtl_lib.trainer import ENGINES, Trainer
from mtl_lib.weighting import pcgrad_weights

SEVEN = 7  # examples a batch: no two or four processes share it evenly


@dataclass
class Ran:
    """What a training left behind."""

    losses: list[dict[str, float]] = field(default_factory=list)
    grams: list[torch.Tensor] = field(default_factory=list)
    parameters: torch.Tensor | None = None
    logits: dict[str, np.ndarray] = field(default_factory=dict)


def trainer_of(engine: str, dtype: torch.dtype, batch_size: int = SEVEN, extras: bool = True):
    """Surgery, SMART, a penalty, class weights, clipping and a schedule at once."""
    model = small_model(dropout=0.0, dtype=dtype)
    noise = torch.Generator().manual_seed(3)
    # Where SMART's term counts beside the loss, its change of 1e-5 drowns in float32's rounding.
    strength = 1e8 if dtype == torch.float64 else 1.0
    options = {}
    if extras:
        options = {
            "terms": {
                "similarity": [penalty_term("similarity", 2, 0.5)],
                "sentiment": [smoothness_term(strength, noise), penalty_term("sentiment", 1, 0.1)],
            },
            "class_weights": {"sentiment": class_weights([0, 1, 1, 2, 3, 4], 5).to(dtype)},
            "generators": {"smoothness": noise},
            "clip": 0.5,
            "schedule": lambda step: 1 / (1 + step),
        }
    return Trainer(
        model,
        small_data(),
        optimizer=FusedAdamW(model.parameters(), lr=1e-3),
        weighting=pcgrad_weights,
        batch_size=batch_size,
        engine=engine,
        **options,
    )


def train(trainer: Trainer, steps: int = 10) -> Ran:
    ran = Ran()
    for _ in range(steps):
        losses, gram = trainer.step()
        ran.losses.append(losses)
        ran.grams.append(gram)
    ran.parameters = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    ran.logits, _ = trainer.evaluate({n: s["dev"] for n, s in trainer.data.items()})
    return ran


def in_process(rank: int, size: int, file: str, folder: str, arguments: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=size)
    trainer = trainer_of(*arguments)
    processes = data_parallel(trainer)
    ran = train(trainer)
    torch.save((ran, processes.sent), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_processes(size: int, folder: Path, *arguments) -> list[tuple[Ran, int]]:
    """What each of some processes has, and how many bytes it sent."""
    given = (size, folder / "store", str(folder), arguments)
    mp.start_processes(in_process, given, nprocs=size, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_ten_steps_of_several_processes_are_those_of_one(engine, size, dtype, rtol, tmp_path):
    alone = train(trainer_of(engine, dtype))
    together = in_processes(size, tmp_path, engine, dtype)
    for ran, _ in together:
        assert torch.equal(ran.parameters, together[0][0].parameters)  # the same to the bit
        for mine, theirs in zip(ran.losses, alone.losses, strict=True):
            assert mine == pytest.approx(theirs, rel=10 * rtol)
        for mine, theirs in zip(ran.grams, alone.grams, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=10 * rtol, atol=10 * rtol)
        torch.testing.assert_close(ran.parameters, alone.parameters, rtol=rtol, atol=rtol)
        for name, logits in alone.logits.items():
            np.testing.assert_allclose(ran.logits[name], logits, rtol=10 * rtol, atol=10 * rtol)


def test_a_process_without_an_example_takes_part(tmp_path):
    alone = train(trainer_of("fast", torch.float64, 3))
    for ran, _ in in_processes(4, tmp_path, "fast", torch.float64, 3):
        torch.testing.assert_close(ran.parameters, alone.parameters, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("rank", "size", "count"), [(3, 4, 2), (9, 16, 8), (0, 4, 2)])
def test_every_example_is_one_processs_however_many_there_are(rank, size, count):
    def share(rank):
        processes = Processes.__new__(Processes)
        processes.rank, processes.size = rank, size
        return Processes.share(processes, count).tolist()

    assert share(rank) == list(range(rank, count, size))
    assert sorted(sum(map(share, range(size)), [])) == list(range(count))


def test_without_a_process_group_it_says_how_to_start():
    with pytest.raises(RunError, match="torchrun"):
        data_parallel(trainer_of("fast", torch.float32))


def half_way(rank: int, size: int, file: str, folder: str, engine: str) -> None:
    """Train five steps from the state in a folder, or from the start, and leave the state there."""
    torch.set_num_threads(1)
    processes = None
    trainer = trainer_of(engine, torch.float64)
    if size > 1:
        dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=size)
        processes = data_parallel(trainer)
    checkpoint = Checkpoint(Path(folder))
    if state := checkpoint.load():
        restore(trainer, state)
    for _ in range(5):
        trainer.step()
    if processes:
        processes.gathered(None)  # all have read it
    if not rank:
        checkpoint.save(state_of(trainer))


@pytest.mark.parametrize("sizes", [(2, 1), (1, 2), (4, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_processes(sizes, tmp_path):
    for number, size in enumerate(sizes):
        given = (size, tmp_path / f"store{number}", str(tmp_path / "state"), "fast")
        mp.start_processes(half_way, given, nprocs=size, start_method="fork")
    alone, found = train(trainer_of("fast", torch.float64)), trainer_of("fast", torch.float64)
    restore(found, Checkpoint(tmp_path / "state").load())
    parameters = torch.cat([p.detach().flatten() for p in found.model.parameters()])
    assert found.steps == 10
    torch.testing.assert_close(parameters, alone.parameters, rtol=1e-10, atol=1e-10)


def loses_one(rank: int, size: int, file: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=size)
    trainer = trainer_of("fast", torch.float64)
    data_parallel(trainer)
    trainer.step()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        while True:
            trainer.step()
    except LostProcess as error:
        same = all(map(torch.equal, trainer.model.parameters(), before))
        Path(folder, f"{rank}.txt").write_text(f"{error}; parameters as before: {same}")
        os._exit(0)


def test_who_loses_a_process_says_so_and_has_the_parameters_of_the_step_before(tmp_path):
    given = (3, str(tmp_path / "store"), str(tmp_path))
    context = mp.get_context("fork")  # started one by one: together they would be ended together
    processes = [context.Process(target=loses_one, args=(rank, *given)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    words = [path.read_text() for path in tmp_path.glob("*.txt")]
    assert len(words) == 2
    for text in words:
        assert "another one is gone" in text
        assert text.endswith("parameters as before: True")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bytes_sent_are_those_of_the_model(engine, tmp_path):
    """T gradients of P numbers, and of the word embeddings the step's words alone."""
    trainer = trainer_of(engine, torch.float32, extras=False)
    batches = [[next(stream) for stream in trainer.streams.values()] for _ in range(10)]
    words = [torch.cat([b.input_ids.flatten() for b in step]).unique().numel() for step in batches]
    table = trainer.model.encoder.embeddings.word_embeddings.weight
    shared = sum(p.numel() for p in trainer.model.shared_parameters()) - table.numel()
    heads = sum(p.numel() for p in trainer.model.heads.parameters())
    tasks, hidden = len(trainer.data), table.shape[1]
    numbers = sum(tasks * (shared + u * hidden) + heads + 2 * tasks + 1 for u in words)
    for _, sent in in_processes(2, tmp_path, engine, torch.float32, SEVEN, False):
        assert sent == 4 * numbers


BYTES_SENT = 200  # where Linux has the count in what it tells of a TCP connection


def sent_by_sockets() -> int:
    """Bytes that this process has put on the wire by its TCP connections (Linux)."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            connection = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # no socket
            continue
        with connection:
            if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
                total += struct.unpack_from("Q", told, BYTES_SENT)[0]
    return total


def measured(rank: int, size: int, file: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=size)
    trainer = trainer_of("fast", torch.float32, extras=False)
    processes = data_parallel(trainer)
    trainer.step()  # the connections are there
    before, buffers = sent_by_sockets(), processes.sent
    for _ in range(10):
        trainer.step()
    torch.save((sent_by_sockets() - before, processes.sent - buffers), f"{folder}/{rank}.pt")
    processes.gathered(None)
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="the system's count is Linux's")
@pytest.mark.parametrize("size", [2, 4])
def test_the_bytes_on_the_wire_are_those_of_a_ring(size, tmp_path):
    """Each process sends 2 (N - 1) / N of every buffer: (N - 1) / N to sum, as many to share."""
    given = (size, tmp_path / "store", str(tmp_path))
    mp.start_processes(measured, given, nprocs=size, start_method="fork")
    for rank in range(size):
        wire, buffers = torch.load(tmp_path / f"{rank}.pt")
        assert wire == pytest.approx(2 * (size - 1) / size * buffers, rel=0.1)


ROOT = Path(__file__).resolve().parents[1]


def torchrun(build: Path, *arguments: str, steps: int = 30) -> subprocess.Popen:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "mtl_lib", "train"]
    given = [*arguments, "--max-steps", str(steps)]
    environment = os.environ | {"MTL_BUILD": str(build), "MTL_CHECKPOINT_SECONDS": "0"}
    return subprocess.Popen(
        [sys.executable, *command, *given],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_a_run_that_loses_a_process_ends_with_a_line_and_goes_on(tmp_path):
    first = torchrun(tmp_path, "3.2")
    deadline = time.monotonic() + 300
    state = tmp_path / "runs" / "quick" / "checkpoints"
    while not list(state.glob("*/state.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-P", str(first.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    words = first.communicate(timeout=300)[0]
    assert first.returncode
    assert "another one is gone" in words or "SIGKILL" in words
    assert list(state.glob("*/state.safetensors"))
    again = torchrun(tmp_path, "3.2")
    words = again.communicate(timeout=600)[0]
    assert not again.returncode, words
    assert "(30 steps" in words
