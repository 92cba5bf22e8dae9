// Networks in a page: runs the steps that ganlens/pages/program.py packs.
//
// Maps lie cell by cell, [row][column][unit], units padded with zeros to a multiple of 8, all in one memory.

const STACK = 1 << 15; // floats at the beginning that belong to the compiled loops
const NUMBERS = ["bias", "scale", "shift"];
const padded = (units) => Math.ceil(units / LANES) * LANES;
const size = ([units, height, width]) => padded(units) * height * width;

class Network {
  /** A network that can run; `code` is that of the compiled loops, null for plain JavaScript. */
  static async make(program, weights, code) {
    const network = new Network(program);
    await network.start(weights, code);
    return network;
  }

  constructor({ shapes, steps, layers, output }) {
    Object.assign(this, { shapes, layers, output });
    this.steps = steps.map((step) => ({ ...step, parts: step.parts?.map((part) => ({ ...part })) }));
    this.length = STACK; // of the memory, in floats
    this.own = shapes.map((shape) => this.take(size(shape)));
    const maps = Object.values(layers);
    this.copies = Object.fromEntries(maps.map((map) => [map, this.take(size(shapes[map]))])); // of edited layers
    for (const step of this.steps) {
      const units = padded(shapes[step.y][0]);
      step.at = Object.fromEntries(NUMBERS.filter((name) => step[name]).map((name) => [name, this.take(units)]));
      for (const part of step.parts ?? []) part.at_ = this.take(units * part.size[0] * part.size[1] * this.depth(step));
    }
    this.key = null; // of the input whose maps are known, those of the first `valid` steps
    this.valid = 0;
  }

  /** Inputs of each unit of a convolution. */
  depth(step) {
    return step.op === "depthwise" ? 1 : this.shapes[step.x[0]][0];
  }

  take(floats) {
    const place = this.length;
    this.length += Math.ceil(floats / 4) * 4;
    return place;
  }

  async start(weights, code) {
    const pages = Math.ceil((4 * this.length) / 65536);
    const memory = code && typeof WebAssembly === "object" ? new WebAssembly.Memory({ initial: pages }) : null;
    this.kernel = memory && (await compiledKernel(code, memory));
    this.compiled = this.kernel !== null;
    this.memory = new Float32Array(this.compiled ? memory.buffer : pages * 16384);
    this.kernel ??= plainKernel(this.memory);
    for (const step of this.steps) this.unpack(step, weights);
  }

  /** Weights to where the loops want them: of convolutions [units / 8][taps][inputs][8], one by one [taps][units]. */
  unpack(step, weights) {
    const units = this.shapes[step.y][0];
    for (const [name, place] of Object.entries(step.at)) this.memory.set(unpacked(weights, step[name]), place);
    for (const part of step.parts ?? []) {
      const [given, taps, depth] = [unpacked(weights, part.weight), part.size[0] * part.size[1], this.depth(step)];
      const each = step.op === "depthwise" ? (u, c, tap) => tap * padded(units) + u : inEights(taps, depth);
      for (let u = 0, i = 0; u < units; u++) {
        for (let c = 0; c < depth; c++) {
          for (let tap = 0; tap < taps; tap++, i++) this.memory[part.at_ + each(u, c, tap)] = given[i];
        }
      }
    }
  }

  // ---- running

  /**
   * The last map of an input; what is known of the same input is not computed again.
   *
   * `key` names the input, which is [units][rows][columns] or an array [rows][columns][units] of another network's map;
   * `edits` are functions by layer that change that layer's map.
   */
  run(key, input, edits = {}) {
    if (key === null || key !== this.key) {
      this.key = key;
      this.valid = 0;
      this.write(0, input);
    }
    const edited = new Map(Object.entries(edits).map(([layer, change]) => [this.layers[layer], change]));
    const first = this.steps.findIndex((step) => edited.has(step.y));
    const clean = first < 0 ? this.steps.length : first + 1; // steps whose maps are those of the unedited image
    const start = Math.min(this.valid, clean);
    this.places = [...this.own];
    if (start > first && first >= 0) this.edit(this.steps[first].y, edited);
    for (const step of this.steps.slice(start)) {
      ACTS[step.op](this, step, ...this.shapes[step.y]);
      if (edited.has(step.y)) this.edit(step.y, edited);
    }
    this.valid = clean;
  }

  /** Put an edited copy of a layer's map in its place. */
  edit(map, edited) {
    const [from, to, shape] = [this.own[map], this.copies[map], this.shapes[map]];
    this.memory.copyWithin(to, from, from + size(shape));
    edited.get(map)(this.memory.subarray(to, to + size(shape)), shape, padded(shape[0]));
    this.places[map] = to;
  }

