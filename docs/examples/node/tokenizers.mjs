// The tokenizers of exported files: text to tokens, and tokens back to text.

// `description` is the JSON of `zoo.tokenizer`. What is made of it has
//   encode(text): the tokens of a text;
//   decode(tokens, stream): their text; while `stream` is true, more tokens follow, and the bytes
//     of a character that is not whole yet are kept for the next call;
//   end: the token at the end of a text, undefined if there is none.
export function makeTokenizer(description) {
  const { kind, documents } = description;
  const makers = { letters: characters, char: characters, byte: bytes, bpe: subwords };
  if (!Object.hasOwn(makers, kind)) throw new Error(`the tokenizer ${kind} is not supported`);
  const { size, ...tokenizer } = makers[kind](description);
  return { ...tokenizer, end: documents ? size : undefined };
}

// Token 0 is every character that the model never saw.
function characters({ kind, characters }) {
  const known = ["\uFFFD", ...characters];
  const numbers = new Map([...characters].map((character, index) => [character, index + 1]));
  return {
    size: known.length,
    encode: (text) =>
      Array.from(kind === "letters" ? text.toLowerCase() : text, (each) => numbers.get(each) ?? 0),
    decode: (tokens) => tokens.map((token) => known[token]).join(""),
  };
}

function bytes() {
  const all = Array.from({ length: 256 }, (_, byte) => Buffer.of(byte));
  return { size: all.length, encode: (text) => [...Buffer.from(text)], decode: utf8(all) };
}

// The text of tokens that stand for these bytes; bytes that are no UTF-8 become U+FFFD.
function utf8(bytesOf) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (tokens, stream) =>
    decoder.decode(Buffer.concat(tokens.map((token) => bytesOf[token])), { stream });
}

// A printable character for each byte: that of the same number, or else the next from U+0100 on.
let next = 0x100;
const SPELLING = Array.from({ length: 256 }, (_, byte) => {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  return String.fromCodePoint(printable ? byte : next++);
});
const BYTE_OF = new Map(SPELLING.map((character, byte) => [character, byte]));

// Words that no merge reaches across: contractions, letters, digits, other signs, and whitespace.
const S = "\\p{White_Space}"; // \s of JavaScript is other whitespace than that of Unicode
const anyOf = (...kinds) => new RegExp(kinds.join("|"), "gu");
const WORDS = {
  bounded: anyOf(
    "'(?:[sdmt]|ll|ve|re)", " ?[\\p{L}\\p{M}]{1,32}", " ?\\p{N}{1,3}",
    ` ?[^${S}\\p{L}\\p{M}\\p{N}]{1,32}`, `${S}{1,32}(?=${S}|$)`, S,
  ),
  unbounded: anyOf(
    "'(?:[sdmt]|ll|ve|re)", " ?\\p{L}+", " ?\\p{N}+",
    ` ?[^${S}\\p{L}\\p{N}]+`, `${S}+(?=${S}|$)`, `${S}+`,
  ),
};

// Byte pair encoding: in each word, the earliest merge that applies is done first.
function subwords({ merges, words = "unbounded" }) {
  const ranks = new Map(merges.map((merge, rank) => [merge, rank]));
  const spelled = [...SPELLING, ...merges.map((merge) => merge.replace(" ", ""))];
  const numbers = new Map(spelled.map((token, number) => [token, number]));

  function split(word) {
    let parts = Array.from(Buffer.from(word), (byte) => SPELLING[byte]);
    for (;;) {
      const pairs = parts.map((left, at) => ranks.get(`${left} ${parts[at + 1]}`) ?? Infinity);
      const first = pairs.reduce((a, b) => Math.min(a, b));
      if (first === Infinity) return parts.map((part) => numbers.get(part));
      const merged = [];
      for (let index = 0; index < parts.length; index++)
        merged.push(pairs[index] === first ? parts[index] + parts[++index] : parts[index]);
      parts = merged;
    }
  }

  return {
    size: spelled.length,
    encode: (text) => text.match(WORDS[words]).flatMap(split),
    decode: utf8(spelled.map((token) => Buffer.from([...token].map((each) => BYTE_OF.get(each))))),
  };
}
