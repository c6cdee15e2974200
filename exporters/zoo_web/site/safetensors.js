/**
 * Files of safetensors: eight bytes with the length of a JSON header, the header, and the values of
 * all tensors, little-endian.
 *
 * @typedef {{dtype: string, shape: number[], bytes: Uint8Array}} Leaf `dtype` is NumPy's name
 */

/** NumPy's names of the types: those of safetensors, bytes of one number, and what views them. */
export const TYPES = {
  float16: { name: "F16", size: 2, view: Uint16Array },
  float32: { name: "F32", size: 4, view: Float32Array },
  float64: { name: "F64", size: 8, view: Float64Array },
  bool: { name: "BOOL", size: 1, view: Uint8Array },
  int8: { name: "I8", size: 1, view: Int8Array },
  int16: { name: "I16", size: 2, view: Int16Array },
  int32: { name: "I32", size: 4, view: Int32Array },
  int64: { name: "I64", size: 8, view: BigInt64Array },
  uint8: { name: "U8", size: 1, view: Uint8Array },
  uint16: { name: "U16", size: 2, view: Uint16Array },
  uint32: { name: "U32", size: 4, view: Uint32Array },
  uint64: { name: "U64", size: 8, view: BigUint64Array },
};

/** @param {number[]} shape */
export const elements = (shape) => shape.reduce((product, size) => product * size, 1);

/**
 * @param {Map<string, Leaf>} leaves
 * @returns {Uint8Array}
 */
export function writeSafetensors(leaves) {
  // wide numbers first, so that each begins at a multiple of its size
  const size = (/** @type {Leaf} */ leaf) => TYPES[leaf.dtype].size;
  const ordered = [...leaves].sort(([, a], [, b]) => size(b) - size(a));
  /** @type {Record<string, object>} */
  const header = {};
  let end = 0;
  for (const [name, { dtype, shape, bytes }] of ordered) {
    const data_offsets = [end, (end += bytes.length)];
    header[name] = { dtype: TYPES[dtype].name, shape, data_offsets };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const start = 8 + Math.ceil(text.length / 8) * 8; // spaces fill the header up
  const file = new Uint8Array(start + end).fill(0x20, 8, start);
  new DataView(file.buffer).setBigUint64(0, BigInt(start - 8), true);
  file.set(text, 8);
  let place = start;
  for (const [, { bytes }] of ordered) {
    file.set(bytes, place);
    place += bytes.length;
  }
  return file;
}

/**
 * @param {Uint8Array} file
 * @returns {Map<string, Leaf>} an Error for a file that is damaged
 */
export function readSafetensors(file) {
  file = new Uint8Array(file.buffer, file.byteOffset, file.byteLength); // slices of others share it
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = Number(view.getBigUint64(0, true));
  if (length > file.length - 8) throw new Error("its header is longer than the file");
  const text = new TextDecoder("utf-8", { fatal: true }).decode(file.subarray(8, 8 + length));
  const values = file.subarray(8 + length);
  const leaves = new Map();
  for (const [name, { dtype: short, shape, data_offsets }] of Object.entries(JSON.parse(text))) {
    if (name === "__metadata__") continue;
    const dtype = Object.keys(TYPES).find((known) => TYPES[known].name === short);
    if (dtype === undefined) throw new Error(`${name} is of an unknown type`);
    const [begin, end] = data_offsets;
    if (
      end - begin !== elements(shape) * TYPES[dtype].size ||
      !(begin >= 0 && end <= values.length)
    ) {
      throw new Error(`${name} does not fill its shape`);
    }
    leaves.set(name, { dtype, shape, bytes: values.slice(begin, end) });
  }
  return leaves;
}

/** The values of a leaf. @param {Leaf} leaf @returns {ArrayLike<number>} */
export function toNumbers({ dtype, bytes }) {
  const values = new TYPES[dtype].view(bytes.slice().buffer);
  if (dtype === "float16") return Float32Array.from(/** @type {any} */ (values), halfToNumber);
  return dtype.endsWith("int64") ? Float64Array.from(/** @type {any} */ (values), Number) : values;
}

/** @param {number} bits of a float16 */
function halfToNumber(bits) {
  const [exponent, fraction] = [(bits >> 10) & 0x1f, bits & 0x3ff];
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (0x400 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}
