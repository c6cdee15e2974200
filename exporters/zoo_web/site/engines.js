/**
 * Runs the exported graphs in ONNX Runtime, one row at a time.
 *
 * @typedef {import("./safetensors.js").Leaf} Leaf
 * @typedef {import("./sampling.js").Sampling} Sampling
 * @typedef {{name: string, input: string, output: string, shape: number[], dtype: string,
 *   initial: number | string}} Entry a row of the state table
 * @typedef {any[]} State tensors of ONNX Runtime, in the order of the state table
 * @typedef {{largest_piece: number}} Reading the most tokens that the sequence graph reads in a run
 */

import { choose } from "./sampling.js";
import { TYPES, elements, toNumbers } from "./safetensors.js";

/** @type {Reading} for a model.json that was written before it held one */
const READING = { largest_piece: 256 };

/** What the engines of both graphs have in common: the state, and how a graph is run. */
class Engine {
  /** The most tokens that one call of `write` gives. */
  chunk = 1;
  /** @type {Promise<any>} the runs so far: a session of ONNX Runtime does one at a time */
  #queue = Promise.resolve();

  /**
   * @param {any} ort the module of ONNX Runtime
   * @param {any} session
   * @param {Entry[]} entries
   * @param {() => Promise<any> | null} openSequence a session with the sequence graph
   * @param {Reading} [reading]
   */
  constructor(ort, session, entries, openSequence, reading = READING) {
    this.ort = ort;
    this.session = session;
    this.entries = entries;
    this.openSequence = openSequence;
    this.reading = reading;
    this.initial = this.leavesOf(this.initState());
  }

  /** @returns {State} the state before the first token */
  initState() {
    return this.entries.map(({ shape, dtype, initial }) => {
      const { size, view } = TYPES[dtype];
      if (typeof initial === "string") {
        const bytes = Uint8Array.from(atob(initial), (character) => character.charCodeAt(0));
        return this.#tensor(dtype, bytes, shape);
      }
      const value = new view(1);
      value[0] = size === 8 && dtype !== "float64" ? BigInt(initial) : initial;
      if (dtype === "float16") value[0] = halfBits(initial);
      const one = new Uint8Array(value.buffer);
      const bytes = Uint8Array.from({ length: elements(shape) * size }, (_, at) => one[at % size]);
      return this.#tensor(dtype, bytes, shape);
    });
  }

  /** @param {State} state @returns {Map<string, Leaf>} leaves by name, with a batch axis of 1 */
  leavesOf(state) {
    return new Map(
      this.entries.map(({ name, dtype }, index) => {
        const { data, dims } = state[index];
        const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
        return [name, { dtype, shape: [...dims], bytes }];
      }),
    );
  }

  /** @param {Map<string, Leaf>} leaves @returns {State} */
  stateFrom(leaves) {
    return this.entries.map(({ name, dtype, shape }) => {
      const leaf = /** @type {Leaf} */ (leaves.get(name));
      return this.#tensor(dtype, leaf.bytes, shape);
    });
  }

  /**
   * Whether all numbers are finite, but for infinities that are there from the beginning.
   * @param {Map<string, Leaf>} leaves
   */
  isFinite(leaves) {
    return this.entries.every(({ name, dtype }) => {
      if (!dtype.startsWith("float")) return true;
      const numbers = Array.from(toNumbers(/** @type {Leaf} */ (leaves.get(name))));
      if (numbers.every(Number.isFinite)) return true;
      const initial = toNumbers(/** @type {Leaf} */ (this.initial.get(name)));
      return numbers.every((value, at) => Number.isFinite(value) || value === initial[at]);
    });
  }

  /** The state after more tokens. @param {number[]} tokens @param {State} state */
  async read(tokens, state) {
    const sequence = tokens.length ? await this.openSequence() : null;
    if (!sequence) {
      for (const token of tokens) state = await /** @type {any} */ (this).readOne(token, state);
      return state;
    }
    let start = 0;
    for (const size of pieces(tokens.length, this.reading.largest_piece)) {
      const given = { tokens: this.int64(tokens.slice(start, start + size), [1, size]) };
      ({ state } = await this.run(sequence, given, state));
      start += size;
    }
    return state;
  }

