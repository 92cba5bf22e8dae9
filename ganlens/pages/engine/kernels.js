// The inner loops: compiled ones from kernel.c, and the same in plain JavaScript where a page may not compile.
//
// The arguments are those of kernel.c, with places in the memory instead of pointers.

const LANES = 8; // units that are computed together

function plainKernel(memory) {
  const M = memory;
  const convolve = (
    ...[from0, weight, bias, out, rows, columns, inputs, units, high, wide, inRow, inCell, rowStep, step, outRow, outCell]
  ) => {
    for (let unit = 0; unit < units; unit += LANES, bias += LANES, weight += LANES * high * wide * inputs) {
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) {
          let a = M[bias];
          let b = M[bias + 1];
          let c = M[bias + 2];
          let d = M[bias + 3];
          let e = M[bias + 4];
          let f = M[bias + 5];
          let g = M[bias + 6];
          let h = M[bias + 7];
          let w = weight;
          for (let u = 0; u < high; u++) {
            for (let v = 0; v < wide; v++) {
              const r = from0 + y * rowStep + x * step + u * inRow + v * inCell;
              for (let i = r; i < r + inputs; i++, w += LANES) {
                const value = M[i];
                a += value * M[w];
                b += value * M[w + 1];
                c += value * M[w + 2];
                d += value * M[w + 3];
                e += value * M[w + 4];
                f += value * M[w + 5];
                g += value * M[w + 6];
                h += value * M[w + 7];
              }
            }
          }
          const to = out + y * outRow + x * outCell + unit;
          M[to] = a;
          M[to + 1] = b;
          M[to + 2] = c;
          M[to + 3] = d;
          M[to + 4] = e;
          M[to + 5] = f;
          M[to + 6] = g;
          M[to + 7] = h;
        }
      }
    }
  };
  const depthwise = (...[from0, weight, bias, out, rows, columns, units, high, wide, inRow, rowStep, step, outRow]) => {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const from = from0 + y * rowStep + x * step;
        for (let c = 0; c < units; c++) {
          let sum = M[bias + c];
          for (let u = 0, w = weight + c; u < high; u++) {
            for (let v = 0; v < wide; v++, w += units) sum += M[from + u * inRow + v * units + c] * M[w];
          }
          M[out + y * outRow + x * units + c] = sum;
        }
      }
    }
  };
  const pixel_norm = (from, out, cells, pitch, units, epsilon) => {
    for (let i = 0; i < cells; i++, from += pitch, out += pitch) {
      let sum = 0;
      for (let c = 0; c < units; c++) sum += M[from + c] * M[from + c];
      const scale = 1 / Math.sqrt(sum / units + epsilon);
      for (let c = 0; c < pitch; c++) M[out + c] = M[from + c] * scale;
    }
  };
  const leaky = (from, out, count, slope) => {
    for (let i = 0; i < count; i++) M[out + i] = M[from + i] > 0 ? M[from + i] : slope * M[from + i];
  };
  return { convolve, depthwise, pixel_norm, leaky };
}

/** The compiled loops with places instead of pointers, or null where a page may not compile. */
async function compiledKernel(code, memory) {
  try {
    const { exports } = (await WebAssembly.instantiate(code, { env: { memory } })).instance;
    const pointers = { convolve: 4, depthwise: 4, pixel_norm: 2, leaky: 2 };
    const wrapped = Object.entries(pointers).map(([name, count]) => [
      name,
      (...given) => exports[name](...given.map((value, i) => (i < count ? 4 * value : value))),
    ]);
    return Object.fromEntries(wrapped);
  } catch {
    return null;
  }
}
