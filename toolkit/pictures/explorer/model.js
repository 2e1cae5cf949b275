/* The model: encoder, decoder, and the distributions of latent vectors. */

"use strict";

const MEANS = {
  sigmoid: (value) => 1 / (1 + Math.exp(-value)),
  clip: (value) => Math.min(1, Math.max(0, value)),
};

const LARGEST_LOG_SCALE = 2; // of a coupling layer

class Model {
  constructor(facts, arrays) {
    const { size, channels, dims } = facts, classes = facts.classes.length;
    Object.assign(this, { facts, arrays, size, channels, dims, pixels: new Float32Array(size * size * channels) });
    this.encoder = new Network(facts.encoder, arrays, Features.vector(this.pixels.length), classes);
    this.decoder = new Network(facts.decoder, arrays, Features.vector(dims), classes);
    this.mean = this.encoder.output.data.subarray(0, dims);
    this.logVariance = this.encoder.output.data.subarray(dims);
    this.flows = facts.priors.map(({ couplings = [] }) => couplings.map(({ kept, layers }) => (
      { kept, network: new Network(layers, arrays, Features.vector(dims), classes) })));
    this.made = new Features(size, this.decoder.output.length / size ** 2, 0); // rows without a border
  }

  encode(pixels, label = 0) {
    /* Pixels in [0, 1] → the posterior `mean`; also sets `logVariance`. Both arrays are reused. */
    this.encoder.input.data.set(pixels);
    this.encoder.run(label);
    return this.mean;
  }

  decode(z, label = 0) {
    /* A latent vector → `pixels` in [0, 1]. The array is reused. */
    this.decoder.input.data.set(z);
    this.decoder.run(label).copyTo(this.made);
    const { made, pixels, channels } = this;
    const [name, scale, shift] = this.facts.mean, mean = MEANS[name];
    for (let i = 0, at = 0; i < made.data.length; i += made.channels) {
      for (let c = 0; c < channels; c++) pixels[at++] = mean(shift + scale * made.data[i + c]);
    }
    return pixels;
  }

  bestLabel(pixels) {
    /* The class that gives the best reconstruction of a picture; 0 without classes. */
    const errors = Array.from({ length: this.decoder.classes }, (_, label) => {
      const made = this.decode(this.encode(pixels, label), label);
      return made.reduce((sum, value, i) => sum + (value - pixels[i]) ** 2, 0);
    });
    return Math.max(0, errors.indexOf(Math.min(...errors)));
  }

  sample(prior, temperature, label = 0) {
    /* A latent vector from the prior with this number. */
    const eps = Float64Array.from({ length: this.dims }, () => temperature * gaussian());
    return this.facts.priors[prior].kind === "mixture" ? this.ofMixture(eps, label) : this.ofFlow(prior, eps, label);
  }

  ofFlow(prior, eps, label = 0) {
    /* Noise → latent vector; unchanged by the standard normal, which has no couplings. */
    const z = Float32Array.from(eps);
    for (const { kept, network } of this.flows[prior]) {
      network.input.data.set(z.map((value, i) => kept[i] * value));
      const { data } = network.run(label);
      for (let i = 0; i < this.dims; i++) {
        if (!kept[i]) z[i] = z[i] * Math.exp(LARGEST_LOG_SCALE * Math.tanh(data[i] / LARGEST_LOG_SCALE)) + data[this.dims + i];
      }
    }
    return z;
  }

  ofMixture(eps, label) {
    const [weights, means, scales] = ["weights", "means", "scales"].map((name) => this.arrays[`mixture_${name}`]);
    const components = weights.shape[1], first = (weights.shape[0] > 1 ? label : 0) * components;
    let left = Math.random(), m = -1;
    while (left >= 0 && m < components - 1) left -= weights.data[first + ++m];
    while (!weights.data[first + m]) m--; // skip components of other classes after rounding errors
    const z = means.data.slice(m * this.dims, (m + 1) * this.dims);
    for (let row = 0, k = m * scales.shape[1]; row < this.dims; row++) {
      for (let column = 0; column <= row; column++) z[row] += scales.data[k++] * eps[column];
    }
    return z;
  }
}

function gaussian() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function between(a, b, share, spherical) {
  /* A latent vector between a and b: on the straight line, or on the arc around the origin. */
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const cosine = dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) + 1e-12);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine))), sine = Math.sin(angle);
  const straight = !spherical || sine < 1e-6;
  const [p, q] = straight ? [1 - share, share] : [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine];
  return a.map((value, i) => p * value + q * b[i]);
}

function nearest(z, vectors, count) {
  /* The numbers of the rows of `vectors` nearest to z, the nearest first. */
  const { shape: [rows, dims], data } = vectors;
  const distances = Array.from({ length: rows }, (_, i) => {
    let sum = 0;
    for (let d = 0; d < dims; d++) sum += (data[i * dims + d] - z[d]) ** 2;
    return sum;
  });
  return [...distances.keys()].sort((a, b) => distances[a] - distances[b]).slice(0, count);
}
