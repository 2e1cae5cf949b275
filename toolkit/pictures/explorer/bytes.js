/* Read the arrays of the page from one compressed block of text. */

"use strict";

const TYPES = { float32: Float32Array, float16: Uint16Array, uint8: Uint8Array, uint16: Uint16Array };

async function unpack(text, table) {
  /* The result of Python's `pack` as {name: {shape, data}}. */
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const arrays = {};
  for (const [name, { type, shape, start }] of Object.entries(table)) {
    const length = shape.reduce((product, side) => product * side, 1), kind = TYPES[type];
    const stored = new kind(buffer.slice(start, start + length * kind.BYTES_PER_ELEMENT));
    arrays[name] = { shape, data: type === "float16" ? Float32Array.from(stored, single) : stored };
  }
  return arrays;
}

function single(half) {
  /* The value of a half-precision number, given as 16 bits. */
  const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (2 ** -14 * fraction) / 1024);
}
