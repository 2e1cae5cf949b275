/* The layers of toolkit/layers on typed arrays, which are allocated once.

An image is one array: rows of pixels of channels. The inputs of convolutions have a border of zeros, one pixel wide, so
every row of a window is contiguous. One function computes all convolutions: windows of taps × taps pixels, `step` apart,
each give one pixel or, if the layer doubles the image, a cell of 2×2. The doubled image is never stored: through the
doubling, an output pixel depends on only two pixels in each direction (the docstring of toolkit/layers/cpu.py derives
this), so the 3×3 kernel becomes four 2×2 kernels. */

"use strict";

// [pixel of a cell][tap of a window][k]: whether entry k of a 3×3 kernel connects them.
const UP = [[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]];
const TRANSPOSED = [[[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]]];
const SAME = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]];

// For each kind: its fold, the step between windows, the positions of the first window and the first cell (including the
// border), and the number of cells per side.
const KINDS = {
  conv: { fold: SAME, step: 1, first: 0, cell: 1, cells: (side) => side },
  down: { fold: SAME, step: 2, first: 0, cell: 1, cells: (side) => side / 2 },
  up: { fold: UP, step: 1, first: 0, cell: 0, cells: (side) => side + 1 },
  conv_transpose: { fold: TRANSPOSED, step: 1, first: 1, cell: 1, cells: (side) => side },
};
const SLOPE = 0.01; // of leaky ReLU below zero
const BLOCK = 4; // outputs that are summed at once

class Features {
  /* side × side pixels with channels; a vector is one pixel without a border. */
  constructor(side, channels, border) {
    Object.assign(this, { side, channels, border });
    this.row = (side + 2 * border) * channels;
    this.start = border * (this.row + channels);
    this.data = new Float32Array((side + 2 * border) * this.row);
  }

  static vector(length) {
    return new Features(1, length, 0);
  }

  get length() {
    return this.side * this.side * this.channels;
  }

  copyTo(other) {
    /* Copy all values in order, whatever the borders. */
    const to = other.data, from = this.data;
    const width = this.side * this.channels, otherWidth = other.side * other.channels;
    for (let i = 0, n = this.length; i < n; i++) {
      const y = (i / width) | 0, v = (i / otherWidth) | 0;
      to[other.start + v * other.row + i - v * otherWidth] = from[this.start + y * this.row + i - y * width];
    }
  }

  clearBorder() {
    const { data, row, channels, side } = this;
    data.fill(0, 0, row);
    data.fill(0, (side + 1) * row);
    for (let y = 1; y <= side; y++) {
      data.fill(0, y * row, y * row + channels);
      data.fill(0, (y + 1) * row - channels, (y + 1) * row);
    }
  }
}

class Network {
  /* `layers` as described by network.py; `arrays` of {shape, data}; `run` reads `input`. */
  constructor(layers, arrays, input, classes) {
    Object.assign(this, { input, classes, steps: [], label: 0, multiplications: 0 });
    let h = input;
    for (const layer of layers) {
      h = this[layer.name](h, layer, (layer.weights || []).map((i) => arrays[i]));
    }
    this.output = h;
  }

  run(label = 0) {
    this.label = label;
    for (const step of this.steps) step();
    return this.output;
  }

  // Shapes

  asVector(h, extra = 0) {
    if (!h.border && !extra) return h;
    const vector = Features.vector(h.length + extra);
    this.steps.push(() => h.copyTo(vector));
    return vector;
  }

  asImage(h, channels) {
    if (h.border) return h;
    const image = new Features(Math.round(Math.sqrt(h.length / channels)), channels, 1);
    this.steps.push(() => h.copyTo(image));
    return image;
  }

  labels(h) {
    const { classes } = this;
    const vector = this.asVector(h, classes);
    if (classes) {
      const start = vector.length - classes;
      this.steps.push(() => {
        vector.data.fill(0, start);
        vector.data[start + this.label] = 1;
      });
    }
    return vector;
  }

  // Layers

  dense(h, layer, [weight, bias]) {
    const x = this.asVector(h), y = Features.vector(bias.data.length);
    this.product(x, y, 0, weight, bias, layer.slope);
    return y;
  }

  heads(h, layer, [meanWeight, meanBias, logVarWeight, logVarBias]) {
    const x = this.asVector(h), dims = meanBias.data.length, y = Features.vector(2 * dims);
    this.product(x, y, 0, meanWeight, meanBias, 1);
    this.product(x, y, dims, logVarWeight, logVarBias, 1);
    const heads = y.data;
    this.steps.push(() => {
      for (let i = dims; i < 2 * dims; i++) if (heads[i] > 1) heads[i] = 1 + Math.log(heads[i]); // as VAE.posterior does
    });
    return y;
  }

  product(x, y, start, weight, bias, slope) {
    const w = weight.data, b = bias.data, from = x.data, to = y.data, length = x.length;
    this.multiplications += w.length;
    this.steps.push(() => {
      for (let o = 0, k = 0; o < b.length; o++) {
        let s0 = b[o], s1 = 0, i = 0;
        for (; i + 1 < length; i += 2, k += 2) {
          s0 += w[k] * from[i];
          s1 += w[k + 1] * from[i + 1];
        }
        if (i < length) s0 += w[k++] * from[i];
        const sum = s0 + s1;
        to[start + o] = sum > 0 ? sum : slope * sum;
      }
    });
  }

  rectify(h) {
    const y = new Features(h.side, h.channels, h.border);
    this.steps.push(() => {
      const from = h.data, to = y.data;
      for (let i = 0; i < from.length; i++) to[i] = from[i] > 0 ? from[i] : SLOPE * from[i];
    });
    return y;
  }

