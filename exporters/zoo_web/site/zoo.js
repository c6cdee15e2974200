/**
 * A recurrent language model in the browser: `load` a folder that `zoo export RUN --to web` wrote,
 * open sessions on it, feed them text and take what they write.
 *
 *     import { load } from "./zoo.js";
 *     const model = await load("./");
 *     const session = model.session({ seed: 7 });
 *     await session.feed("time traveller");
 *     for await (const piece of session.sample({ length: 200, temperature: 0.7 })) show(piece);
 *
 * With the same seed the text is that of `zoo generate`.
 *
 * @typedef {import("./safetensors.js").Leaf} Leaf
 * @typedef {import("./sampling.js").Sampling} Sampling
 * @typedef {import("./engines.js").Entry} Entry
 * @typedef {import("./engines.js").State} State
 * @typedef {{file: string, bytes: number}} GraphFile
 * @typedef {{module: string, binary: string}} RuntimeFiles
 * @typedef {(leaves: Map<string, Leaf>, tokens: number) => void} Watch is told the state, and how
 *   many tokens were written before it
 * @typedef {{before: State, last: number, random: Random, sampling: Sampling, tokens: number[],
 *   after: State, taken: number}} Chunk tokens written ahead, and what they were written from
 * @typedef {object} Info the content of model.json
 * @property {Record<string, GraphFile>} graphs files by the kind of their graph
 * @property {Record<string, RuntimeFiles>} runtime ONNX Runtime's files by device
 * @property {import("./engines.js").Reading} [reading]
 * @property {(Entry & {bound: number | null})[]} state
 * @property {import("./tokenizer.js").Description} tokenizer
 * @property {string} prompt the one that the model was shown with
 * @property {Record<string, any>} model cell, sizes and options
 * @property {Record<string, any>} training where the weights come from
 * @property {Record<string, any> | null} card what the cell is
 * @property {string} precision
 */

import { GenerateEngine, StepEngine } from "./engines.js";
import { Random } from "./random.js";
import { readSafetensors, toNumbers, writeSafetensors } from "./safetensors.js";
import { checkSampling } from "./sampling.js";
import { Stops } from "./stops.js";
import { makeTokenizer } from "./tokenizer.js";

export { toNumbers };

export const DEFAULT_LENGTH = 200;
const [LAST, RANDOM] = ["last_token", "random"];
const THREAD_BYTES = 2 ** 21; // of a model: for less, a second thread costs more than it brings

/**
 * The model in the folder at `url`, by default that of this module.
 * @param {string | URL} [url]
 * @param {{device?: "wasm" | "webgpu"}} [options] on "webgpu" the step graph runs on the GPU where
 *   the browser gives access to one, and otherwise the model runs as on "wasm"
 * @returns {Promise<Model>}
 */
export async function load(url = new URL("./", import.meta.url), { device = "wasm" } = {}) {
  if (device !== "wasm" && device !== "webgpu") {
    throw new RangeError(`device must be "wasm" or "webgpu" (got "${device}").`);
  }
  const base = new URL(
    String(url).replace(/\/?$/, "/"),
    globalThis.location?.href ?? import.meta.url,
  );
  /** @type {Info} */
  const info = await (await get(new URL("model.json", base))).json();
  const gpu = /** @type {any} */ (globalThis.navigator)?.gpu;
  const onGpu = device === "webgpu" && info.graphs.step && (await gpu?.requestAdapter());
  const found = onGpu ? "webgpu" : "wasm";
  const files = info.runtime[found];
  const ort = await import(String(new URL(files.module, base)));
  const graph = onGpu || !info.graphs.generate ? "step" : "generate";
  ort.env.wasm.wasmPaths = { wasm: String(new URL(files.binary, base)) };
  ort.env.wasm.numThreads = onGpu ? 1 : threads(info.graphs[graph].bytes);
  ort.env.logLevel = "error";

  const open = async (/** @type {string} */ kind) => {
    const file = await (await get(new URL(info.graphs[kind].file, base))).arrayBuffer();
    const options = { executionProviders: [found] };
    return ort.InferenceSession.create(new Uint8Array(file), options);
  };
  /** @type {Promise<any> | null} */
  let sequence = null;
  const openSequence = () => (sequence ??= info.graphs.sequence ? open("sequence") : null);
  const Kind = graph === "step" ? StepEngine : GenerateEngine;
  const engine = new Kind(ort, await open(graph), info.state, openSequence, info.reading);
  return new Model(info, engine, found);
}

