/* The map: test images as points in a plane of the latent space. */

"use strict";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }; // steps to the right and down

class LatentMap {
  /* Callbacks in `tell`: preview(z), leave(), keep(z), step(z), and near(number or null, x, y). */
  constructor(canvas, facts, arrays, tell) {
    Object.assign(this, { canvas, facts, tell, places: arrays.places.data, count: arrays.places.shape[0] });
    this.labels = arrays.labels && arrays.labels.data;
    const { shape: [, dims], data } = arrays.plane;
    this.middle = data.subarray(0, dims);
    this.directions = [data.subarray(dims, 2 * dims), data.subarray(2 * dims)];
    this.origin = this.placeOf(facts.middle);
    this.context = canvas.getContext("2d");
    this.still = document.createElement("canvas"); // points and circles, drawn once
    this.marks = { now: [0, 0], kept: [] };
    this.listen();
  }

  placeOf(z) {
    return this.directions.map((direction) => direction.reduce((sum, value, d) => sum + value * (z[d] - this.middle[d]), 0));
  }

  vectorAt([x, y]) {
    const [right, up] = this.directions;
    return this.middle.map((value, d) => value + x * right[d] + y * up[d]);
  }

  toPixels([x, y]) {
    return [this.width / 2 + x * this.scale, this.height / 2 - y * this.scale];
  }

  toPlace(x, y) {
    return [(x - this.width / 2) / this.scale, (this.height / 2 - y) / this.scale];
  }

  resize() {
    const { canvas, still, places } = this, ratio = window.devicePixelRatio || 1;
    [this.width, this.height] = [canvas.clientWidth, canvas.clientHeight];
    if (!this.width) return;
    for (const one of [canvas, still]) [one.width, one.height] = [this.width * ratio, this.height * ratio];
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const reach = [0, 1].map((axis) => {
      const far = Float32Array.from({ length: this.count }, (_, i) => Math.abs(places[2 * i + axis])).sort();
      return 1.06 * Math.max(3.1, far[Math.floor(0.997 * (this.count - 1))]);
    });
    this.scale = Math.min(this.width / 2 / reach[0], this.height / 2 / reach[1]);
    this.drawStill(still.getContext("2d"), ratio);
    this.draw();
  }

  drawStill(context, ratio) {
    const { width, height, places, labels, facts } = this;
    const style = getComputedStyle(document.body), dark = matchMedia("(prefers-color-scheme: dark)").matches;
    this.ink = style.color;
    this.accent = style.getPropertyValue("--accent");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = this.ink;
    context.globalAlpha = 0.16;
    const [x, y] = this.toPixels(this.origin);
    for (const sigma of [1, 2, 3]) {
      context.beginPath();
      context.arc(x, y, sigma * this.scale, 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 0.85;
    const radius = Math.min(4.5, Math.max(2.2, 80 / Math.sqrt(this.count)));
    for (let i = 0; i < this.count; i++) {
      context.fillStyle = shade(labels ? facts.colours[labels[i]] : [100, 120, 160], dark);
      context.beginPath();
      context.arc(...this.toPixels([places[2 * i], places[2 * i + 1]]), radius, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
  }

  draw() {
    const { context, marks } = this;
    if (!this.width) return;
    context.clearRect(0, 0, this.width, this.height);
    context.drawImage(this.still, 0, 0, this.width, this.height);
    context.strokeStyle = context.fillStyle = this.accent;
    context.lineWidth = 1.5;
    context.beginPath();
    for (const place of marks.kept) context.lineTo(...this.toPixels(place));
    context.stroke();
    for (const place of marks.kept) this.dot(place, 4, true);
    this.dot(marks.now, 7, false);
  }

  dot(place, radius, filled) {
    const { context } = this;
    context.beginPath();
    context.arc(...this.toPixels(place), radius, 0, 2 * Math.PI);
    if (filled) context.fill();
    else {
      context.lineWidth = 5;
      context.strokeStyle = getComputedStyle(document.body).backgroundColor;
      context.stroke();
      context.lineWidth = 2.5;
      context.strokeStyle = this.ink;
      context.stroke();
    }
  }

  mark(now, kept) {
    this.marks = { now: this.placeOf(now), kept: kept.map((z) => this.placeOf(z)) };
    this.draw();
  }

  nearTo(x, y, within) {
    /* The number of the point nearest to a pixel, or null if none is within reach. */
    let best = null, least = within ** 2;
    for (let i = 0; i < this.count; i++) {
      const [u, v] = this.toPixels([this.places[2 * i], this.places[2 * i + 1]]), distance = (u - x) ** 2 + (v - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  listen() {
    const { canvas, tell } = this;
    const at = (event) => {
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      tell.near(this.nearTo(x, y, 9), x, y);
      return this.vectorAt(this.toPlace(x, y));
    };
    canvas.addEventListener("pointermove", (event) => tell.preview(at(event)));
    canvas.addEventListener("pointerdown", (event) => tell.preview(at(event)));
    canvas.addEventListener("pointerup", (event) => tell.keep(at(event)));
    for (const name of ["pointerleave", "pointercancel"]) canvas.addEventListener(name, () => tell.leave());
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.5 : 0.1, [right, below] = ARROWS[event.key] || [0, 0];
      const [x, y] = this.marks.now, z = this.vectorAt([x, y]);
      if (event.key === "Enter" || event.key === " ") tell.keep(z);
      else if (right || below) tell.step(this.vectorAt([x + step * right, y - step * below]));
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
  }
}

function shade([r, g, b], dark) {
  /* The CSS colour of a class, lighter on a dark page. */
  return `rgb(${(dark ? [r, g, b].map((value) => Math.round(0.52 * value + 0.48 * 255)) : [r, g, b]).join(" ")})`;
}
