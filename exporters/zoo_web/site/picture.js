/**
 * A heat map of the state: a row for each unit, a column for each moment. When a text is complete,
 * units that change slowly go up and those that change fast go down.
 */

const COLORS = [
  [18, 54, 95],
  [63, 127, 189],
  [247, 243, 234],
  [221, 122, 58],
  [127, 42, 8],
];

export class Picture {
  /** @type {Float32Array[][]} columns by leaf */
  #columns = [];
  #width = 1;
  /** @type {number[][]} the units of each leaf from top to bottom, once they are sorted */
  #orders = [];

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @type {number[]} what the values of each leaf cannot exceed */
    this.bounds = [];
    /** The number of the leaf that is shown. */
    this.leaf = 0;
    /** The values that have the colours at both ends, as a distance from 0. */
    this.scale = 0;
  }

  /** Begins a picture of so many columns. @param {number} width */
  clear(width) {
    [this.#columns, this.#width, this.scale] = [[], Math.max(width, 1), 0];
    this.draw();
  }

  get width() {
    return this.#width;
  }

  /** The number of rows. */
  get rows() {
    return this.#columns[0]?.[this.leaf].length ?? 0;
  }

  /** @param {Float32Array[][]} columns of all leaves */
  add(columns) {
    this.#columns.push(...columns);
    this.draw();
  }

  /** Sorts the units of all leaves by what they change from column to column, for their size. */
  sort() {
    this.#orders = (this.#columns[0] ?? []).map((first, leaf) => {
      const pace = Array.from(first, (_, unit) => {
        let [change, size, before] = [0, 1e-30, first[unit]];
        for (const leaves of this.#columns) {
          change += Math.abs(leaves[leaf][unit] - before);
          size += Math.abs(leaves[leaf][unit]);
          before = leaves[leaf][unit];
        }
        return change / size;
      });
      return [...pace.keys()].sort((a, b) => pace[a] - pace[b]);
    });
    this.draw();
  }

  draw() {
    const shown = this.#columns.map((leaves) => leaves[this.leaf]);
    [this.canvas.width, this.canvas.height] = [this.#width, Math.max(this.rows, 1)];
    const squares = shown.map((column) => column.reduce((sum, value) => sum + value * value, 0));
    const mean = squares.reduce((a, b) => a + b, 0) / (shown.length * this.rows || 1);
    // what is further out than most has the last colour
    this.scale = Math.min(2.5 * Math.sqrt(mean) || 1, this.bounds[this.leaf] ?? Infinity);
    const image = this.context.createImageData(this.#width, Math.max(this.rows, 1));
    const order = this.#orders[this.leaf] ?? [...Array(this.rows).keys()];
    shown.forEach((column, x) => {
      order.forEach((unit, y) => {
        image.data.set(color(column[unit] / this.scale), 4 * (y * this.#width + x));
      });
    });
    this.context.putImageData(image, 0, 0);
  }
}

/** @param {number} value from -1 to 1 @returns {number[]} red, green, blue, opacity */
function color(value) {
  const place = (Math.min(Math.max(value, -1), 1) + 1) * 2;
  const below = Math.min(Math.floor(place), 3);
  const mixed = COLORS[below].map(
    (from, part) => from + (place - below) * (COLORS[below + 1][part] - from),
  );
  return [...mixed, 255];
}
