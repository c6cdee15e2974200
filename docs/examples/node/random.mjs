const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n; // of PCG64

// The numbers of numpy.random.default_rng(seed).random(dtype=numpy.float32), one after the other.
export function* uniforms(seed) {
  const words = seedWords(seed).map(BigInt);
  const wide = (at) => // 128 bits of four words; of each two, the low one comes first
    (words[at + 1] << 96n) | (words[at] << 64n) | (words[at + 3] << 32n) | words[at + 2];
  const increment = BigInt.asUintN(128, (wide(4) << 1n) | 1n);
  const step = (state) => BigInt.asUintN(128, state * MULTIPLIER + increment);
  let state = step(increment + wide(0));
  for (;;) {
    // the halves of the state combined, and rotated by its highest bits, are two numbers
    state = step(state);
    const mixed = BigInt.asUintN(64, state ^ (state >> 64n));
    const turn = state >> 122n;
    const bits = BigInt.asUintN(64, (mixed >> turn) | (mixed << (64n - turn)));
    for (const half of [bits & 0xffffffffn, bits >> 32n]) yield (Number(half) >>> 8) / 2 ** 24;
  }
}

// NumPy's SeedSequence: eight 32-bit words from a seed of any size.
function seedWords(seed) {
  const entropy = [];
  for (let rest = seed; rest > 0n; rest >>= 32n) entropy.push(Number(rest & 0xffffffffn));
  const hash = hasher(0x43b0d7e5, 0x931e8875);
  const pool = [0, 1, 2, 3].map((index) => hash(entropy[index] ?? 0));
  for (const source of pool.keys())
    for (const target of pool.keys())
      if (source !== target) pool[target] = mix(pool[target], hash(pool[source]));
  for (const word of entropy.slice(pool.length))
    for (const target of pool.keys()) pool[target] = mix(pool[target], hash(word));
  const output = hasher(0x8b51f9dd, 0x58f38ded);
  return [...pool, ...pool].map((word) => output(word) >>> 0);
}

const folded = (word) => word ^ (word >>> 16);
const mix = (x, y) => folded((Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715)) | 0);

function hasher(constant, multiplier) {
  return (word) => {
    const flipped = word ^ constant;
    constant = Math.imul(constant, multiplier);
    return folded(Math.imul(flipped, constant));
  };
}