  /** Put numbers into a map: [units][rows][columns]. */
  write(map, values) {
    const [units, height, width] = this.shapes[map];
    const pitch = padded(units);
    for (let c = 0, i = 0; c < units; c++) {
      for (let cell = 0; cell < height * width; cell++, i++) this.memory[this.own[map] + cell * pitch + c] = values[i];
    }
  }

  /** The numbers of the last map: an array (rows · columns, pitch), units in the first places of each row. */
  result() {
    const place = this.places[this.output];
    return this.memory.subarray(place, place + size(this.shapes[this.output]));
  }
}

/** Place of a weight of unit u, input c and a tap: [units / 8][taps][inputs][8]. */
function inEights(taps, inputs) {
  return (u, c, tap) => (((u >> 3) * taps + tap) * inputs + c) * LANES + (u & 7);
}

/** Numbers at [byte, how many, whether they are halves] of the weights. */
function unpacked(weights, [start, count, half]) {
  if (!half) return new Float32Array(weights, start, count);
  return Float32Array.from(new Uint16Array(weights, start, count), (bits) => HALVES[bits]);
}

// ---- steps: each is given the network, itself, and the shape of the map that it makes

/** A step that changes each number by itself; what pads the units stays 0. */
function one(change) {
  return (net, step, units, height, width) => {
    const [from, to, pitch] = [net.places[step.x[0]], net.own[step.y], padded(units)];
    for (let cell = 0; cell < height * width; cell++) {
      const row = cell * pitch;
      for (let c = 0; c < units; c++) net.memory[to + row + c] = change(net.memory[from + row + c], step);
    }
  };
}

/** A step of two maps, each of which may have one unit, one row or one column for all. */
function two(join) {
  return (net, step, units, height, width) => {
    const sources = step.x.map((map) => {
      const [own, rows, columns] = net.shapes[map];
      const [pitch, one] = [padded(own), own === 1];
      return (y, x, c) => {
        const cell = (rows === 1 ? 0 : y) * columns + (columns === 1 ? 0 : x);
        return net.memory[net.places[map] + cell * pitch + (one ? 0 : c)];
      };
    });
    const [a, b] = sources;
    for (let y = 0, to = net.own[step.y]; y < height; y++) {
      for (let x = 0; x < width; x++, to += padded(units)) {
        for (let c = 0; c < units; c++) net.memory[to + c] = join(a(y, x, c), b(y, x, c));
      }
    }
  };
}

/** Each cell of a map, from a cell of the one before: `source` gives its place by row and column, or -1 for zeros. */
function moved(net, step, [units, height, width], source) {
  const [from, to, pitch] = [net.places[step.x[0]], net.own[step.y], padded(units)];
  for (let y = 0, at = to; y < height; y++) {
    for (let x = 0; x < width; x++, at += pitch) {
      const cell = source(y, x);
      if (cell < 0) net.memory.fill(0, at, at + pitch);
      else net.memory.copyWithin(at, from + cell * pitch, from + (cell + 1) * pitch);
    }
  }
}

function convolution(net, step, units, height, width) {
  const [map, { spread, op, at, stride }] = [step.x[0], step];
  const [inputs, , inWidth] = net.shapes[map];
  const [inPitch, pitch] = [padded(inputs), padded(units)];
  for (const part of step.parts) {
    const [[high, wide], [top, left], [y, x]] = [part.size, part.from, part.at];
    const [rows, columns] = [Math.ceil((height - y) / spread), Math.ceil((width - x) / spread)];
    const from = net.places[map] + (top * inWidth + left) * inPitch;
    const to = net.own[step.y] + (y * width + x) * pitch;
    const [inRow, rowStep, cellStep] = [inWidth * inPitch, stride[0] * inWidth * inPitch, stride[1] * inPitch];
    const common = [from, part.at_, at.bias, to, rows, columns];
    if (op === "depthwise") net.kernel.depthwise(...common, pitch, high, wide, inRow, rowStep, cellStep, width * pitch);
    else {
      const out = [spread * width * pitch, spread * pitch];
      net.kernel.convolve(...common, inputs, pitch, high, wide, inRow, inPitch, rowStep, cellStep, ...out);
    }
  }
}

