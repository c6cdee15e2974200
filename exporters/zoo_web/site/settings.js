/**
 * The settings of a text: in the form, as texts, and in the page's address.
 *
 * @typedef {import("./sampling.js").Sampling & {prompt: string, length: number, seed: bigint,
 *   stop: string[]}} Settings
 */

import { checkSampling } from "./sampling.js";

export const NAMES = ["prompt", "temperature", "top_k", "top_p", "length", "seed", "stop"];
const ESCAPES = { "\\": "\\\\", "\n": "\\n", "\t": "\\t" };

/** Settings that a person can mean; a RangeError, which says what is wrong, for others.
 * @param {Record<string, string>} texts @returns {Settings} */
export function parse(texts) {
  if (!texts.prompt) {
    throw new RangeError("The prompt is empty; give at least one character to continue from.");
  }
  const sampling = checkSampling({
    temperature: number(texts, "temperature"),
    topK: integer(texts, "top_k"),
    topP: number(texts, "top_p"),
  });
  const seed = BigInt(digits(texts, "seed"));
  if (seed >= 2n ** 63n) throw new RangeError(`seed must be below 2^63 (got ${seed}).`);
  const stop = texts.stop ? [unescape(texts.stop)] : [];
  return { prompt: texts.prompt, length: integer(texts, "length"), seed, stop, ...sampling };
}

/** @param {Record<string, string>} texts @param {string} name */
function number(texts, name) {
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(texts[name])) {
    throw new RangeError(`${name} must be a number (got "${texts[name]}").`);
  }
  return Number(texts[name]);
}

/** @param {Record<string, string>} texts @param {string} name */
function digits(texts, name) {
  if (!/^\d+$/.test(texts[name])) {
    throw new RangeError(`${name} must be an integer from 0 on (got "${texts[name]}").`);
  }
  return texts[name];
}

/** @param {Record<string, string>} texts @param {string} name */
function integer(texts, name) {
  const found = Number(digits(texts, name));
  if (!Number.isSafeInteger(found)) {
    throw new RangeError(`${name} is too large (got ${texts[name]}).`);
  }
  return found;
}

/** What the form shows for a text. @param {string} text */
export const escape = (text) => text.replace(/[\\\n\t]/g, (found) => ESCAPES[found]);

/** @param {string} shown */
const unescape = (shown) =>
  shown.replace(/\\(\\|n|t)/g, (_, letter) => ({ n: "\n", t: "\t" })[letter] ?? letter);

/** The texts of the form that an address asks for. @param {string} query */
export function fromAddress(query) {
  const given = new URLSearchParams(query);
  /** @type {Record<string, string>} */
  const texts = {};
  for (const name of NAMES) {
    const [value, ...more] = given.getAll(name);
    if (more.length) throw new RangeError(`the address has ${name} more than once.`);
    if (value !== undefined) texts[name] = name === "stop" ? escape(value) : value;
  }
  return texts;
}

/** The address that gives the same text again. @param {Record<string, string>} texts */
export function toAddress(texts) {
  const query = new URLSearchParams(location.search);
  for (const name of NAMES) query.set(name, name === "stop" ? unescape(texts.stop) : texts[name]);
  if (!texts.stop) query.delete("stop");
  query.set("run", "1");
  return `?${query}`;
}
