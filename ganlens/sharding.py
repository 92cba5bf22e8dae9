"""A pass that is shared out to other processes or machines: shards are ranges of seeds, and merging them is exact."""

import os
import pickle
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass

import numpy as np
import torch

from ganlens import __version__
from ganlens.checkpointing import STATISTICS, packed, unpacked
from ganlens.models.base import Generator
from ganlens.passes import Pass, Question, split
from ganlens.segmenters.base import Segmenter
from ganlens.statistics import Scale

PAUSE = 0.05  # seconds between two looks at the workers
AGAIN = 2  # times that a failed shard is tried again
SMALLEST, MOST = 64, 64  # images in a shard, shards, where nobody says otherwise
HINT = (
    "the executor cannot send it to its workers: define networks and functions in a module that they can import "
    "(not in a notebook, and no lambda), or install ganlens[cluster], whose cloudpickle sends these too"
)


class Networks:
    """A generator and a segmenter that travel: packed once, and unpacked where they are used."""

    def __init__(self, generator: Generator, segmenter: Segmenter):
        self.pair, self.content = (generator, segmenter), b""

    def __getstate__(self) -> dict:
        if not self.content:
            self.content = dumps(self.pair)
        return {"pair": None, "content": self.content}

    def opened(self) -> tuple[Generator, Segmenter]:
        """The two networks."""
        if self.pair is None:
            self.pair = pickle.loads(self.content)  # what this very run packed
        return self.pair


def dumps(thing) -> bytes:
    """A thing as bytes, by cloudpickle where it is installed."""
    try:
        import cloudpickle
    except ImportError:
        return pickle.dumps(thing)
    return cloudpickle.dumps(thing)


@dataclass
class Shard:
    """A part of a pass, as it is sent to a worker."""

    networks: Networks
    question: Question
    scales: list[tuple[dict[str, dict[str, np.ndarray]], tuple[int, int]]]  # by layer: bins, and the grid
    seeds: range
    batch: int
    home: tuple[str, int]  # host and process of who asks
    versions: tuple

    @property
    def name(self) -> str:
        return f"shard of images {self.seeds.start} … {self.seeds.stop - 1}"


def place() -> tuple[str, int]:
    """Host and process."""
    return platform.node(), os.getpid()


def versions() -> tuple:
    """What must be the same everywhere."""
    return __version__, STATISTICS, torch.__version__


def look_through(shard: Shard) -> bytes:
    """Count a shard, in a worker: the packed state of its pass.

    A worker uses one thread, unless OMP_NUM_THREADS says otherwise.
    """
    if shard.versions != versions():
        raise ValueError(
            f"the workers have other versions of ganlens or torch ({versions()}) than you ({shard.versions}); "
            "install the same everywhere"
        )
    if place() != shard.home and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    pass_ = Pass(*shard.networks.opened(), shard.question, shard.batch)
    for layer, (scales, size) in zip(shard.question.layers, shard.scales, strict=True):
        device = pass_.generator.device
        pass_.tallies[layer] = pass_.tally({k: Scale.from_state(s, device) for k, s in scales.items()}, size)
    pass_.run(shard.seeds, lambda *_: False, lambda _: None)
    return packed(pass_.state())


def run_on(
    executor: Executor,
    pass_: Pass,
    shards: int | None,
    after: Callable[[Pass, int], bool],
    failed: Callable[[Pass], None],
    interrupted: Callable[[], bool],
) -> bool:
    """Look at all images that are missing: the pilot here, the others in shards; False if it was stopped.

    Parameters
    ----------
    executor : Executor
        Takes `look_through`.
    pass_ : Pass
        Takes in the shards as they come.
    shards : int, optional
        How many; by default of at least 64 images, at most 64, and a power of 2.
    after : callable
        Told of each step's images; says whether to stop.
    failed : callable
        Told before an error is raised.
    interrupted : callable
        Whether to stop.

    Raises
    ------
    RuntimeError
        A shard failed three times, or the workers died.
    ValueError
        The networks cannot travel, or the workers refuse them.
    """
    if not pass_.tallies and not pass_.run(pass_.question.pilot, after, failed):
        return False
    parts = pass_.missing()
    count = shards or 2 ** int(np.log2(np.clip(sum(map(len, parts)) / SMALLEST, 1, MOST)))
    scales = [({k: s.state() for k, s in t.scales.items()}, t.size) for t in pass_.tallies.values()]
    networks = Networks(pass_.generator, pass_.segmenter)
    tasks = [
        Shard(networks, pass_.question, scales, seeds, pass_.batch, place(), versions())
        for seeds in split(parts, count)
    ]
    try:
        return gather(executor, tasks, pass_, after, interrupted)
    except (RuntimeError, ValueError):
        failed(pass_)
        raise


def gather(executor: Executor, tasks: Sequence[Shard], pass_: Pass, after: Callable, interrupted: Callable) -> bool:
    """Have shards counted and take them in, those that fail once more; what waits is cancelled when it ends."""
    failures: dict[str, int] = {}
    waiting: dict[Future, Shard] = {}
    stop = False
    try:
        for task in tasks:
            waiting[submitted(executor, task)] = task
        while waiting and not stop:
            finished = [future for future in waiting if future.done()]  # jobs of Slurm can be asked, not waited for
            if not finished:
                time.sleep(PAUSE)
            for future in finished:
                task = waiting.pop(future)
                try:
                    state = unpacked(future.result())
                except (Exception, CancelledError, KeyboardInterrupt) as error:
                    if not interrupted():  # Ctrl-C in a terminal reaches the workers too
                        failures[task.name] = failures.get(task.name, 0) + 1
                        check_failure(task, error, failures[task.name])
                        waiting[submitted(executor, task)] = task
                else:
                    pass_.add(state)
                    stop = after(pass_, len(task.seeds)) or stop
            stop = stop or interrupted()
    finally:
        for future in waiting:
            future.cancel()
    return not pass_.missing()


def submitted(executor: Executor, task: Shard) -> Future:
    try:
        return executor.submit(look_through, task)
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
