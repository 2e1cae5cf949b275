/* The page: input events and what they show.

`settled` is the latent vector that was set last, `shown` the one on the page; they differ while the pointer moves over the
map. Every change requests one new frame, which draws everything. */

"use strict";

const FIRST_SLIDERS = 16; // until "Show all" is clicked
const FRAMES = 20; // of an animation, from one vector to the next
const MILLISECONDS = 60; // per frame
const SLOW = 150; // milliseconds per picture; beyond, the page warns
const NEIGHBOURS = 5;
const PEN = { side: 112, radius: 4.5, step: 4 }; // in pixels: the drawing, its pen, and a step of the arrow keys

const PRIORS = { normal: "the standard normal", mixture: "the fitted mixture", flow: "the flow" }; // by kind

const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("about").textContent);
let model, arrays, map, film;
let settled, shown, label = 0; // latent vectors, and their class
let source = ""; // describes the picture that was encoded to `settled`
let chosen = []; // the last two selected test images
let kept = []; // {z, label}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function say(words) {
  $("said").textContent = words;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => ($("said").textContent = ""), 4000);
}

const number = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
const nameOf = (i) => facts.names[arrays.labels.data[i]] || "(no folder)";

// What is shown

function show(z, from = "") {
  /* Show a latent vector and the name of the picture it came from. */
  settled = Float32Array.from(z);
  source = from;
  preview(settled);
}

function preview(z) {
  shown = z;
  frame();
}

let asked = false;
function frame() {
  if (!asked) requestAnimationFrame(draw);
  asked = true;
}

let picture; // the large one
function draw() {
  asked = false;
  picture.show(model.decode(shown, label));
  $("source").hidden = !source || shown !== settled;
  $("source-words").textContent = source;
  for (const slider of sliders) slider.show(shown[slider.dim]);
  if (map) map.mark(shown, kept.map((one) => one.z));
}

// The vector

let sliders = [];

function makeSliders() {
  const order = facts.order || [...Array(facts.dims).keys()];
  const furthest = arrays.means ? arrays.means.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0) : 0;
  const reach = Math.max(4, Math.ceil(furthest));
  const make = (dim) => {
    const input = element("input", { type: "range", min: -reach, max: reach, step: 0.01, id: `z${dim}` });
    const value = element("span", { className: "value" });
    const kl = facts.kl ? `${facts.kl[dim].toFixed(2)} nats` : "";
    input.setAttribute("aria-label", `Dimension ${dim}${kl && `, KL ${kl}`}`);
    input.addEventListener("input", () => {
      const z = Float32Array.from(settled);
      z[dim] = Number(input.value);
      show(z);
    });
    const row = [element("label", { htmlFor: input.id, textContent: `z${dim}` }), input, value];
    if (kl) row.push(element("span", { className: "kl", textContent: kl }));
    $("sliders").append(element("div", { className: "slider" }, ...row));
    const last = { value: NaN };
    sliders.push({
      dim,
      show: (z) => {
        if (z === last.value) return;
        last.value = z;
        input.value = z;
        value.textContent = number(z);
      },
    });
  };
  order.slice(0, FIRST_SLIDERS).forEach(make);
  $("more").hidden = order.length <= FIRST_SLIDERS;
  $("more").textContent = `Show all ${facts.dims} dimensions`;
  $("more").addEventListener("click", () => {
    order.slice(FIRST_SLIDERS).forEach(make);
    $("more").hidden = true;
    frame();
  });
  $("vector-hint").textContent = facts.kl
    ? "Dimensions by mean KL, largest first."
    : "One slider for each dimension.";
}

function makeStage() {
  picture = new Screen($("picture"), facts.size, facts.channels);
  $("prior").append(...facts.priors.map(({ kind, words }, value) => element("option", { value, title: words, textContent: PRIORS[kind] })));
  $("temperature").addEventListener("input", () => ($("temperature-value").textContent = Number($("temperature").value).toFixed(2)));
  const random = () => model.sample($("prior").value, Number($("temperature").value), label);
  $("random").addEventListener("click", () => show(random()));
  $("reset").addEventListener("click", () => show(facts.middle));
  $("keep").addEventListener("click", () => keep(shown));
  $("surprise").addEventListener("click", () => {
    for (let i = 0; i < 5; i++) keep(random());
    show(kept[kept.length - 1].z);
  });
  $("copy").addEventListener("click", async () => {
    const text = `[${Array.from(settled, (value) => value.toFixed(4)).join(", ")}]`;
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      prompt("The latent vector:", text); // if the page must not write to the clipboard
    }
  });
  if (!facts.classes.length) return;
  $("classes").hidden = false;
  facts.classes.forEach((name, i) => {
    const input = element("input", { type: "radio", name: "class", value: i, checked: i === label });
    input.addEventListener("change", () => {
      label = i;
      if (drawn) encodeDrawing();
      frame();
    });
    $("classes").append(element("label", {}, input, element("span", { textContent: name || "(no folder)" })));
  });
}

