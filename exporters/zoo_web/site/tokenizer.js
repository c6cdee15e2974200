/**
 * The zoo's tokenizers: text to tokens and back, as `zoo.data.tokenizers` does it in Python.
 *
 * @typedef {{kind: string, documents?: boolean, characters?: string, merges?: string[],
 *   words?: string}} Description the content of a run's tokenizer.json
 * @typedef {{push: (token: number) => string, end: () => string}} Decoder gives the text of each
 *   token as it comes, and in the end what is left of it
 */

const REPLACEMENT = "\ufffd";
const BYTES = 256;
const PIECE = 2 ** 16; // characters: a longer text is encoded in pieces

/** @param {Description} description @returns {CharTokenizer | ByteTokenizer | BPETokenizer} */
export function makeTokenizer(description) {
  switch (description.kind) {
    case "char":
      return new CharTokenizer(description);
    case "letters":
      return new CharTokenizer(description, (text) => text.toLowerCase());
    case "byte":
      return new ByteTokenizer(description);
    case "bpe":
      return new BPETokenizer(description);
    default:
      throw new Error(`the tokenizer ${description.kind} is not known here.`);
  }
}

/** A token for each character; 0 is that of all others, and in texts U+FFFD. */
class CharTokenizer {
  /** @param {Description} description @param {(text: string) => string} normalize */
  constructor({ characters = "", documents }, normalize = (text) => text) {
    this.normalize = normalize;
    this.characters = [REPLACEMENT, ...characters]; // by code points
    this.vocabSize = this.characters.length + (documents ? 1 : 0);
    this.endOfText = documents ? this.vocabSize - 1 : null;
    this.tokens = new Map([...characters].map((character, index) => [character, index + 1]));
  }

  /** @param {string} text @returns {number[]} */
  encode(text) {
    return Array.from(this.normalize(text), (character) => this.tokens.get(character) ?? 0);
  }

  /** The distinct characters that no token stands for. @param {string} text */
  unknown(text) {
    const distinct = [...new Set(text)];
    return distinct.filter((character) => this.encode(character)[0] === 0).join("");
  }

  /** @returns {Decoder} */
  decoder() {
    return { push: (token) => this.characters[token] ?? "", end: () => "" };
  }
}

/** What tokens of UTF-8 have in common: nothing is unknown. */
class ByteTokenizer {
  /** @param {Description} description */
  constructor({ documents }, vocabSize = BYTES) {
    this.vocabSize = vocabSize + (documents ? 1 : 0);
    this.endOfText = documents ? this.vocabSize - 1 : null;
  }

  /** @param {string} text @returns {number[]} */
  encode(text) {
    return [...utf8(text)];
  }

  unknown() {
    return "";
  }

  /** @param {number} token @returns {Uint8Array} */
  bytesOf(token) {
    return token < BYTES ? Uint8Array.of(token) : new Uint8Array(0);
  }

  /** Gives characters when they are whole. @returns {Decoder} */
  decoder() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (token) => decoder.decode(this.bytesOf(token), { stream: true }),
      end: () => decoder.decode(),
    };
  }
}

/** UTF-8, in which half a surrogate pair is a question mark. @param {string} text */
const utf8 = (text) => new TextEncoder().encode(text.replace(/\p{Surrogate}/gu, "?"));

// The words that merges stay within. JavaScript's own \s is other whitespace than Unicode's.
const [SPACE, VISIBLE] = ["\\p{White_Space}", "\\P{White_Space}"];
const WORDS = {
  bounded:
    "'(?:[sdmt]|ll|ve|re)| ?[\\p{L}\\p{M}]{1,32}| ?\\p{N}{1,3}" +
    `| ?[^${SPACE}\\p{L}\\p{M}\\p{N}]{1,32}|${SPACE}{1,32}(?!${VISIBLE})|${SPACE}`,
  unbounded:
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+" +
    `| ?[^${SPACE}\\p{L}\\p{N}]+|${SPACE}+(?!${VISIBLE})|${SPACE}+`,
};

/** Byte pair encoding: tokens from 256 on are made of two earlier ones, in the order of merges. */
class BPETokenizer extends ByteTokenizer {
  /** @param {Description} description */
  constructor(description) {
    const merges = description.merges ?? [];
    super(description, BYTES + merges.length);
    this.pattern = new RegExp(WORDS[description.words ?? "unbounded"], "gu");
    const spelling = spellBytes();
    const numbers = new Map(spelling.map((character, byte) => [character, byte]));
    /** @type {Uint8Array[]} */
    this.bytes = spelling.map((_, byte) => Uint8Array.of(byte));
    /** @type {Map<string, number>} what two tokens make; earlier merges make smaller tokens */
    this.merged = new Map();
    for (const merge of merges) {
      const pair = merge.split(" ");
      const [left, right] = pair.map((token) => numbers.get(token) ?? 0);
      this.merged.set(`${left} ${right}`, this.bytes.length);
      numbers.set(pair.join(""), this.bytes.length);
      this.bytes.push(Uint8Array.of(...this.bytes[left], ...this.bytes[right]));
    }
  }

  /** @param {string} text @returns {number[]} */
  encode(text) {
    const words = cut(text).flatMap((piece) => piece.match(this.pattern) ?? []);
    return words.flatMap((word) => this.#mergeWord([...utf8(word)]));
  }

  /** @param {number} token */
  bytesOf(token) {
    return this.bytes[token] ?? new Uint8Array(0);
  }

  /** @param {number[]} tokens @returns {number[]} */
  #mergeWord(tokens) {
    for (;;) {
      let first = Infinity;
      for (let place = 1; place < tokens.length; place++) {
        const made = this.merged.get(`${tokens[place - 1]} ${tokens[place]}`);
        if (made !== undefined && made < first) first = made;
      }
      if (first === Infinity) return tokens;
      const merged = [];
      for (let place = 0; place < tokens.length; place++) {
        const pair = `${tokens[place]} ${tokens[place + 1]}`;
        merged.push(this.merged.get(pair) === first ? (place++, first) : tokens[place]);
      }
      tokens = merged;
    }
  }
}

/** A printable character for each byte, as merges spell them. @returns {string[]} */
function spellBytes() {
  let next = 0x100;
  return Array.from({ length: BYTES }, (_, byte) => {
    const seen = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCodePoint(seen ? byte : next++);
  });
}

/**
 * A long text in the pieces in which it is encoded: each ends where no word goes across, but one
 * without such a place at twice the usual length.
 * @param {string} text
 */
function cut(text) {
  if (text.length <= 2 * PIECE) return [text];
  const characters = [...text];
  const space = /[^\P{White_Space}\x1c-\x1f]/u; // the four separators count as visible here
  const pieces = [];
  for (let start = 0, end = 0; start < characters.length; start = end) {
    const latest = Math.min(characters.length, start + 2 * PIECE);
    end = start + PIECE;
    while (end < latest && !(space.test(characters[end]) && !space.test(characters[end - 1])))
      end++;
    pieces.push(characters.slice(start, Math.min(end, characters.length)).join(""));
  }
  return pieces;
}
