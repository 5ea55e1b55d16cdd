"""The processes that `torchrun` started: `torchrun --nproc-per-node 2 -m mtl_lib train 3.2`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from mtl_lib.parallel.data_parallel import Processes


@contextmanager
def launched() -> Iterator[Processes | None]:
    """The processes of this run, each with a GPU of its own where there are some; None where the
    program was started alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield None
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()
