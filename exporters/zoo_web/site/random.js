/**
 * The random numbers of `numpy.random.default_rng(seed).random(dtype=numpy.float32)`, number by
 * number: a seed is spread over the 256 bits of a generator by NumPy's SeedSequence, and the
 * generator is PCG64 (a 128-bit congruential generator whose output is folded and rotated to 64).
 */

const WORD = 2n ** 32n;
const LIMBS = 8; // of 16 bits, the lowest first: their products are exact in a double
const MULTIPLIER = toLimbs(0x2360ed051fc65da44385df649fccf645n);

/** @param {bigint} number @returns {number[]} */
function toLimbs(number) {
  return Array.from({ length: LIMBS }, (_, place) =>
    Number((number >> BigInt(16 * place)) & 0xffffn),
  );
}

/** @param {number[]} limbs @returns {bigint} */
function fromLimbs(limbs) {
  return limbs.reduceRight((sum, limb) => (sum << 16n) | BigInt(limb), 0n);
}

/**
 * NumPy's SeedSequence(seed).generate_state(8): O'Neill's seed_seq_fe over a pool of four words.
 * @param {bigint} seed
 * @returns {Uint32Array} eight words
 */
function seedWords(seed) {
  const entropy = [];
  for (let rest = seed; rest > 0n || entropy.length < 4; rest /= WORD) {
    entropy.push(Number(rest % WORD));
  }
  let constant = 0x43b0d7e5;
  const hash = (/** @type {number} */ value) => {
    const before = value ^ constant;
    constant = Math.imul(constant, 0x931e8875);
    const product = Math.imul(before, constant);
    return product ^ (product >>> 16);
  };
  const mix = (/** @type {number} */ x, /** @type {number} */ y) => {
    const sum = Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715);
    return sum ^ (sum >>> 16);
  };
  const pool = entropy.slice(0, 4).map(hash);
  for (let from = 0; from < entropy.length; from++) {
    for (let to = 0; to < 4; to++) {
      if (from !== to) pool[to] = mix(pool[to], hash(from < 4 ? pool[from] : entropy[from]));
    }
  }
  constant = 0x8b51f9dd;
  return Uint32Array.from({ length: 8 }, (_, index) => {
    const before = pool[index % 4] ^ constant;
    constant = Math.imul(constant, 0x58f38ded);
    const product = Math.imul(before, constant);
    return product ^ (product >>> 16);
  });
}

/** A stream of random numbers that goes on from any earlier position of it. */
export class Random {
  #state = toLimbs(0n);
  #increment = toLimbs(0n);
  /** @type {number | null} the upper half of the last output, where it is still to come */
  #kept = null;

  /** @param {number | bigint} seed an integer from 0 on; above 2^53 a bigint */
  constructor(seed = 0) {
    if (typeof seed === "number" ? !Number.isSafeInteger(seed) || seed < 0 : seed < 0n) {
      throw new RangeError(`seed must be an integer from 0 on, above 2^53 a bigint (got ${seed}).`);
    }
    const words = seedWords(BigInt(seed));
    // two numbers of 128 bits; of the two halves, each of two words, the upper one comes first
    const number = (/** @type {number} */ first) =>
      [1, 0, 3, 2].reduce((sum, place) => (sum << 32n) | BigInt(words[first + place]), 0n);
    this.#increment = toLimbs((number(4) << 1n) | 1n);
    this.#step();
    this.#state = toLimbs(fromLimbs(this.#state) + number(0));
    this.#step();
  }

  /** @param {number} count @returns {Float32Array} numbers at least 0 and below 1 */
  floats(count) {
    return Float32Array.from({ length: count }, () => (this.#next32() >>> 8) / 2 ** 24);
  }

  #step() {
    const next = new Array(LIMBS);
    let carry = 0;
    for (let place = 0; place < LIMBS; place++) {
      let sum = carry + this.#increment[place];
      for (let low = 0; low <= place; low++) sum += this.#state[low] * MULTIPLIER[place - low];
      next[place] = sum % 0x10000;
      carry = Math.floor(sum / 0x10000);
    }
    this.#state = next;
  }

  /** The lower half of an output of 64 bits, then its upper half. */
  #next32() {
    if (this.#kept !== null) {
      const kept = this.#kept;
      this.#kept = null;
      return kept;
    }
    this.#step();
    const s = this.#state;
    const low = ((s[0] ^ s[4]) | ((s[1] ^ s[5]) << 16)) >>> 0;
    const high = ((s[2] ^ s[6]) | ((s[3] ^ s[7]) << 16)) >>> 0;
    const turn = s[7] >>> 10; // rotates to the right by the state's upper six bits
    const [first, second] = turn < 32 ? [low, high] : [high, low];
    const by = turn % 32;
    const joined = (/** @type {number} */ x, /** @type {number} */ y) =>
      (by ? (x >>> by) | (y << (32 - by)) : x) >>> 0;
    this.#kept = joined(second, first);
    return joined(first, second);
  }

  /** The position, as `json.dumps(numpy.random.default_rng().bit_generator.state)` has it. */
  toJSON() {
    const [state, increment] = [fromLimbs(this.#state), fromLimbs(this.#increment)];
    const [has, kept] = this.#kept === null ? [0, 0] : [1, this.#kept];
    return (
      `{"bit_generator": "PCG64", "state": {"state": ${state}, "inc": ${increment}}, ` +
      `"has_uint32": ${has}, "uinteger": ${kept}}`
    );
  }

  /**
   * The generator at a position; an Error for a text that is none.
   * @param {string} text
   */
  static fromJSON(text) {
    // numbers of 128 bits: as texts, JSON.parse keeps all of their digits
    const position = JSON.parse(text.replace(/(:\s*)(\d+)/g, '$1"$2"'));
    if (position.bit_generator !== "PCG64") throw new Error("not a position of PCG64");
    const random = new Random();
    random.#state = toLimbs(BigInt(position.state.state));
    random.#increment = toLimbs(BigInt(position.state.inc));
    random.#kept = Number(position.has_uint32) ? Number(position.uinteger) : null;
    return random;
  }

  copy() {
    const twin = new Random();
    [twin.#state, twin.#increment, twin.#kept] = [this.#state, this.#increment, this.#kept];
    return twin;
  }
}