/** @param {URL} url */
async function get(url) {
  const answer = await fetch(url).catch((error) => {
    throw new Error(`${url} cannot be fetched: ${error.message}.`);
  });
  if (!answer.ok)
    throw new Error(`${url} cannot be fetched: ${answer.status} ${answer.statusText}.`);
  return answer;
}

/** Threads need memory that pages share, which only isolated ones get. @param {number} bytes */
function threads(bytes) {
  if (!globalThis.crossOriginIsolated) return 1;
  return Math.min(Math.ceil(bytes / THREAD_BYTES), navigator.hardwareConcurrency ?? 1);
}

/** What `load` gives: the weights, which any number of sessions share. */
export class Model {
  /**
   * @param {Info} info
   * @param {GenerateEngine | StepEngine} engine
   * @param {string} device that it runs on
   */
  constructor(info, engine, device) {
    this.info = info;
    this.engine = engine;
    this.device = device;
    this.tokenizer = makeTokenizer(info.tokenizer);
  }

  /** A stream of text of its own. @param {{seed?: number | bigint}} options */
  session({ seed = 0 } = {}) {
    return new Session(this, new Random(seed));
  }
}

/**
 * Text goes in by `feed` and comes out by `sample`; both move the state on. What the graph has
 * written ahead and nobody has taken is discarded before anything else happens.
 */
export class Session {
  #model;
  #random;
  /** @type {State} */
  #state;
  /** @type {number | null} the last token, which the state has not read yet */
  #last = null;
  /** @type {Chunk | null} tokens written ahead */
  #chunk = null;

  /** @param {Model} model @param {Random} random */
  constructor(model, random) {
    this.#model = model;
    this.#random = random;
    this.#state = model.engine.initState();
  }

