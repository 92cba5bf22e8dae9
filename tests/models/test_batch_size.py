"""Budgets of memory, as people write them, and what memory a dissection really takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from planted import Discs, Z

import ganlens as gl
from ganlens.models.batch_size import as_bytes, batch_within, said

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1, 1), ("12", 12), ("3 B", 3), ("2kB", 2000), ("2 KiB", 2048), ("1.5 GB", 1_500_000_000), ("4tb", 4 * 10**12)],
)
def test_bytes(given, expected):
    assert as_bytes(given) == expected


@pytest.mark.parametrize("given", ["", "much", "-1 GB", -1, "1 XB", "1 GB 2", None, True, float("nan"), 1e-5, [1]])
def test_no_bytes(given):
    with pytest.raises(ValueError, match=r"memory=.*expected a number of bytes, such as '2 GB'"):
        as_bytes(given)


def test_said_is_enough():
    assert as_bytes(said(123_456_789)) >= 123_456_789


class TestBatch:
    G = gl.Generator.wrap(Discs(), Z)
    IMAGE = 4 * (2 * 12 * 32 * 32 + 3 * 12 * 32 * 32 + 8 * 3 * 32 * 32)

    @pytest.mark.parametrize(("images", "expected"), [(8, 8), (15.9, 8), (16, 16), (100, 96), (1000, 256)])
    def test_whole_granules(self, images, expected):
        assert batch_within(int(1000 + images * self.IMAGE), 1000, self.G, ["layer"]) == expected

    def test_too_little(self):
        with pytest.raises(ValueError, match=r"is too little; .*8 images 3 MB; give at least 3 MB"):
            batch_within(8 * self.IMAGE, 1, self.G, ["layer"])


MEASURED = """if True:
    import sys
    sys.path.insert(0, "tests")
    import torch
    torch.set_num_threads(1)
    from planted import TWO_PLANES, Lattice, Z, two_planes
    import ganlens as gl
    from ganlens.benchmark import most_memory
    G, S = gl.Generator.wrap(Lattice(), Z), gl.Segmenter.wrap(two_planes, TWO_PLANES)
    D = gl.dissect(G, S, "layer", n=int(sys.argv[1]), rule=["quantile", "iou"], progress=False, checkpoint=sys.argv[2])
    assert D["iou"].n == int(sys.argv[1])
    print(most_memory())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts otherwise")
def test_ten_times_the_images_take_no_more(tmp_path):
    taken = []
    for n in (400, 4000):
        command = [sys.executable, "-c", MEASURED, str(n), str(tmp_path / f"{n}.npz")]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr
        taken.append(int(done.stdout))
    assert taken[1] < 1.1 * taken[0]
