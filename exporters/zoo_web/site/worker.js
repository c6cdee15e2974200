/**
 * Runs the model apart from the page, which stays responsive. The page sends
 * {type: "load", device}, {type: "run", settings}, {type: "stop"}, and {type: "shown"} when it has
 * shown what was written; it gets
 *   {type: "loaded", info, device}
 *   {type: "started", unknown, width}: the prompt was read, but for these unknown characters; the
 *     picture of the state will have so many columns
 *   {type: "written", text, columns, tokens, seconds}: more text, and some of the states on the way
 *   {type: "done"} or {type: "error", message}
 *
 * @typedef {{end: number, leaves: Float32Array[]}} Column of the picture: the leaves of a state,
 *   and how long the text was then
 */

import { load, toNumbers } from "./zoo.js";

const COLUMNS = 240; // of the picture of the state, at most
const ROWS = 96; // of the picture of each leaf, at most
const INTERVAL = 33; // milliseconds between messages

/** @type {import("./zoo.js").Model} */
let model;
let stopped = false;
let shown = true; // what was told: a page that is slower than the model is not to fall behind

addEventListener("message", async ({ data }) => {
  try {
    if (data.type === "stop") stopped = true;
    if (data.type === "shown") shown = true;
    if (data.type === "load") {
      model = await load(undefined, { device: data.device });
      postMessage({ type: "loaded", info: model.info, device: model.device });
    }
    if (data.type === "run") await run(data.settings);
  } catch (error) {
    postMessage({ type: "error", message: /** @type {Error} */ (error).message });
  }
});

/** @param {import("./page.js").Settings} settings */
async function run({ prompt, seed, length, stop, ...sampling }) {
  [stopped, shown] = [false, true];
  const session = model.session({ seed });
  const unknown = await session.feed(prompt);
  const chunk = Math.max(Math.ceil(length / COLUMNS), 1); // tokens for each column, at least
  postMessage({ type: "started", unknown, width: Math.ceil(length / chunk) });
  const begin = performance.now();
  let [looked, text, tokens, written, made] = [begin, "", 0, 0, 0];
  /** @type {Column[]} */
  let columns = [];
  const tell = () => {
    const seconds = (performance.now() - begin) / 1000;
    postMessage({ type: "written", text, columns, tokens, seconds });
    [text, columns, shown] = ["", [], false];
  };
  const watch = (/** @type {Map<string, any>} */ leaves, /** @type {number} */ count) => {
    tokens = count;
    if (count <= made * chunk) return;
    made++;
    columns.push({ end: written, leaves: [...leaves.values()].map(sampleRows) });
  };
  for await (const piece of session.sample({ length, stop, chunk, watch, ...sampling })) {
    text += piece;
    written += piece.length;
    if (performance.now() - looked < INTERVAL) continue;
    await untilMessagesAreRead();
    if (stopped) break;
    if (shown) tell();
    looked = performance.now();
  }
  tell();
  postMessage({ type: "done" });
}

/** Some values of a leaf at equal distances. @param {import("./zoo.js").Leaf} leaf */
function sampleRows(leaf) {
  const values = toNumbers(leaf);
  const rows = Math.min(values.length, ROWS);
  const at = (/** @type {number} */ row) =>
    Number(values[Math.floor((row * values.length) / rows)]);
  return Float32Array.from({ length: rows }, (_, row) => at(row));
}

/** ONNX Runtime runs without a break, so that a request to stop would wait for the end. */
function untilMessagesAreRead() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), resolve(undefined));
    port2.postMessage(null);
  });
}