  /**
   * Reads text.
   * @param {string} text
   * @returns {Promise<string>} its characters that are not in the vocabulary, which the model reads
   *   as unknown
   */
  async feed(text) {
    const { tokenizer, engine } = this.#model;
    if (!text)
      throw new RangeError("the prompt is empty; give at least one character to continue from.");
    await this.#settle();
    if (this.#last !== null && this.#last === tokenizer.endOfText) {
      [this.#state, this.#last] = [engine.initState(), null];
    }
    const tokens = tokenizer.encode(text);
    const unread = this.#last === null ? tokens : [this.#last, ...tokens];
    this.#state = await engine.read(unread.slice(0, -1), this.#state);
    this.#last = unread[unread.length - 1];
    return tokenizer.unknown(text);
  }

  /**
   * Up to `length` tokens that continue the text, as pieces of text. It ends after a token or text
   * in `stop`, which is part of it.
   * @param {Partial<Sampling> & {length?: number, stop?: string | (string | number)[],
   *   chunk?: number, watch?: Watch}} options `chunk` is how many tokens are written ahead at most;
   *   `watch` is called after each chunk.
   * @returns {AsyncGenerator<string, void, void>}
   */
  sample({ length = DEFAULT_LENGTH, stop = [], chunk = Infinity, watch, ...settings } = {}) {
    const sampling = checkSampling(settings);
    const stops = new Stops(stop, this.#model.tokenizer);
    if (!Number.isSafeInteger(length) || length < 0) {
      throw new RangeError(`length must be an integer from 0 on (got ${length}).`);
    }
    if (!(chunk >= 1)) throw new RangeError(`chunk must be at least 1 (got ${chunk}).`);
    if (this.#last === null && !this.#chunk) {
      throw new Error("nothing has been read yet; feed some text before sampling.");
    }
    return this.#pieces(length, sampling, stops, chunk, watch);
  }

  /**
   * @param {number} length @param {Sampling} sampling @param {Stops} stops @param {number} size
   * @param {Watch | undefined} watch
   */
  async *#pieces(length, sampling, stops, size, watch) {
    const decoder = this.#model.tokenizer.decoder();
    /** @type {number[]} */
    const written = [];
    let stopped = false;
    while (written.length < length && !stopped) {
      const chunk = await this.#writeAhead(Math.min(length - written.length, size), sampling);
      while (chunk === this.#chunk && chunk.taken < chunk.tokens.length && !stopped) {
        written.push(chunk.tokens[chunk.taken++]);
        stopped = stops.hit(written);
        const text = decoder.push(written[written.length - 1]);
        if (text) yield text;
      }
      watch?.(await this.state(), written.length);
    }
    const rest = decoder.end();
    if (rest) yield rest;
  }

  /** The state after all text that was fed or taken: its leaves by name. */
  async state() {
    await this.#settle();
    return this.#model.engine.leavesOf(this.#state);
  }

  /** The whole session as bytes, which `zoo.Session.restore` reads in Python too. */
  async snapshot() {
    const leaves = await this.state();
    if (this.#last !== null) {
      const bytes = new Uint8Array(BigInt64Array.of(BigInt(this.#last)).buffer);
      leaves.set(LAST, { dtype: "int64", shape: [], bytes });
    }
    const bytes = new TextEncoder().encode(this.#random.toJSON());
    leaves.set(RANDOM, { dtype: "uint8", shape: [bytes.length], bytes });
    return writeSafetensors(leaves);
  }

  /**
   * Goes back to a snapshot of a session over this model, taken here or in Python. After an Error,
   * for one that is damaged or of another model, nothing has changed.
   * @param {Uint8Array} bytes
   */
  restore(bytes) {
    const { engine, tokenizer } = this.#model;
    let leaves, random;
    try {
      leaves = readSafetensors(bytes);
      random = Random.fromJSON(new TextDecoder().decode(leaves.get(RANDOM)?.bytes));
    } catch (error) {
      throw new Error(`the snapshot is damaged: ${/** @type {Error} */ (error).message}.`);
    }
    const kept = leaves.get(LAST);
    const last = kept ? toNumbers(kept)[0] : null;
    leaves.delete(LAST);
    leaves.delete(RANDOM);
    const form = (/** @type {Map<string, Leaf>} */ of) =>
      [...of]
        .map(([name, { dtype, shape }]) => `${name} ${dtype} [${shape}]`)
        .sort()
        .join(", ");
    if (form(leaves) !== form(engine.initial)) {
      throw new Error(`the snapshot is of another model: its state is ${form(leaves)}.`);
    }
    if (last !== null && !(Number.isInteger(last) && last >= 0 && last < tokenizer.vocabSize)) {
      throw new Error("the snapshot is of another model: its last token is not in this one's.");
    }
    if (!engine.isFinite(leaves)) {
      throw new Error("the snapshot is damaged: its state has numbers that are not finite.");
    }
    this.#chunk = null;
    [this.#state, this.#last, this.#random] = [engine.stateFrom(leaves), last, random];
  }

  /** @param {number} wanted @param {Sampling} sampling */
  async #writeAhead(wanted, sampling) {
    const { engine, tokenizer } = this.#model;
    await this.#settle();
    const last = /** @type {number} */ (this.#last);
    if (last === tokenizer.endOfText)
      throw new Error("the text has ended; feed some to begin another.");
    const [before, random] = [this.#state, this.#random.copy()];
    const uniform = this.#random.floats(Math.min(wanted, engine.chunk));
    const { tokens, state: after } = await engine.write(last, before, uniform, sampling);
    const chunk = { before, last, random, sampling, tokens, after, taken: 0 };
    return (this.#chunk = chunk);
  }

  /** Moves to the last token that was taken; a part of a chunk is written again, up to there. */
  async #settle() {
    const chunk = this.#chunk;
    this.#chunk = null;
    if (!chunk) return;
    if (chunk.taken) this.#last = chunk.tokens[chunk.taken - 1];
    if (chunk.taken === chunk.tokens.length) {
      this.#state = chunk.after;
      return;
    }
    this.#random = chunk.random;
    const uniform = this.#random.floats(chunk.taken);
    if (!chunk.taken) return;
    const { state } = await this.#model.engine.write(
      chunk.last,
      chunk.before,
      uniform,
      chunk.sampling,
    );
    this.#state = state;
  }
}
