// Continues a prompt with a generate graph that the recurrent zoo exported:
//
//   node generate.mjs FILE.onnx --prompt "the " --length 200 --temperature 0.8 --seed 7
//
// It writes what `zoo generate` writes for the same settings and the same seed.

import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";

import ort from "onnxruntime-node";

import { uniforms } from "./random.mjs";
import { makeTokenizer } from "./tokenizers.mjs";

const CHUNK = 32; // tokens of one run
const GREEDY = { temperature: 0, topK: 0, topP: 1 };

class UsageError extends Error {}

async function main() {
  const { file, seed, length, sampling, ...given } = readArguments();
  const content = await readFile(file);
  const metadata = readMetadata(content);
  if (metadata["zoo.graph"] !== "generate")
    throw new Error(`${file} is no generate graph; \`zoo export --graph generate\` makes one`);
  const tokenizer = makeTokenizer(JSON.parse(metadata["zoo.tokenizer"]));
  const prompt = given.prompt ?? JSON.parse(metadata["zoo.training"]).prompt;
  if (!prompt) throw new UsageError("the prompt is empty; give at least one character");
  const model = await openModel(content, metadata);

  let [last, ...rest] = tokenizer.encode(prompt);
  for (const token of rest) {
    await model.write(last, [0], GREEDY); // reads `last`; what it writes is left aside
    last = token;
  }

  process.stdout.write(prompt);
  const random = uniforms(seed);
  let left = length;
  while (left > 0 && last !== tokenizer.end) {
    const uniform = Array.from({ length: Math.min(CHUNK, left) }, () => random.next().value);
    const written = await model.write(last, uniform, sampling);
    const tokens = written.slice(0, written.indexOf(tokenizer.end) + 1 || undefined);
    last = tokens.at(-1);
    left -= tokens.length;
    const text = tokens.filter((token) => token !== tokenizer.end);
    process.stdout.write(tokenizer.decode(text, true));
  }
  process.stdout.write(tokenizer.decode([], false) + "\n");
}

function readArguments() {
  const options = ["prompt", "length", "temperature", "top-k", "top-p", "seed"];
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: Object.fromEntries(options.map((name) => [name, { type: "string" }])),
  });
  if (positionals.length !== 1)
    throw new UsageError("usage: node generate.mjs FILE.onnx [--prompt TEXT] …");

  function number(name, initial, least, most, whole = true) {
    const value = Number(values[name]?.trim() || (values[name] === undefined ? initial : NaN));
    if (!(value >= least && value <= most) || (whole && !Number.isInteger(value)))
      throw new UsageError(`--${name} must be ${whole ? "whole, " : ""}from ${least} to ${most}`);
    return value;
  }

  if (!/^\d+$/.test(values.seed ?? "0"))
    throw new UsageError("--seed must be an integer from 0 on");
  return {
    file: positionals[0],
    prompt: values.prompt,
    length: number("length", 200, 0, 1e9),
    seed: BigInt(values.seed ?? 0),
    sampling: {
      temperature: number("temperature", 0, 0, 1000, false),
      topK: number("top-k", 0, 0, 2 ** 31 - 1),
      topP: number("top-p", 1, 1e-30, 1, false),
    },
  };
}

// The metadata of an ONNX file, which ONNX Runtime's JavaScript API does not give: each field 14 of
// the protobuf message ModelProto is an entry, of a key (field 1) and a value (field 2).
function readMetadata(content) {
  const found = {};
  for (const [field, entry] of readFields(content)) {
    if (field !== 14) continue;
    const { 1: key, 2: value } = Object.fromEntries(readFields(entry));
    found[key.toString()] = value.toString();
  }
  return found;
}

function* readFields(message) {
  let at = 0;
  function readVarint() {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++];
      value += (byte & 127) * scale;
      if (!(byte & 128)) return value;
    }
  }
  while (at < message.length) {
    const tag = readVarint();
    const wireType = tag % 8;
    if (wireType !== 0 && wireType !== 2) throw new Error("this is not an ONNX file");
    const size = readVarint(); // a number is the value itself
    const content = wireType === 2 ? message.subarray(at, (at += size)) : size;
    yield [(tag - wireType) / 8, content];
  }
}

// A model and its state, which is the initial one first.
async function openModel(content, metadata) {
  const options = { intraOpNumThreads: 1, logSeverityLevel: 4 }; // errors are thrown, not logged
  const session = await ort.InferenceSession.create(content, options);
  const entries = JSON.parse(metadata["zoo.state"]);
  const stateInputs = session.inputNames.slice(1, 1 + entries.length);
  const stateOutputs = session.outputNames.slice(1);
  let state = entries.map(initialState);
  const perRow = metadata["zoo.format"] === "1" ? [] : [1]; // format 1 has scalars

  return {
    // Tokens that continue `last`, one for each number of `uniform`. The state has then read `last`
    // and all of them but the last.
    async write(last, uniform, { temperature, topK, topP }) {
      const results = await session.run({
        token: new ort.Tensor("int64", [BigInt(last)], [1]),
        ...Object.fromEntries(stateInputs.map((name, index) => [name, state[index]])),
        uniform: new ort.Tensor("float32", uniform, [uniform.length, 1]),
        temperature: new ort.Tensor("float32", [temperature], perRow),
        top_k: new ort.Tensor("int64", [BigInt(topK)], perRow),
        top_p: new ort.Tensor("float32", [topP], perRow),
      });
      state = stateOutputs.map((name) => results[name]);
      return Array.from(results.tokens.data, Number);
    },
  };
}

const ARRAYS = {
  float16: Uint16Array, float32: Float32Array, float64: Float64Array, bool: Uint8Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
};

// One row of a leaf of the state: a number that fills it, or its bytes in base64.
function initialState({ shape, dtype, initial }) {
  let data;
  if (typeof initial === "string") {
    data = new ARRAYS[dtype](Uint8Array.from(Buffer.from(initial, "base64")).buffer);
  } else {
    const value = { float16: toFloat16, int64: BigInt, uint64: BigInt }[dtype] ?? Number;
    data = new ARRAYS[dtype](shape.reduce((a, b) => a * b, 1)).fill(value(initial));
  }
  return new ort.Tensor(dtype, data, [1, ...shape]);
}

// The bits of a number that float16 has exactly.
function toFloat16(number) {
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(number))), -14);
  const bits = (Math.abs(number) / 2 ** exponent + exponent + 14) * 1024;
  return number < 0 ? bits + 0x8000 : bits;
}

try {
  await main();
} catch (error) {
  const usage = error instanceof UsageError || error.code?.startsWith("ERR_PARSE_ARGS");
  process.exitCode = usage ? 2 : 1;
  console.error(`error: ${error.message.split("\n")[0]}`);
}
