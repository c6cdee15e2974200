/**
 * How the next token is chosen. The generate graph chooses by itself; for the step graph it is done
 * here, by the same operations as `zoo.inference.sampling` in Python, in doubles.
 *
 * @typedef {{temperature: number, topK: number, topP: number}} Sampling
 */

const NOTHING = 1e-30; // what float32 cannot tell from 0

/** The settings, checked. @param {Partial<Sampling>} given @returns {Sampling} */
export function checkSampling({ temperature = 0, topK = 0, topP = 1 }) {
  if (!(temperature >= 0 && temperature <= 1000)) {
    throw new RangeError(`temperature must be from 0 to 1000 (got ${temperature}).`);
  }
  if (!(Number.isInteger(topK) && topK >= 0 && topK < 2 ** 31)) {
    throw new RangeError(`top-k must be an integer from 0 to ${2 ** 31 - 1} (got ${topK}).`);
  }
  if (!(topP >= NOTHING && topP <= 1)) {
    throw new RangeError(`top-p must be above 0 and at most 1 (got ${topP}).`);
  }
  return { temperature: temperature < NOTHING ? 0 : temperature, topK, topP };
}

/**
 * @param {Float32Array} logits of the vocabulary
 * @param {number} uniform at least 0 and below 1
 * @param {Sampling} sampling
 * @returns {number} a token
 */
export function choose(logits, uniform, { temperature, topK, topP }) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const scaled = Float64Array.from(logits, (logit) => logit / Math.fround(temperature));
  const largest = scaled.reduce((a, b) => Math.max(a, b));
  let weights = scaled.map((value) => Math.exp(value - largest));
  const total = weights.reduce((a, b) => a + b);
  weights = weights.map((weight) => weight / total);
  const least = Math.fround(topP);
  const filters = (topK > 0 && topK < logits.length) || least < 1;
  if (filters) weights = keepLikely(weights, topK || logits.length, least);
  let sum = 0;
  const mass = weights.map((weight) => (sum += weight));
  const draw = filters ? uniform * sum : uniform;
  return Math.max(
    mass.findIndex((value) => value > draw),
    0,
  );
}

/**
 * The probabilities, with those of tokens that are not to be chosen zero. Tokens as likely as the
 * last one kept are kept too.
 * @param {Float64Array} weights @param {number} count @param {number} share
 */
function keepLikely(weights, count, share) {
  const falling = weights.slice().sort().reverse().slice(0, count);
  const last = falling[falling.length - 1];
  const kept = weights.map((weight) => (weight < last ? 0 : weight));
  const enough = kept.reduce((a, b) => a + b) * share;
  let [edge, before] = [1, 0];
  for (const weight of falling) {
    if (before < enough) edge = Math.min(edge, weight);
    before += weight;
  }
  return kept.map((weight) => (weight < edge ? 0 : weight));
}
