// Draws cartoon faces of 64×64 pixels and a table of the factors that made them:
//
//     npm install --no-save @dicebear/core@9 @dicebear/collection@9 @resvg/resvg-js@2 && node bench/faces.mjs
//
// writes 12,000 of them (or as many as its argument says) into the folder faces. The style is Open Peeps by Pablo Stanley,
// which is in the public domain (CC0 1.0).
import { mkdirSync, writeFileSync } from "node:fs";
import { openPeeps } from "@dicebear/collection";
import { createAvatar } from "@dicebear/core";
import { Resvg } from "@resvg/resvg-js";

const SIDE = 64;
const OPTIONS = {
  size: SIDE,
  scale: 100,
  maskProbability: 0,
  facialHairProbability: 25,
  accessoriesProbability: 25,
  backgroundColor: ["b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf"],
};
const FACTORS = {
  head: "head",
  face: "face",
  facial_hair: "facialHair",
  accessories: "accessories",
  skin: "skinColor",
  clothing: "clothingColor",
  hair: "headContrastColor",
};

mkdirSync("faces", { recursive: true });
const rows = [["file", ...Object.keys(FACTORS), "background"]];
for (let i = 0; i < Number(process.argv[2] ?? 12000); i++) {
  const avatar = createAvatar(openPeeps, { ...OPTIONS, seed: `face-${i}` });
  const drawing = avatar.toString(), made = avatar.toJson().extra;
  const background = OPTIONS.backgroundColor.find((colour) => drawing.includes(`#${colour}`));
  const file = `face-${String(i).padStart(5, "0")}.png`;
  writeFileSync(`faces/${file}`, new Resvg(drawing, { fitTo: { mode: "width", value: SIDE } }).render().asPng());
  rows.push([file, ...Object.values(FACTORS).map((name) => made[name] ?? ""), `#${background}`]);
}
writeFileSync("faces/factors.csv", rows.map((row) => `${row.join(",")}\n`).join(""));