const ACTS = {
  convolve: convolution,
  depthwise: convolution,
  leaky(net, step, ...shape) {
    net.kernel.leaky(net.places[step.x[0]], net.own[step.y], size(shape), step.slope);
  },
  pixelnorm(net, step, units, height, width) {
    const places = [net.places[step.x[0]], net.own[step.y]];
    net.kernel.pixel_norm(...places, height * width, padded(units), units, step.epsilon);
  },
  affine(net, step, units, height, width) {
    const { scale, shift } = step.at;
    const [from, to, pitch] = [net.places[step.x[0]], net.own[step.y], padded(units)];
    for (let row = 0; row < height * width * pitch; row += pitch) {
      for (let c = 0; c < units; c++) {
        net.memory[to + row + c] = net.memory[from + row + c] * net.memory[scale + c] + net.memory[shift + c];
      }
    }
  },
  tanh: one(Math.tanh),
  sigmoid: one((value) => 1 / (1 + Math.exp(-value))),
  rsqrt: one((value) => 1 / Math.sqrt(value)),
  sqrt: one(Math.sqrt),
  square: one((value) => value * value),
  reciprocal: one((value) => 1 / value),
  clamp: one((value, step) => Math.min(Math.max(value, step.low), step.high)),
  add: two((a, b) => a + b),
  mul: two((a, b) => a * b),
  mean(net, step, units, height, width) {
    const count = net.shapes[step.x[0]][0];
    const [from, to] = [net.places[step.x[0]], net.own[step.y]];
    for (let cell = 0; cell < height * width; cell++) {
      let sum = 0;
      for (let c = 0; c < count; c++) sum += net.memory[from + cell * padded(count) + c];
      net.memory[to + cell * LANES] = sum / count;
    }
  },
  view(net, step, units, height, width) {
    const [before, rows, columns] = net.shapes[step.x[0]];
    const [from, to, old, pitch] = [net.places[step.x[0]], net.own[step.y], padded(before), padded(units)];
    for (let i = 0; i < units * height * width; i++) {
      const value = net.memory[from + (i % (rows * columns)) * old + Math.floor(i / (rows * columns))];
      net.memory[to + (i % (height * width)) * pitch + Math.floor(i / (height * width))] = value;
    }
  },
  pad(net, step, ...shape) {
    const [, rows, columns] = net.shapes[step.x[0]];
    const [left, , above] = step.sides;
    const along = {
      zero: (i, n) => (i < 0 || i >= n ? -1 : i),
      replicate: (i, n) => Math.min(Math.max(i, 0), n - 1),
      reflect: (i, n) => (i < 0 ? -i : i >= n ? 2 * n - 2 - i : i),
    }[step.mode];
    moved(net, step, shape, (y, x) => {
      const [row, column] = [along(y - above, rows), along(x - left, columns)];
      return row < 0 || column < 0 ? -1 : row * columns + column;
    });
  },
  nearest(net, step, units, height, width) {
    const [, rows, columns] = net.shapes[step.x[0]];
    const [down, across] = [height / rows, width / columns];
    const place = (y, x) => Math.floor(y / down) * columns + Math.floor(x / across);
    moved(net, step, [units, height, width], place);
  },
  maxpool(net, step, units, height, width) {
    const [, , columns] = net.shapes[step.x[0]];
    const [from, to, pitch, { side, y: map }] = [net.places[step.x[0]], net.own[step.y], padded(units), step];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        for (let c = 0; c < units; c++) {
          let most = -Infinity;
          for (let k = 0; k < side * side; k++) {
            const cell = (y * side + Math.floor(k / side)) * columns + x * side + (k % side);
            most = Math.max(most, net.memory[from + cell * pitch + c]);
          }
          net.memory[to + (y * net.shapes[map][2] + x) * pitch + c] = most;
        }
      }
    }
  },
  bilinear(net, step, units, height, width) {
    const [, rows, columns] = net.shapes[step.x[0]];
    const [from, to, pitch] = [net.places[step.x[0]], net.own[step.y], padded(units)];
    const along = (i, n, target) => {
      const place = step.corners ? (i * (n - 1)) / Math.max(target - 1, 1) : Math.max(((i + 0.5) * n) / target - 0.5, 0);
      const low = Math.min(Math.floor(place), n - 1);
      return [low, Math.min(low + 1, n - 1), place - low];
    };
    for (let y = 0; y < height; y++) {
      const [top, bottom, v] = along(y, rows, height);
      for (let x = 0; x < width; x++) {
        const [left, right, u] = along(x, columns, width);
        const at = (row, column) => from + (row * columns + column) * pitch;
        const [a, b, c, d] = [at(top, left), at(top, right), at(bottom, left), at(bottom, right)];
        for (let unit = 0; unit < units; unit++) {
          const high = net.memory[a + unit] * (1 - u) + net.memory[b + unit] * u;
          const low = net.memory[c + unit] * (1 - u) + net.memory[d + unit] * u;
          net.memory[to + (y * width + x) * pitch + unit] = high * (1 - v) + low * v;
        }
      }
    }
  },
  concat(net, step, units, height, width) {
    const pitch = padded(units);
    let unit = 0;
    for (const map of step.x) {
      const count = net.shapes[map][0];
      for (let cell = 0; cell < height * width; cell++) {
        const from = net.places[map] + cell * padded(count);
        net.memory.copyWithin(net.own[step.y] + cell * pitch + unit, from, from + count);
      }
      unit += count;
    }
  },
};