function setLabel(i) {
  if (!facts.classes.length) return;
  label = i;
  const chosen = document.querySelectorAll("[name=class]")[i], row = $("classes");
  chosen.checked = true;
  row.scrollLeft = chosen.parentElement.offsetLeft - row.offsetLeft - row.clientWidth / 2; // if they are in one row
}

// The map

function makeMap() {
  $("map-section").hidden = false;
  const tip = $("tip"), { shape: [, side, , channels], data } = arrays.images;
  const thumb = new Screen(tip.querySelector("canvas"), side, channels);
  let near = null;
  map = new LatentMap($("map"), facts, arrays, {
    preview,
    leave: () => {
      tip.hidden = true;
      preview(settled);
    },
    keep: (z) => {
      show(z);
      keep(z);
    },
    step: (z) => {
      show(z);
      const [closest] = nearest(z, arrays.means, 1);
      $("map-words").textContent = `${map.placeOf(z).map(number).join(", ")}; nearest test image: ${closest}${arrays.labels ? `, class ${nameOf(closest)}` : ""}`;
    },
    near: (i, x, y) => {
      tip.hidden = i === null;
      if (i === null) return;
      if (i !== near) thumb.show(data, 255, i * side * side * channels);
      near = i;
      tip.querySelector("figcaption").textContent = arrays.labels ? nameOf(i) : `#${i}`;
      tip.style.left = `${Math.min(x + 14, $("map").clientWidth - tip.offsetWidth)}px`;
      tip.style.top = `${y > $("map").clientHeight / 2 ? y - tip.offsetHeight - 14 : y + 14}px`;
    },
  });
  $("axes").textContent = `Right: ${facts.axes[0]}. Up: ${facts.axes[1]}. Circles: 1, 2 and 3 standard deviations of the prior.`;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const legend = () => {
    const few = facts.names.length <= 30 ? facts.names : [];
    $("legend").replaceChildren(
      ...few.map((name, i) => {
        const dot = element("i");
        dot.style.background = shade(facts.colours[i], dark.matches);
        return element("li", {}, dot, name || "(no folder)");
      }),
    );
  };
  legend();
  dark.addEventListener("change", legend);
}

// Test images

function testScreen(canvas, i) {
  const { shape: [, side, , channels], data } = arrays.images;
  new Screen(canvas, side, channels).show(data, 255, i * side * side * channels);
  return canvas;
}

const meanOf = (i) => arrays.means.data.subarray(i * facts.dims, (i + 1) * facts.dims);

