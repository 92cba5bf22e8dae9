"""Progress bars, and interrupts that wait for the end of a step."""

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    progress: bool | Callable[[int, int], None], total: int, name: str, unit: str = "img"
) -> Iterator[Callable[[int], None]]:
    """Yield ``done(images)``: it moves a bar, calls the caller's function with (done, total), or does nothing."""
    if progress is True:
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=name, unit=unit) as bar:

            def move(images: int) -> None:
                bar.update(images)

            yield move
    elif callable(progress):
        done = 0

        def tell(images: int) -> None:
            nonlocal done
            done += images
            progress(done, total)

        yield tell
    else:
        yield lambda images: None


class IncompleteWarning(UserWarning):
    """Somebody has interrupted, and gets what was done until then."""


@contextmanager
def interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until the step is done; a second one interrupts at once. Only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []
    usual = signal.getsignal(signal.SIGINT)

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, usual)


class Steps:
    """Tells the bar of each step, and whether somebody has interrupted."""

    def __init__(self, done: Callable[[int], None], interrupted: Callable[[], bool]):
        self.done, self.interrupted, self.stopped = done, interrupted, False
        self.count = 0  # images that are done

    def go_on(self, images: int = 0) -> bool:
        """Count images as done; False if nothing more is to be done.

        A KeyboardInterrupt that the bar or the user's function raises stops like one from the keyboard.
        """
        self.count += images
        try:
            if images:
                self.done(images)
        except KeyboardInterrupt:
            self.stopped = True
        self.stopped = self.stopped or self.interrupted()
        return not self.stopped


@contextmanager
def steps(progress: bool | Callable[[int, int], None], total: int, name: str) -> Iterator[Steps]:
    """A bar that is told of each step's images, and knows of interrupts; a warning where one left something undone."""
    with progress_bar(progress, total, name) as done, interrupt_between_steps() as interrupted:
        step = Steps(done, interrupted)
        yield step
    if step.stopped and step.count < total:
        words = f"interrupted after {step.count:,} of {total:,} images ({name}): what is returned is a part of it"
        warnings.warn(words, IncompleteWarning, stacklevel=4)
