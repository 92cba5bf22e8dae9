"""A thread of a widget's own, so that the kernel stays free: of the jobs of one name only the newest is done."""

import atexit
import threading
from collections.abc import Callable, Sequence
from weakref import WeakSet

LAST = 5  # seconds that a job may still take when Python ends


class Worker:
    """Runs jobs one after the other; a job that waits is replaced by a newer one of the same name.

    Parameters
    ----------
    show_error : callable
        Told of an exception that a job raised.

    Examples
    --------
    >>> done = []
    >>> worker = Worker(print)
    >>> worker.request("render", lambda: done.append("old" if worker.outdated("render") else "new"))
    >>> worker.wait(5)
    True
    >>> done
    ['new']
    """

    def __init__(self, show_error: Callable[[BaseException], None]):
        self.show_error = show_error
        self.jobs: dict[str, Callable[[], None]] = {}
        self.running: str | None = None
        self.thread: threading.Thread | None = None
        self.changed = threading.Condition()
        self.stopped = False
        WORKERS.add(self)

    def request(self, name: str, job: Callable[[], None]) -> None:
        """Have a job done soon; returns at once, from any thread."""
        with self.changed:
            if self.stopped:
                return  # the widget is closed
            self.jobs[name] = job
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, daemon=True, name="ganlens widget")
                self.thread.start()
            self.changed.notify_all()

    def stop(self) -> None:
        """Do none of the jobs that wait, and let the thread end when it is done with its own."""
        with self.changed:
            self.jobs.clear()
            self.stopped, thread = True, self.thread
            self.changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(LAST)

    def outdated(self, name: str) -> bool:
        """Whether a newer job of that name waits, or Python ends: what this one found need not be shown any more."""
        return self.stopped or name in self.jobs

    @property
    def idle(self) -> bool:
        """Whether nothing is done or waits."""
        return self.running is None and not self.jobs

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all jobs are done; False if that took longer. Not to be called from a job."""
        with self.changed:
            return self.changed.wait_for(lambda: self.idle, seconds)

    def _run(self) -> None:
        while True:
            with self.changed:
                if not self.changed.wait_for(lambda: self.jobs or self.stopped, timeout=5) or not self.jobs:
                    self.thread = None  # idle threads end; the next request starts another one
                    return
                self.running = next(iter(self.jobs))
                job = self.jobs.pop(self.running)
            try:
                job()
            except BaseException as error:  # whatever a network raises, the next job is done
                self.show_error(error)
            finally:
                with self.changed:
                    self.running = None
                    self.changed.notify_all()


WORKERS: WeakSet[Worker] = WeakSet()


@atexit.register
def finish() -> None:
    """Let running jobs come to their end: a thread that computes while Python is taken down can abort the process."""
    stop_all(list(WORKERS))


def stop_all(workers: Sequence[Worker]) -> None:
    """Stop workers, all of them at once: long jobs look at that, and each is waited for."""
    for worker in workers:
        worker.stopped = True
    for worker in workers:
        worker.stop()
