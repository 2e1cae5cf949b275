/* Files to save: animations as GIF, written here, and pictures as PNG, written by the browser. */

"use strict";

function gif(frames, side, channels, milliseconds) {
  /* A looping GIF of frames with values in [0, 1], in 256 greys, or in 252 colours with dithering. */
  const bytes = [], word = (value) => bytes.push(value & 255, value >> 8);
  bytes.push(...Array.from("GIF89a", (letter) => letter.charCodeAt(0)));
  word(side), word(side);
  bytes.push(0xf7, 0, 0, ...palette(channels));
  bytes.push(0x21, 0xff, 11, ...Array.from("NETSCAPE2.0", (letter) => letter.charCodeAt(0)), 3, 1, 0, 0, 0);
  const parts = [Uint8Array.from(bytes)], indices = new Uint8Array(side * side);
  for (const frame of frames) {
    bytes.length = 0;
    bytes.push(0x21, 0xf9, 4, 0), word(Math.round(milliseconds / 10)), bytes.push(0, 0);
    bytes.push(0x2c, 0, 0, 0, 0), word(side), word(side), bytes.push(0);
    toPalette(frame, indices, side, channels);
    parts.push(Uint8Array.from(bytes), lzw(indices));
  }
  parts.push(Uint8Array.of(0x3b));
  return new Blob(parts, { type: "image/gif" });
}

const LEVELS = [6, 7, 6]; // of red, green and blue
const DITHER = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5]; // Bayer's 4 × 4

function palette(channels) {
  const colours = new Uint8Array(768);
  for (let i = 0; i < 256; i++) {
    const steps = [Math.floor(i / 42), Math.floor(i / 6) % 7, i % 6];
    for (let c = 0; c < 3; c++) colours[3 * i + c] = channels === 3 ? Math.round((255 * steps[c]) / (LEVELS[c] - 1)) : i;
  }
  return colours;
}

function toPalette(frame, indices, side, channels) {
  for (let i = 0; i < indices.length; i++) {
    if (channels === 3) {
      const noise = (DITHER[4 * (((i / side) | 0) & 3) + (i % side & 3)] + 0.5) / 16;
      const [r, g, b] = LEVELS.map((count, c) => Math.min(count - 1, Math.floor(frame[3 * i + c] * (count - 1) + noise)));
      indices[i] = 42 * r + 6 * g + b;
    } else indices[i] = Math.round(255 * frame[i]);
  }
}

function lzw(indices) {
  /* GIF image data: LZW with codes of 9 to 12 bits, in blocks of 255 bytes. */
  const CLEAR = 256, END = 257, table = new Uint16Array(4096 * 256), out = [];
  let bits = 0, count = 0, width = 9, next = 258, prefix = indices[0];
  const emit = (code) => {
    bits |= code << count;
    for (count += width; count >= 8; count -= 8, bits >>>= 8) out.push(bits & 255);
  };
  emit(CLEAR);
  for (let i = 1; i < indices.length; i++) {
    const key = prefix * 256 + indices[i];
    if (table[key]) {
      prefix = table[key];
      continue;
    }
    emit(prefix);
    if (next < 4096) {
      if (next === 1 << width) width++;
      table[key] = next++;
    } else {
      emit(CLEAR);
      table.fill(0);
      [width, next] = [9, 258];
    }
    prefix = indices[i];
  }
  emit(prefix);
  if (next === 1 << width && width < 12) width++; // the decoder has one more code by now
  emit(END);
  if (count) out.push(bits & 255);
  const blocks = [8]; // bits of an index
  for (let i = 0; i < out.length; i += 255) blocks.push(Math.min(255, out.length - i), ...out.slice(i, i + 255));
  return Uint8Array.from([...blocks, 0]);
}

function enlarge(values, side, channels, factor) {
  /* Enlarge by linear interpolation, like a browser does with a canvas. */
  const large = side * factor, made = new Float32Array(large * large * channels);
  const position = (i) => Math.min(side - 1, Math.max(0, (i + 0.5) / factor - 0.5));
  for (let y = 0, at = 0; y < large; y++) {
    const v = position(y), y0 = Math.floor(v), y1 = Math.min(side - 1, y0 + 1), b = v - y0;
    for (let x = 0; x < large; x++) {
      const u = position(x), x0 = Math.floor(u), x1 = Math.min(side - 1, x0 + 1), a = u - x0;
      for (let c = 0; c < channels; c++, at++) {
        const pixel = (row, column) => values[(row * side + column) * channels + c];
        made[at] = (1 - b) * ((1 - a) * pixel(y0, x0) + a * pixel(y0, x1)) + b * ((1 - a) * pixel(y1, x0) + a * pixel(y1, x1));
      }
    }
  }
  return made;
}

function sheet(frames, side, channels) {
  /* A canvas with all frames in rows. */
  const columns = Math.ceil(Math.sqrt(frames.length)), step = side + 2, canvas = document.createElement("canvas");
  canvas.width = columns * step - 2;
  canvas.height = Math.ceil(frames.length / columns) * step - 2;
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  frames.forEach((frame, i) => {
    toRgba(frame, image.data, channels, 255);
    context.putImageData(image, (i % columns) * step, Math.floor(i / columns) * step);
  });
  return canvas;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
