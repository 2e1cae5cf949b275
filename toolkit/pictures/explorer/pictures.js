/* Pictures in and out: pixels on a canvas, strokes of a pen, and model inputs from both. */

"use strict";

class Screen {
  /* A canvas of side × side pixels with 1 or 3 channels. */
  constructor(canvas, side, channels) {
    canvas.width = canvas.height = side;
    this.channels = channels;
    this.context = canvas.getContext("2d");
    this.image = this.context.createImageData(side, side);
  }

  show(values, white = 1, start = 0) {
    /* Show `values`, from index `start` on; `white` is the largest value. */
    toRgba(values, this.image.data, this.channels, 255 / white, start);
    this.context.putImageData(this.image, 0, 0);
  }
}

function toRgba(values, rgba, channels, scale, start = 0) {
  const green = channels === 3 ? 1 : 0;
  for (let i = 0, at = start; i < rgba.length; i += 4, at += channels) {
    rgba[i] = scale * values[at]; // a clamped array rounds
    rgba[i + 1] = scale * values[at + green];
    rgba[i + 2] = scale * values[at + 2 * green];
    rgba[i + 3] = 255;
  }
}

function ring(context, x, y, radius, down) {
  /* Mark the position of the keyboard pen, with a thick line while it draws. */
  context.strokeStyle = "#3b9cff";
  context.lineWidth = down ? 3 : 1.5;
  context.beginPath();
  context.arc(x, y, radius + 1, 0, 2 * Math.PI);
  context.stroke();
}

class Drawing {
  /* White ink on black, side × side pixels, in [0, 1]. */
  constructor(side, radius) {
    Object.assign(this, { side, radius, ink: new Float32Array(side * side) });
  }

  clear() {
    this.ink.fill(0);
  }

  line(x0, y0, x1, y1) {
    /* A stroke with round ends and a soft edge of one pixel. */
    const { side, radius, ink } = this, dx = x1 - x0, dy = y1 - y0, squared = dx * dx + dy * dy || 1;
    const low = (value) => Math.max(0, Math.floor(value - radius - 1));
    const high = (value) => Math.min(side - 1, Math.ceil(value + radius + 1));
    for (let y = low(Math.min(y0, y1)); y <= high(Math.max(y0, y1)); y++) {
      for (let x = low(Math.min(x0, x1)); x <= high(Math.max(x0, x1)); x++) {
        const share = Math.min(1, Math.max(0, ((x + 0.5 - x0) * dx + (y + 0.5 - y0) * dy) / squared));
        const distance = Math.hypot(x + 0.5 - x0 - share * dx, y + 0.5 - y0 - share * dy);
        const value = Math.min(1, radius + 0.5 - distance);
        if (value > ink[y * side + x]) ink[y * side + x] = value;
      }
    }
  }

  centre(size, box) {
    /* size × size pixels, laid out like MNIST: the longer side fills the box, the centre of mass is in the middle. */
    const { side, ink } = this, made = new Float32Array(size * size);
    let [left, right, top, bottom, mass, sumX, sumY] = [side, -1, side, -1, 0, 0, 0];
    for (let i = 0; i < ink.length; i++) {
      if (!(ink[i] > 0)) continue;
      const x = i % side, y = (i / side) | 0;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      [mass, sumX, sumY] = [mass + ink[i], sumX + ink[i] * (x + 0.5), sumY + ink[i] * (y + 0.5)];
    }
    if (!mass) return made;
    const scale = Math.max(right - left + 1, bottom - top + 1) / box; // pixels of the drawing per pixel of the image
    const samples = Math.max(2, Math.ceil(scale));
    for (let i = 0; i < made.length; i++) {
      for (let s = 0; s < samples ** 2; s++) {
        const u = (i % size) + ((s % samples) + 0.5) / samples, v = ((i / size) | 0) + (((s / samples) | 0) + 0.5) / samples;
        const x = Math.floor(sumX / mass + (u - size / 2) * scale), y = Math.floor(sumY / mass + (v - size / 2) * scale);
        if (x >= 0 && x < side && y >= 0 && y < side) made[i] += ink[y * side + x] / samples ** 2;
      }
    }
    return made;
  }
}

function resizeImage(image, matrix) {
  /* Resize a grey image (n × n) to the model's size with Python's matrix (size × n). */
  const { shape: [size, side], data } = matrix;
  const rows = new Float32Array(size * side), made = new Float32Array(size * size);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < side; x++) for (let k = 0; k < side; k++) rows[y * side + x] += data[y * side + k] * image[k * side + x];
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) for (let k = 0; k < side; k++) made[y * size + x] += data[x * side + k] * rows[y * side + k];
  return made;
}

async function readPicture(file, { size, channels, fit, crop }) {
  /* The central square of a picture file, `crop` of its shorter side, or with `fit` "pad" all of it on a white square, as
  size × size pixels with 1 or 3 channels. */
  const bitmap = await createImageBitmap(file), { width, height } = bitmap;
  const side = fit === "pad" ? Math.max(width, height) : crop * Math.min(width, height);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, size, size);
  context.drawImage(bitmap, (width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size);
  const { data } = context.getImageData(0, 0, size, size), pixels = new Float32Array(size * size * channels);
  for (let i = 0; i < size * size; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    if (channels === 3) pixels.set([r / 255, g / 255, b / 255], 3 * i);
    else pixels[i] = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
  }
  return pixels;
}
