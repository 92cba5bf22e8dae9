// The worker of a painting page: it keeps the networks, and answers with pictures and labels.

let net = null;
let reader = null; // the segmenter
let origin = null; // length and law of the latents

/** What an edit does to a map: (1 - a) r + a k with a = strength x region, as ganlens.models.editing has it. */
function changing(edits, levels) {
  return (map, [, height, width], pitch) => {
    for (const { units, level, region, strength } of edits) {
      for (let i = 0; i < units.length; i++) {
        const own = typeof level === "string" ? levels[level][units[i]] : Array.isArray(level) ? level[i] : level;
        for (let cell = 0; cell < height * width; cell++) {
          const [y, x] = [Math.floor(cell / width), cell % width];
          const a = Math.fround(strength * (region ? region[y][x] : 1));
          if (!a) continue;
          const k = Array.isArray(own) ? own[y][x] : own;
          const at = cell * pitch + units[i];
          map[at] = (1 - a) * map[at] + a * Math.fround(k);
        }
      }
    }
  };
}

/** Picture of a seed with edits: bytes (rows, columns, 4). */
function render(seed, edits, levels) {
  const byLayer = new Map();
  for (const edit of edits) byLayer.set(edit.layer, [...(byLayer.get(edit.layer) ?? []), edit]);
  const changes = [...byLayer].map(([layer, some]) => [layer, changing(some, levels[layer])]);
  const input = net.key === seed ? null : latent(seed, origin.length, origin.law);
  net.run(seed, input, Object.fromEntries(changes));
  const [units, height, width] = net.shapes[net.output];
  const [map, pitch] = [net.result(), padded(units)];
  const picture = new Uint8ClampedArray(height * width * 4);
  for (let cell = 0; cell < height * width; cell++) {
    for (let c = 0; c < 3; c++) {
      const value = map[cell * pitch + (units === 3 ? c : 0)];
      picture[4 * cell + c] = Math.floor(Math.min(Math.max(value * 127.5 + 128, 0), 255));
    }
    picture[4 * cell + 3] = 255;
  }
  return picture;
}

/** What the last picture shows: the number of a concept for each pixel, 0 for the first. */
function labels() {
  const [units, height, width] = net.shapes[net.output];
  const [map, pitch] = [net.result(), padded(units)];
  const input = Float32Array.from({ length: units * height * width }, (_, i) => {
    return map[(i % (height * width)) * pitch + Math.floor(i / (height * width))];
  });
  reader.run(null, input);
  const [concepts] = reader.shapes[reader.output];
  const [scores, row] = [reader.result(), padded(concepts)];
  return Uint8Array.from({ length: height * width }, (_, cell) => {
    let best = 0;
    for (let c = 1; c < concepts; c++) if (scores[cell * row + c] > scores[cell * row + best]) best = c;
    return best;
  });
}

const TASKS = {
  async start({ program, weights, segmenter, segmenterWeights, kernel, latents }) {
    origin = latents;
    net = await Network.make(program, weights, kernel);
    if (segmenter) reader = await Network.make(segmenter, segmenterWeights, kernel);
    return { compiled: net.compiled };
  },
  render({ seed, edits, levels, read }) {
    const picture = render(seed, edits, levels);
    return { picture, labels: read && reader ? labels() : null };
  },
};

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = async ({ data: { id, task, given } }) => {
    try {
      const found = await TASKS[task](given);
      self.postMessage({ id, found });
    } catch (error) {
      self.postMessage({ id, failed: String(error?.message ?? error) });
    }
  };
}
