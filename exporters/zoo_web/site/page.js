/** The page: a form, the text as it is written, and a picture of the state. */

import { Picture } from "./picture.js";
import { NAMES, escape, fromAddress, parse, toAddress } from "./settings.js";

/** @typedef {import("./settings.js").Settings} Settings */

const element = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const [text, form] = [element("text"), element("settings")];
const [runButton, stopButton, againButton] = [
  element("run"),
  element("stop-writing"),
  element("reseed"),
];
const picture = new Picture(element("canvas"));
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const query = new URLSearchParams(location.search);
// not form.elements[name]: its length is another one
const field = (/** @type {string} */ name) => form.elements.namedItem(name);
const count = (/** @type {number} */ value) => Math.round(value).toLocaleString("en");

/** @type {Text} what the model has written */
let continuation = document.createTextNode("");
/** @type {number[]} how long it was at each column of the picture */
let moments = [];
/** @type {number[]} how many values each leaf of the state has */
let sizes = [];

/** @param {"idle" | "running" | "done" | "error"} state */
function show(state) {
  text.dataset.state = state;
  const running = state === "running";
  [runButton.disabled, againButton.disabled, stopButton.disabled] = [running, running, !running];
}

/** @param {string} message */
function fail(message) {
  text.textContent = message;
  element("status").textContent = element("speed").textContent = "";
  show("error");
}

/** @returns {Record<string, string>} */
const texts = () => Object.fromEntries(NAMES.map((name) => [name, field(name).value]));

function run() {
  /** @type {Settings} */
  let settings;
  try {
    settings = parse(texts());
  } catch (error) {
    fail(/** @type {Error} */ (error).message);
    return;
  }
  history.replaceState(null, "", toAddress(texts()));
  const prompt = document.createElement("span");
  prompt.className = "prompt";
  prompt.textContent = settings.prompt;
  [continuation, moments] = [document.createTextNode(""), []];
  text.replaceChildren(prompt, continuation);
  picture.clear(1);
  element("status").textContent = "Reading the prompt…";
  element("speed").textContent = "";
  show("running");
  worker.postMessage({ type: "run", settings });
}

const handlers = {
  loaded({ info, device }) {
    describe(info, device);
    field("prompt").value ||= info.prompt;
    for (const { name } of info.state) element("leaf").add(new Option(name));
    sizes = info.state.map(({ shape }) => shape.reduce((product, size) => product * size, 1));
    picture.bounds = info.state.map(({ bound }) => bound ?? Infinity);
    element("status").textContent = "";
    start();
  },
  started({ unknown, width }) {
    picture.clear(width);
    element("picture").hidden = false;
    element("status").textContent = unknown && `The model does not know ${escape(unknown)}`;
  },
  written({ text: more, columns, tokens, seconds }) {
    const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    continuation.appendData(more);
    if (atEnd) text.scrollTop = text.scrollHeight;
    if (columns.length) {
      picture.add(columns.map(({ leaves }) => leaves));
      moments.push(...columns.map(({ end }) => end));
      caption();
    }
    const rate = tokens / seconds;
    if (tokens) element("speed").textContent = `${count(tokens)} tokens, ${count(rate)} per second`;
    requestAnimationFrame(() => worker.postMessage({ type: "shown" }));
  },
  done() {
    picture.sort();
    show("done");
  },
  error: ({ message }) => fail(message),
};

function caption() {
  const units = sizes[picture.leaf];
  const shown = picture.rows < units ? `${picture.rows} of ${count(units)}` : count(units);
  element("rows").textContent = `${shown} units`;
  const scale = picture.scale.toPrecision(2);
  element("least").textContent = element("most").textContent = scale;
}

worker.addEventListener("message", ({ data }) => handlers[data.type](data));
worker.addEventListener("error", ({ message }) =>
  fail(message || "The page's files are incomplete."),
);

/** Says what the model is. @param {import("./zoo.js").Info} info @param {string} device */
function describe({ model, training, card, graphs, precision }, device) {
  const title = card?.title ?? model.cell;
  document.title = element("title").textContent = title;
  element("source").textContent = card ? `${card.authors}, ${card.year}` : "";
  const graph = graphs[device === "wasm" && graphs.generate ? "generate" : "step"];
  const perplexity = training.held_out_perplexity ?? training.train_perplexity;
  const facts = {
    cell: model.cell,
    "hidden units": `${model.layers} × ${model.hidden}`,
    "trained on": training.corpus,
    perplexity: perplexity?.toFixed(2),
    size: `${count(graph.bytes / 1000)} kB`,
    precision,
    "runs on": device === "wasm" ? "WebAssembly" : "WebGPU",
  };
  for (const [name, value] of Object.entries(facts)) {
    if (!value) continue;
    const [fact, term, detail] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
    [term.textContent, detail.textContent] = [name, value];
    fact.append(term, detail);
    element("facts").append(fact);
  }
  element("card").hidden = !card;
  element("paper").textContent = card?.paper ?? "";
  element("equations").textContent = card?.equations.join("\n") ?? "";
}

/** When the model is there: what the address asks for. */
function start() {
  if (text.dataset.state === "error") return;
  if (query.get("run") === "1") run();
  else show("idle");
}

form.addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  run();
});
stopButton.addEventListener("click", () => worker.postMessage({ type: "stop" }));
againButton.addEventListener("click", () => {
  field("seed").value = String(Math.floor(Math.random() * 2 ** 32));
  run();
});
element("leaf").addEventListener("change", () => {
  picture.leaf = element("leaf").selectedIndex;
  picture.draw();
  caption();
});

// the mouse over the picture marks what was written at that time
picture.canvas.addEventListener("mousemove", (event) => {
  const column = Math.floor((event.offsetX / picture.canvas.clientWidth) * picture.width);
  if (!globalThis.Highlight || column >= moments.length) return;
  const range = new Range();
  range.setStart(continuation, column ? moments[column - 1] : 0);
  range.setEnd(continuation, moments[column]);
  CSS.highlights.set("moment", new Highlight(range));
});
picture.canvas.addEventListener("mouseleave", () => CSS.highlights?.delete("moment"));

try {
  for (const [name, value] of Object.entries(fromAddress(location.search))) {
    field(name).value = value;
  }
  parse({ ...texts(), prompt: query.get("prompt") ?? "?" });
  if (query.get("run") === "1") show("running");
} catch (error) {
  fail(/** @type {Error} */ (error).message);
}
worker.postMessage({ type: "load", device: query.get("device") ?? undefined });
