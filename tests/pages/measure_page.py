"""How exact and how fast the engine of painting pages is, beside torch: ``python tests/pages/measure_page.py [SEEDS]``.

Pictures of random seeds, each with random edits of up to three layers, in headless Chromium; then times of the embedded
generator's pages in Chromium.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "widgets"))  # where the browser is found

from pages import Engine, chromium, opened
from test_engine import random_edits

import ganlens as gl
from ganlens.images import to_uint8
from ganlens.pages.painting_page import program_of, segmenter_program

TIMES = """async () => {
    const region = Array.from({ length: 8 }, (_, y) => Array.from({ length: 8 }, (_, x) => (y > 3 && x < 3 ? 1 : 0)));
    const edit = { layer: "layer4", units: painting.units, level: "q0.995", region, strength: 1 };
    const median = async act => {
        const found = [];
        for (let i = 0; i < 40; i++) {
            const started = performance.now();
            await act(i);
            found.push(performance.now() - started);
        }
        return found.sort((a, b) => a - b)[20];
    };
    const ask = given => painting.engine.ask("render", { levels: told.levels, ...given });
    const image = await median(i => ask({ seed: i, edits: [] }));
    await ask({ seed: 1, edits: [] });
    const stroke = await median(() => ask({ seed: 1, edits: [edit] }));
    const readout = await median(() => ask({ seed: 1, edits: [edit], read: true }));
    const whole = await median(async () => {
        painting.undo();
        await painting.working;
        painting.paint(region);
        await painting.working;
    });
    return { ready: Number(document.body.dataset.ready), image, stroke, readout: readout - stroke, whole: whole / 2 };
}"""


def main(seeds: int) -> None:
    G, S = gl.load_generator("scenes"), gl.load_segmenter("scenes")
    random = np.random.default_rng(0)
    counts, labels = np.zeros(256, np.int64), 0
    with chromium() as context:
        engine = Engine(context, program_of(G, list(G.layers)), G.z_dim, segmenter_program(S, G))
        for seed in random.integers(0, 2**32, seeds).tolist():
            edits = random_edits(G, random)
            x = G.generate([seed], edits)
            picture, shown = engine.render(seed, edits, read=True)
            difference = np.abs(picture.astype(int) - to_uint8(x)[0])
            counts += np.bincount(difference.ravel(), minlength=256)
            labels += int((shown + 1 != S.labels(x)[0, 0].flatten().numpy()).sum())
        engine.page.close()
        total = counts.sum()
        print(
            f"{seeds} seeds, random edits: {counts[0] / total:.4%} of the numbers equal, {counts[1] / total:.4%} by 1,"
        )
        print(f"the largest difference {np.flatnonzero(counts).max()}; {labels} of {seeds * 4096:,} labels differ")
        D = gl.dissect(G, S, "layer4", n=200, progress=False)
        with tempfile.TemporaryDirectory() as folder:
            path = gl.painting_page(D, Path(folder) / "paint.html", progress=False)
            found = opened(context, path, []).evaluate(TIMES)
            size = path.stat().st_size / 1e6
        print(f"page of {size:.1f} MB, ready after {found['ready']:.0f} ms; medians of 40 by way of the worker, ms:")
        print(f"image {found['image']:.1f}, stroke of layer4 {found['stroke']:.1f}, labels {found['readout']:.1f} more")
        print(f"from a stroke to picture and words {found['whole']:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
