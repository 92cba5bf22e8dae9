// What numpy and float16 do, in a page.

// ---- numpy.random.RandomState

/** Mersenne Twister 19937 (Matsumoto and Nishimura, 1998), and the numbers that numpy makes of it. */
class RandomState {
  constructor(seed) {
    this.key = new Uint32Array(624);
    this.key[0] = seed;
    for (let i = 1; i < 624; i++) {
      const last = this.key[i - 1];
      this.key[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
    this.place = 624;
    this.spare = null;
  }

  integer() {
    if (this.place === 624) this.regenerate();
    let y = this.key[this.place++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  regenerate() {
    const key = this.key;
    for (let i = 0; i < 624; i++) {
      const y = (key[i] & 0x80000000) | (key[(i + 1) % 624] & 0x7fffffff);
      key[i] = key[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.place = 0;
  }

  /** In [0, 1), of 53 bits. */
  double() {
    const high = this.integer() >>> 5;
    return (high * 67108864 + (this.integer() >>> 6)) / 9007199254740992;
  }

  /** Standard normal, by the polar method (Marsaglia and Bray, 1964): the second one first. */
  normal() {
    if (this.spare !== null) {
      const kept = this.spare;
      this.spare = null;
      return kept;
    }
    let x, y, square;
    do {
      x = 2 * this.double() - 1;
      y = 2 * this.double() - 1;
      square = x * x + y * y;
    } while (square >= 1 || square === 0);
    const factor = Math.sqrt((-2 * Math.log(square)) / square);
    this.spare = factor * x;
    return factor * y;
  }
}

/** The latent of a seed, as ganlens.models.latents draws it. */
function latent(seed, length, law) {
  const random = new RandomState(seed);
  const draw = law === "uniform" ? () => -1 + 2 * random.double() : () => random.normal();
  return Float32Array.from({ length }, draw);
}

// ---- numbers

/** Float32 of all 65,536 halves. */
function halves() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const part = bits & 1023;
    const size = exponent ? (1 + part / 1024) * 2 ** (exponent - 15) : (part / 1024) * 2 ** -14;
    table[bits] = (bits >> 15 ? -1 : 1) * (exponent === 31 ? Infinity : size);
  }
  return table;
}

const HALVES = halves();
