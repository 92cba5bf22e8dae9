"""Work that is shared out to other processes or machines: each shard of it comes back as arrays, in any order."""

import os
import pickle
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from ganlens import __version__
from ganlens.arguments import check_integer
from ganlens.files import arrays_to_bytes, bytes_to_arrays
from ganlens.statistics import STATISTICS

PAUSE = 0.05  # seconds between two looks at the workers
AGAIN = 2  # times that a failed shard is tried again
MOST = 64  # shards, where nobody says otherwise
HINT = (
    "the executor cannot send it to its workers: define networks and functions in a module that they can import "
    "(not in a notebook, and no lambda), or install ganlens[cluster], whose cloudpickle sends these too"
)
Arrays = dict[str, np.ndarray]


class Packed:
    """Arguments of all shards, pickled once here and unpickled once in each worker."""

    def __init__(self, *things):
        self.things, self.content = things, b""

    def __getstate__(self) -> dict:
        if not self.content:
            self.content = dumps(self.things)
        return {"things": None, "content": self.content}

    def opened(self) -> tuple:
        """The things."""
        if self.things is None:
            self.things = pickle.loads(self.content)  # what this very run packed
        return self.things


def dumps(thing) -> bytes:
    """A thing as bytes, by cloudpickle where it is installed."""
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(thing)
    return cloudpickle.dumps(thing)


def host_and_process() -> tuple[str, int]:
    """Host and process."""
    return platform.node(), os.getpid()


def versions() -> tuple:
    """What must be the same everywhere."""
    return __version__, STATISTICS, torch.__version__


@dataclass
class Shard:
    """A part of some work, as it is sent to a worker.

    Attributes
    ----------
    function : callable
        From the things, a part, and a function to be called with each step's images, which says whether to go on, to
        arrays.
    things : Packed
        What it needs besides.
    part : sequence of int
        Its seeds, or whatever it is that the work consists of.
    what : str
        Which that is, for messages.
    """

    function: Callable[..., Arrays]
    things: Packed
    part: Sequence[int]
    what: str = "images"
    home: tuple[str, int] = field(default_factory=host_and_process)
    versions: tuple = field(default_factory=lambda: versions())

    @property
    def name(self) -> str:
        return f"shard of {self.what} {self.part[0]} … {self.part[-1]}"


def work(shard: Shard) -> bytes:
    """Do a shard, in a worker: its arrays, packed.

    A worker uses one thread, unless OMP_NUM_THREADS says otherwise.
    """
    if shard.versions != versions():
        raise ValueError(
            f"the workers have other versions of ganlens or torch ({versions()}) than you ({shard.versions}); "
            "install the same everywhere"
        )
    if host_and_process() != shard.home and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return arrays_to_bytes(shard.function(*shard.things.opened(), shard.part, lambda images=0: True))


# ---- dividing


def check_executor(executor, shards) -> None:
    """ValueError if it is no executor, or no number of shards."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(f"executor: {type(executor).__name__} given; expected a concurrent.futures.Executor")
    if shards is not None:
        check_integer("shards", shards)
        if executor is None:
            raise ValueError(f"shards={shards}, but there is no executor that they are for")


def split(
    parts: Sequence[Sequence[int]], shards: int | None, smallest: int = 1, granule: int = 1
) -> list[Sequence[int]]:
    """Parts divided into about ``shards`` parts of about equal length, at whole granules of the first.

    By default, as many as make parts of at least ``smallest``, at most 64, and a power of 2.
    """
    total, found = sum(map(len, parts)), []
    shards = shards or 2 ** int(np.log2(np.clip(total / smallest, 1, MOST)))
    for part in parts:
        share = max(1, round(shards * len(part) / total))
        bounds = [len(part) * k // share // granule * granule for k in range(share)] + [len(part)]
        found += [part[a:b] for a, b in pairwise(bounds) if a < b]
    return found


# ---- sending and taking in


def gather(
    executor: Executor,
    tasks: Sequence[Shard],
    take: Callable[[Sequence[int], Arrays], bool],
    interrupted: Callable[[], bool],
) -> None:
    """Have shards done and hand them to ``take``, which says whether to stop; those that fail are tried again.

    What waits is cancelled at the end.

    Raises
    ------
    RuntimeError
        A shard failed three times, or the workers died.
    ValueError
        The things cannot travel, or the workers refuse them.
    """
    failures: Counter[int] = Counter()  # by the task itself, for an item may be asked for twice
    waiting: dict[Future, Shard] = {}
    stop = False
    try:
        for task in tasks:
            if not interrupted():
                waiting[submitted(executor, task)] = task
        while waiting and not stop:
            finished = [future for future in waiting if future.done()]  # jobs of Slurm can be asked, not waited for
            if not finished:
                time.sleep(PAUSE)
            for future in finished:
                task = waiting.pop(future)
                try:
                    arrays = bytes_to_arrays(future.result())
                except (Exception, CancelledError, KeyboardInterrupt) as error:
                    if not interrupted():  # Ctrl-C in a terminal reaches the workers too
                        failures[id(task)] += 1
                        check_failure(task, error, failures[id(task)])
                        waiting[submitted(executor, task)] = task
                else:
                    stop = take(task.part, arrays) or stop
            stop = stop or interrupted()
    finally:
        for future in waiting:
            future.cancel()


def submitted(executor: Executor, task: Shard) -> Future:
    try:
        return executor.submit(work, task)
    except BrokenExecutor as error:
        raise RuntimeError(f"the executor's workers died: {error}; {advice(task)}") from error
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        check_travel(error)
        raise


def check_failure(task: Shard, error: BaseException, times: int) -> None:
    """Raise what cannot be helped by trying again."""
    check_travel(error)
    if isinstance(error, BrokenExecutor):
        raise RuntimeError(f"a worker died ({error}), perhaps for lack of memory; {advice(task)}") from error
    if isinstance(error, ValueError):
        raise error
    if times > AGAIN:
        cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise RuntimeError(f"the {task.name} failed {times} times, at last by {cause}") from error
    time.sleep(0.1 * times)


def check_travel(error: BaseException) -> None:
    """ValueError with advice if an error says that something cannot be packed or unpacked."""
    said = str(error)
    lost = isinstance(error, AttributeError) and "Can't get" in said
    lost = lost or (isinstance(error, ModuleNotFoundError) and "No module named" in said)
    if isinstance(error, pickle.PicklingError) or "pickle" in said or lost:
        raise ValueError(f"{said}: {HINT}") from error


def advice(task: Shard) -> str:
    return f"it was at the {task.name}; give a new executor, with fewer workers or a smaller batch_size"