  /**
   * The output `result`, where one is named, and the next state.
   * @param {any} session @param {Record<string, any>} given @param {State} state
   * @param {string[]} result
   */
  async run(session, given, state, ...result) {
    const feeds = { ...given };
    this.entries.forEach(({ input }, index) => (feeds[input] = state[index]));
    const wanted = [...result, ...this.entries.map(({ output }) => output)];
    const turn = this.#queue.then(() => session.run(feeds, wanted));
    this.#queue = turn.catch(() => {}); // an error is its own caller's
    const found = await turn;
    return {
      data: found[result[0]]?.data,
      state: this.entries.map((entry) => found[entry.output]),
    };
  }

  /** @param {number[]} values @param {number[]} shape */
  int64(values, shape) {
    return new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
  }

  /** @param {string} dtype @param {Uint8Array} bytes @param {number[]} shape of a row */
  #tensor(dtype, bytes, shape) {
    const values = new TYPES[dtype].view(bytes.slice().buffer);
    return new this.ort.Tensor(dtype, values, [1, ...shape]);
  }

  /** @param {boolean} finite */
  requireFinite(finite) {
    if (!finite)
      throw new Error("the model's logits are not finite; begin again, or restore a snapshot.");
  }
}

/** The generate graph: the loop and the choice of each token are in it. */
export class GenerateEngine extends Engine {
  chunk = 32;

  /** A step whose token is left aside. @param {number} token @param {State} state */
  async readOne(token, state) {
    const greedy = { temperature: 0, topK: 0, topP: 1 };
    return (await this.write(token, state, new Float32Array(1), greedy)).state;
  }

  /**
   * Tokens that continue `last`, one for each number of `uniform`, and the state that has read
   * `last` and all of them but the last.
   * @param {number} last @param {State} state @param {Float32Array} uniform
   * @param {Sampling} sampling
   */
  async write(last, state, uniform, { temperature, topK, topP }) {
    const floats = (/** @type {Float32Array} */ values, ...shape) =>
      new this.ort.Tensor("float32", values, shape);
    const given = {
      token: this.int64([last], [1]),
      uniform: floats(uniform, uniform.length, 1),
      temperature: floats(Float32Array.of(temperature), 1),
      top_k: this.int64([topK], [1]),
      top_p: floats(Float32Array.of(topP), 1),
    };
    const { data, state: next } = await this.run(this.session, given, state, "tokens");
    this.requireFinite(this.isFinite(this.leavesOf(next)));
    return { tokens: Array.from(data, Number), state: next };
  }
}

/** The step graph: it gives logits, and the token is chosen here. */
export class StepEngine extends Engine {
  /** @param {number} token @param {State} state */
  async readOne(token, state) {
    return (await this.run(this.session, { token: this.int64([token], [1]) }, state)).state;
  }

  /**
   * As the generate graph's.
   * @param {number} last @param {State} state @param {Float32Array} uniform
   * @param {Sampling} sampling
   */
  async write(last, state, uniform, sampling) {
    const tokens = [];
    for (const number of uniform) {
      const given = { token: this.int64([tokens.at(-1) ?? last], [1]) };
      const { data: logits, state: next } = await this.run(this.session, given, state, "logits");
      this.requireFinite(logits.every(Number.isFinite));
      tokens.push(choose(logits, number, sampling));
      state = next;
    }
    return { tokens, state };
  }
}

/**
 * The sizes of the pieces in which prompts are read, powers of two. They are Python's (see
 * zoo/inference/prompts.py), as a graph may round differently in others.
 * @param {number} length @param {number} largest
 */
function* pieces(length, largest) {
  while (length) {
    const size = Math.min(largest, 2 ** (31 - Math.clz32(length)));
    yield size;
    length -= size;
  }
}

/** The bits of a number as float16, which is exact: it was one before. @param {number} number */
function halfBits(number) {
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (size < 2 ** -14) return sign | (size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  return sign | ((exponent + 15) << 10) | ((size / 2 ** exponent - 1) * 0x400);
}
