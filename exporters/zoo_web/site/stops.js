/** @typedef {ReturnType<typeof import("./tokenizer.js").makeTokenizer>} Tokenizer */

/** When to stop: at the end of the text, at a token, or as soon as the text holds a string. */
export class Stops {
  /** @param {string | (string | number)[]} stop @param {Tokenizer} tokenizer */
  constructor(stop, tokenizer) {
    const items = typeof stop === "string" ? [stop] : stop;
    this.strings = /** @type {string[]} */ (items.filter((item) => typeof item === "string"));
    this.tokens = new Set([...items, tokenizer.endOfText]);
    this.tokenizer = tokenizer;
    if (this.strings.includes("")) {
      throw new RangeError("a stop string is empty; give at least one character.");
    }
    // a token of UTF-8 is at least a quarter of a character
    this.tail = 4 * Math.max(0, ...this.strings.map((item) => [...item].length)) + 4;
  }

  /** @param {number[]} written */
  hit(written) {
    if (this.tokens.has(written[written.length - 1])) return true;
    if (!this.strings.length) return false;
    const decoder = this.tokenizer.decoder();
    const tail = written.slice(-this.tail).map(decoder.push).join("") + decoder.end();
    return this.strings.some((string) => tail.includes(string));
  }
}
