// The inner loops of networks in a page. Maps lie cell by cell, [row][column][unit], units padded to a multiple of 8.
//
//   clang --target=wasm32 -msimd128 -O3 -nostdlib -Wl,--no-entry -Wl,--import-memory -Wl,--strip-all -o kernel.wasm kernel.c

typedef float lanes __attribute__((vector_size(16)));
#define EXPORT(name) __attribute__((export_name(#name))) void name
#define SPLAT(p) ((lanes){*(p), *(p), *(p), *(p)})

static inline lanes load(const float *p) { return *(const lanes *)p; }
static inline void store(float *p, lanes v) { *(lanes *)p = v; }

// One cell, or four neighbouring ones, times 8 units: weights are [taps][inputs][8].
#define CELLS(N)                                                                          \
    {                                                                                     \
        lanes a[N], b[N];                                                                 \
        for (int j = 0; j < N; j++) a[j] = load(bias), b[j] = load(bias + 4);             \
        const float *w = weight;                                                          \
        for (int u = 0; u < high; u++)                                                    \
            for (int v = 0; v < wide; v++) {                                              \
                const float *r = from + u * in_row + v * in_cell;                         \
                for (int c = 0; c < inputs; c++, w += 8) {                                \
                    lanes p = load(w), q = load(w + 4);                                   \
                    for (int j = 0; j < N; j++) {                                         \
                        lanes x = SPLAT(r + j * step + c);                                \
                        a[j] += x * p;                                                    \
                        b[j] += x * q;                                                    \
                    }                                                                     \
                }                                                                         \
            }                                                                             \
        for (int j = 0; j < N; j++) store(to + j * out_cell, a[j]), store(to + j * out_cell + 4, b[j]); \
    }

// Strides in floats: of the input's rows and cells, from one output cell to the next in the input, of the output.
EXPORT(convolve)(const float *in, const float *weight, const float *bias, float *out, int rows, int columns, int inputs,
                 int units, int high, int wide, int in_row, int in_cell, int row_step, int step, int out_row, int out_cell) {
    for (int unit = 0; unit < units; unit += 8, weight += 8 * high * wide * inputs, bias += 8)
        for (int y = 0; y < rows; y++) {
            const float *from = in + y * row_step;
            float *to = out + y * out_row + unit;
            int x = 0;
            for (; x + 4 <= columns; x += 4, from += 4 * step, to += 4 * out_cell) CELLS(4)
            for (; x < columns; x++, from += step, to += out_cell) CELLS(1)
        }
}

// Each unit with its own kernel: weights are [taps][units].
EXPORT(depthwise)(const float *in, const float *weight, const float *bias, float *out, int rows, int columns, int units,
                  int high, int wide, int in_row, int row_step, int step, int out_row) {
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < columns; x++)
            for (int c = 0; c < units; c += 4) {
                const float *from = in + y * row_step + x * step + c, *w = weight + c;
                lanes sum = load(bias + c);
                for (int u = 0; u < high; u++)
                    for (int v = 0; v < wide; v++, w += units) sum += load(from + u * in_row + v * units) * load(w);
                store(out + y * out_row + x * units + c, sum);
            }
}

// Every cell to a mean square of 1 over its units.
EXPORT(pixel_norm)(const float *in, float *out, int cells, int pitch, int units, float epsilon) {
    for (int i = 0; i < cells; i++, in += pitch, out += pitch) {
        lanes sum = {0, 0, 0, 0};
        for (int c = 0; c < pitch; c += 4) sum += load(in + c) * load(in + c); // what pads them is 0
        float scale = 1 / __builtin_sqrtf((sum[0] + sum[1] + sum[2] + sum[3]) / units + epsilon);
        for (int c = 0; c < pitch; c += 4) store(out + c, load(in + c) * SPLAT(&scale));
    }
}

// Times slope below zero.
EXPORT(leaky)(const float *in, float *out, int count, float slope) {
    lanes k = SPLAT(&slope);
    for (int i = 0; i < count; i += 4) {
        lanes x = load(in + i);
        store(out + i, (lanes)(((x > 0) & (__typeof__(x > 0))x) | (~(x > 0) & (__typeof__(x > 0))(x * k))));
    }
}