  residual(h, layer, [weight1, bias1, weight2, bias2]) {
    const channels = weight1.shape[3], x = this.asImage(h, channels);
    const a = this.rectify(x), b = new Features(x.side, channels, 1), y = new Features(x.side, channels, 1);
    this.convolution(KINDS.conv, a, b, weight1, bias1, SLOPE);
    this.convolution(KINDS.conv, b, y, weight2, bias2, 1);
    this.steps.push(() => {
      const from = x.data, to = y.data;
      for (let i = 0; i < to.length; i++) to[i] += from[i];
    });
    return y;
  }

  conv(h, layer, [weight, bias]) {
    const x = this.asImage(h, weight.shape[3]), kind = KINDS[layer.halves ? "down" : layer.name];
    const y = new Features((x.side * kind.fold.length) / kind.step, weight.shape[0], 1);
    this.convolution(kind, x, y, weight, bias, layer.slope);
    return y;
  }

  convolution(kind, x, y, weight, bias, slope) {
    const convolve = convolver(kind, x, y, foldKernel(kind.fold, weight), bias.data, slope);
    const cells = kind.cells(x.side), taps = kind.fold[0].length;
    this.multiplications += cells * cells * kind.fold.length ** 2 * y.channels * taps * taps * x.channels;
    this.steps.push(convolve);
    if (kind.cell === 0) this.steps.push(() => y.clearBorder()); // the outer cells have written to it
  }
}
Network.prototype.down = Network.prototype.up = Network.prototype.conv_transpose = Network.prototype.conv;

function foldKernel(fold, { shape, data }) {
  /* A kernel (O, 3, 3, C) → one kernel of taps × taps for each output of a cell: (pixels², O, taps, taps, C). */
  const [outputs, , , channels] = shape, pixels = fold.length, taps = fold[0].length;
  const made = new Float64Array(pixels * pixels * outputs * taps * taps * channels);
  let at = 0;
  for (let p = 0; p < pixels; p++)
    for (let q = 0; q < pixels; q++)
      for (let o = 0; o < outputs; o++)
        for (let i = 0; i < taps; i++)
          for (let j = 0; j < taps; j++, at += channels)
            for (let k = 0; k < 3; k++)
              for (let m = 0; m < 3; m++)
                if (fold[p][i][k] && fold[q][j][m])
                  for (let c = 0; c < channels; c++) made[at + c] += data[((o * 3 + k) * 3 + m) * channels + c];
  return made;
}

function convolver(kind, x, y, kernel, bias, slope) {
  /* A function that convolves x into y. It sums BLOCK outputs of two windows at once, which keeps the sums in registers.
  The last block may have fewer outputs; its padding is written to the place of its first output, which overwrites it. */
  const pixels = kind.fold.length, taps = kind.fold[0].length, cells = kind.cells(x.side), channels = y.channels;
  const outputs = pixels * pixels * channels, run = taps * x.channels, size = taps * run;
  const blocks = Math.ceil(outputs / BLOCK);
  const weights = new Float32Array(blocks * BLOCK * size), biases = new Float32Array(blocks * BLOCK);
  const places = new Int32Array(blocks * BLOCK); // of each output, relative to the start of its cell
  for (let n = 0; n < outputs; n++) {
    const block = (n / BLOCK) | 0, phase = (n / channels) | 0, o = n % channels;
    for (let k = 0; k < size; k++) weights[(block * size + k) * BLOCK + (n % BLOCK)] = kernel[n * size + k];
    biases[n] = bias[o];
    places[n] = ((phase / pixels) | 0) * y.row + (phase % pixels) * channels + o;
  }
  for (let n = outputs; n < blocks * BLOCK; n++) places[n] = places[n - (n % BLOCK)];
  const from = x.data, to = y.data, row = x.row, step = kind.step * x.channels, width = pixels * channels;
  const put = (at, sum) => {
    to[at] = sum > 0 ? sum : slope * sum;
  };

  return () => {
    for (let v = 0; v < cells; v++) {
      const windows = (v * kind.step + kind.first) * row + kind.first * x.channels;
      const cell = (v * pixels + kind.cell) * y.row + kind.cell * channels;
      for (let block = 0; block < blocks; block++) {
        const n = block * BLOCK, b0 = biases[n], b1 = biases[n + 1], b2 = biases[n + 2], b3 = biases[n + 3];
        const p0 = places[n], p1 = places[n + 1], p2 = places[n + 2], p3 = places[n + 3];
        for (let u = 0; u < cells; u += 2) {
          const other = u + 1 < cells ? step : 0; // an odd last window is computed twice
          let s0 = b0, s1 = b1, s2 = b2, s3 = b3, t0 = b0, t1 = b1, t2 = b2, t3 = b3;
          let k = n * size;
          for (let i = 0; i < taps; i++) {
            const begin = windows + u * step + i * row;
            for (let j = begin, end = begin + run; j < end; j++, k += 4) {
              const a = from[j], b = from[j + other];
              const w0 = weights[k], w1 = weights[k + 1], w2 = weights[k + 2], w3 = weights[k + 3];
              s0 += a * w0;
              s1 += a * w1;
              s2 += a * w2;
              s3 += a * w3;
              t0 += b * w0;
              t1 += b * w1;
              t2 += b * w2;
              t3 += b * w3;
            }
          }
          const at = cell + u * width, next = other && width;
          put(at + p3, s3), put(at + p3 + next, t3);
          put(at + p2, s2), put(at + p2 + next, t2);
          put(at + p1, s1), put(at + p1 + next, t1);
          put(at + p0, s0), put(at + p0 + next, t0);
        }
      }
    }
  };
}