function makeImages() {
  $("images-section").hidden = false;
  const { shape: [count, side, , channels], data } = arrays.images;
  const columns = 40, canvas = element("canvas", { width: columns * side, height: Math.ceil(count / columns) * side });
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  for (let i = 0; i < count; i++) {
    toRgba(data, image.data, channels, 1, i * side * side * channels);
    context.putImageData(image, (i % columns) * side, Math.floor(i / columns) * side);
  }
  canvas.toBlob((blob) => {
    const sprite = `url(${URL.createObjectURL(blob)})`, rows = Math.ceil(count / columns);
    for (let i = 0; i < count; i++) {
      const one = element("div", { className: "image", role: "option", tabIndex: i ? -1 : 0, ariaSelected: "false" });
      one.setAttribute("aria-label", `Test image ${i}${arrays.labels ? `, class ${nameOf(i)}` : ""}`);
      one.style.backgroundImage = sprite;
      one.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
      one.style.backgroundPosition = `${(100 * (i % columns)) / (columns - 1)}% ${(100 * Math.floor(i / columns)) / Math.max(1, rows - 1)}%`;
      $("images").append(one);
    }
  });
  const at = (one) => [...$("images").children].indexOf(one);
  $("images").addEventListener("click", (event) => event.target.className === "image" && choose(at(event.target)));
  $("images").addEventListener("keydown", (event) => {
    const across = Math.max(1, Math.floor($("images").clientWidth / ($("images").firstChild.offsetWidth + 4)));
    const [right, below] = ARROWS[event.key] || [0, 0], move = right + below * across;
    const next = move && $("images").children[at(event.target) + move];
    if (next) {
      event.target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") choose(at(event.target));
    if (move || event.key === " ") event.preventDefault();
  });
  $("share").addEventListener("input", goBetween);
  $("way-kind").addEventListener("change", goBetween);
}

function choose(i) {
  /* Show the reconstruction of a test image, and offer to interpolate from the one before. */
  if (arrays.labels) setLabel(arrays.labels.data[i]);
  chosen = [...chosen.slice(-1), i];
  show(meanOf(i), `test image ${i}`);
  testScreen($("original"), i);
  $("way").hidden = chosen.length < 2;
  if (chosen.length === 2) {
    testScreen($("from"), chosen[0]);
    testScreen($("to"), chosen[1]);
    $("share").value = 1;
  }
  [...$("images").children].forEach((one, k) => (one.ariaSelected = String(chosen.includes(k))));
}

function goBetween() {
  const share = Number($("share").value);
  show(between(...chosen.map((i) => Array.from(meanOf(i))), share, $("way-kind").value));
}

// Drawing, and pictures from files

let drawn = null; // the model input that was encoded last

function makeEasel() {
  if (facts.drawn) {
    $("open-label").hidden = true;
    const also = facts.classes.length ? " The class is the one with the best reconstruction." : "";
    $("draw-hint").textContent = `It is centred like the data set, then encoded and decoded while you draw.${also}`;
    const drawing = new Drawing(PEN.side, PEN.radius), canvas = new Screen($("drawing"), PEN.side, 1);
    canvas.show(drawing.ink);
    let last = null;
    const at = (event) => {
      const box = $("drawing").getBoundingClientRect();
      return [((event.clientX - box.left) * PEN.side) / box.width, ((event.clientY - box.top) * PEN.side) / box.height];
    };
    const strokeTo = (now) => {
      drawing.line(...(last || now), ...now);
      last = now;
      canvas.show(drawing.ink);
      drawn = toInput(resizeImage(drawing.centre(facts.drawn.side, facts.drawn.box), arrays.resize));
      setLabel(model.bestLabel(drawn));
      encodeDrawing();
    };
    $("drawing").addEventListener("pointerdown", (event) => {
      $("drawing").setPointerCapture(event.pointerId);
      last = null;
      strokeTo(at(event));
    });
    $("drawing").addEventListener("pointermove", (event) => last && strokeTo(at(event)));
    for (const name of ["pointerup", "pointercancel", "blur"]) {
      $("drawing").addEventListener(name, () => {
        last = null;
        canvas.show(drawing.ink); // without the ring
      });
    }
    let [x, y] = [PEN.side / 2, PEN.side / 2]; // position of the keyboard pen
    $("drawing").addEventListener("keydown", (event) => {
      const [right, below] = ARROWS[event.key] || [0, 0];
      if (!ARROWS[event.key] && event.key !== " ") return;
      event.preventDefault();
      [x, y] = [x + right * PEN.step, y + below * PEN.step].map((value) => Math.min(PEN.side, Math.max(0, value)));
      if (event.key === " ") say(last ? "Pen up." : "Pen down.");
      if (event.key === " " && last) last = null;
      else if (event.key === " " || last) strokeTo([x, y]);
      canvas.show(drawing.ink);
      ring(canvas.context, x, y, PEN.radius, Boolean(last));
    });
    $("clear").addEventListener("click", () => {
      drawing.clear();
      canvas.show(drawing.ink);
      drawn = null;
      $("neighbours-part").hidden = true;
    });
    return;
  }
  $("draw-title").textContent = "Your own picture";
  const what = facts.fit === "pad" ? "It" : "Its central square";
  $("draw-hint").textContent = `${what} is encoded and decoded. It stays on your device.`;
  for (const id of ["drawing", "clear"]) $(id).hidden = true;
  $("open").addEventListener("change", async () => {
    try {
      drawn = toInput(await readPicture($("open").files[0], facts));
      setLabel(model.bestLabel(drawn));
      encodeDrawing();
    } catch {
      say("The browser cannot read this file as a picture.");
    }
  });
}

const toInput = (pixels) => (facts.binary ? pixels.map((value) => Number(value > 128.5 / 255)) : pixels);

function encodeDrawing() {
  const z = model.encode(drawn, label);
  show(z, facts.drawn ? "your drawing" : "your picture");
  new Screen($("original"), facts.size, facts.channels).show(drawn);
  if (!arrays.means) return;
  $("neighbours-part").hidden = false;
  const found = nearest(z, arrays.means, NEIGHBOURS).map((i) => {
    const canvas = testScreen(element("canvas", { role: "img" }), i), name = arrays.labels ? nameOf(i) : `#${i}`;
    canvas.setAttribute("aria-label", `Test image ${i}`);
    return element("div", { className: "thumb" }, canvas, name);
  });
  $("neighbours").replaceChildren(...found);
}

// Kept vectors, and the walk between them

function keep(z) {
  const one = { z: Float32Array.from(z), label };
  kept.push(one);
  const canvas = element("canvas"), button = element("button", { className: "thumb", type: "button" }, canvas);
  new Screen(canvas, facts.size, facts.channels).show(model.decode(one.z, label));
  button.setAttribute("aria-label", `Kept picture ${kept.length}`);
  button.addEventListener("click", () => {
    setLabel(one.label);
    show(one.z);
  });
  $("kept").append(button);
  updateKept();
}

function updateKept() {
  for (const id of ["play", "gif", "png"]) $(id).disabled = kept.length < 2;
  $("forget").disabled = !kept.length;
  $("kept-hint").hidden = kept.length > 1;
  frame();
}

function* walk() {
  /* The latent vectors of a walk through all kept ones and back to the first. */
  const closed = kept.length > 2 ? [...kept, kept[0]] : [...kept, ...kept.slice(0, -1).reverse()];
  for (let i = 0; i + 1 < closed.length; i++) {
    for (let k = 0; k < FRAMES; k++) {
      const z = between(Array.from(closed[i].z), Array.from(closed[i + 1].z), k / FRAMES, $("walk-kind").value);
      yield { z: Float32Array.from(z), label: (k < FRAMES / 2 ? closed[i] : closed[i + 1]).label };
    }
  }
}

async function renderWalk() {
  const frames = [];
  for (const { z, label } of walk()) {
    frames.push(model.decode(z, label).slice());
    if (frames.length % 10 === 0) await new Promise((done) => setTimeout(done)); // keeps the page responsive
  }
  return frames;
}

function makeKept() {
  const stop = () => {
    clearInterval(film);
    film = null;
    $("play").textContent = "Play";
    $("play").ariaPressed = "false";
  };
  $("play").addEventListener("click", () => {
    if (film) return stop();
    let steps = walk();
    film = setInterval(() => {
      let { value, done } = steps.next();
      if (done) value = (steps = walk()).next().value;
      if (!value) return stop();
      setLabel(value.label);
      show(value.z);
    }, MILLISECONDS);
    $("play").textContent = "Stop";
    $("play").ariaPressed = "true";
  });
  $("gif").addEventListener("click", async () => {
    say("Creating the animation…");
    const factor = Math.max(1, Math.floor(256 / facts.size)), { size, channels } = facts;
    const frames = (await renderWalk()).map((frame) => enlarge(frame, size, channels, factor));
    save(gif(frames, size * factor, channels, MILLISECONDS), "walk.gif");
    say("Saved walk.gif.");
  });
  $("png").addEventListener("click", async () => {
    sheet(await renderWalk(), facts.size, facts.channels).toBlob((blob) => save(blob, "walk.png"));
    say("Saved walk.png.");
  });
  $("forget").addEventListener("click", () => {
    stop();
    kept = [];
    $("kept").replaceChildren();
    updateKept();
  });
}

// Start

async function begin() {
  const many = facts.dims === 1 ? "1 number" : `${facts.dims} numbers`, yours = facts.drawn ? "draw a digit" : "open a picture";
  $("heading").textContent = `${facts.dataset} in ${many}${facts.beta ? `, β ${facts.beta}` : ""}`;
  $("introduction").textContent = `This variational autoencoder turns a picture into ${many}, its latent vector, and any such vector into a picture. Move a slider, ${facts.axes ? "point at the map" : "try a random one"}, or ${yours}.`;
  $("rows").append(...facts.rows.map((row) => element("tr", {}, ...row.map((textContent) => element("td", { textContent })))));
  arrays = await unpack($("block").textContent, facts.arrays);
  model = new Model(facts, arrays);
  makeStage();
  makeSliders();
  makeEasel();
  makeKept();
  if (arrays.images) makeImages();
  if (arrays.plane) makeMap();
  else document.querySelector("main").lastElementChild.append($("draw-section")); // in place of the map
  if (arrays.labels) setLabel(arrays.labels.data[0]);
  show(arrays.means ? meanOf(0) : facts.middle);
  measure();
}

function measure() {
  /* Show how long a picture takes: the fastest of several. */
  const times = Array.from({ length: 8 }, () => {
    const start = performance.now();
    model.decode(settled, label);
    return performance.now() - start;
  });
  const time = Math.min(...times), millions = (model.decoder.multiplications / 1e6).toPrecision(2);
  $("speed").textContent = `A picture takes ${time.toPrecision(2)} ms in this browser (${Number(millions)} million multiplications).`;
  if (time > SLOW) say("This model is large for a browser: the picture updates slowly.");
}

begin().catch((error) => say(`This browser cannot run the page: ${error.message}`));
