"""Long use of one kernel leaves nothing behind; in full: ``python tests/test_soak.py``."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import ganlens as gl

CELLS = [20, 21, 28, 29]


def memory() -> float:
    """Resident memory of this process, MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def tensors() -> int:
    """How many tensors are alive."""
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def hooks(net) -> int:
    """Hooks on all modules of a network."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in net.modules() for kind in kinds)


def press(done: int, total: int) -> None:
    """Press Ctrl-C in the middle."""
    if done >= total // 2:
        signal.raise_signal(signal.SIGINT)


def soak(strokes: int, dissections: int, interrupts: int) -> dict[str, list[float] | int]:
    """Paint, dissect and interrupt in one process: memory after each tenth of the way, and what is left at the end."""
    G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    D = gl.dissect(G, S, "layer4", n=16, progress=False)
    canvas = gl.InterventionCanvas(D, seed=3, concept="tree")
    assert canvas.wait()
    threads = {thread.name for thread in threading.enumerate()}
    used, alive = [], []
    for part in range(10):
        for i in range(part * strokes // 10, (part + 1) * strokes // 10):
            canvas.paint([(cell + i) % 64 for cell in CELLS], mode=("remove", "add")[i % 2])
            assert canvas.wait()
        canvas.reset()
        canvas.seed = part
        for i in range(part * dissections // 10, (part + 1) * dissections // 10):
            gl.dissect(G, S, "layer4", n=16, sample=i, progress=False)
        for _ in range(part * interrupts // 10, (part + 1) * interrupts // 10):
            assert not gl.dissect(G, S, "layer4", n=64, batch_size=8, progress=press).complete
        assert canvas.wait()
        used.append(memory())
        alive.append(tensors())
    left = {thread.name for thread in threading.enumerate()} - threads
    return {"memory": used, "tensors": alive, "hooks": hooks(G.net), "threads": len(left)}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.slow
def test_nothing_is_left_behind():
    """In a process of its own: tensors of other tests come and go."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "20", "10", "10"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["hooks"] == 0
    assert found["threads"] == 0
    assert found["tensors"][-1] == found["tensors"][3]


if __name__ == "__main__":
    counts = [int(given) for given in sys.argv[1:]] or [500, 50, 20]
    result = soak(*counts)
    print("memory after each tenth, MB:", " ".join(f"{mb:.0f}" for mb in result["memory"]))
    print("tensors alive:", *result["tensors"])
    print(f"hooks left: {result['hooks']}, threads left: {result['threads']}")
    print(json.dumps(result))
