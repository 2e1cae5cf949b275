"""python bench/explorer.py

Time the page of `visualize.py explorer` in a headless Chromium (bench/browser.py): 300 decodings and encodings, after
50 to warm up, for the included model with 8 latent dimensions or the given models.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.browser import Browser, missing
from toolkit.formats import checkpoint
from toolkit.machine import device
from toolkit.pictures import explorer
from toolkit.pictures.subject import Subject
from toolkit.shell.flags import DEFAULT_MODEL
from toolkit.shell.opening import ROOT

TIMES = """
const [rounds, skipped] = values, times = { decode: [], encode: [] };
while (!settled) await new Promise((done) => setTimeout(done, 10));
const image = model.decode(settled).slice(), z = settled.slice();
for (let i = 0; i < rounds; i++) {
  z[0] = i / rounds; // another one each time
  for (const name of ["decode", "encode"]) {
    const start = performance.now();
    model[name](name === "decode" ? z : image);
    if (i >= skipped) times[name].push(performance.now() - start);
  }
}
return times;
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[str(ROOT / DEFAULT_MODEL)])
    args = parser.parse_args()
    if lacks := missing():
        sys.exit(f"error: {lacks} is missing — install it")
    device.start()
    print("| model | | median | lowest – highest |\n|---|---|---|---|")
    for path in args.models:
        loaded = checkpoint.load(path)
        made = explorer.make(Path(path).stem, Subject(loaded, None))
        with tempfile.TemporaryDirectory() as folder, Browser() as browser:
            page = Path(folder, "explorer.html")
            page.write_text(made.page)
            browser.open(page)
            for name, times in browser.run(TIMES, 350, 50).items():
                spread = f"{min(times):.1f} – {max(times):.1f} ms"
                print(f"| {Path(path).stem} | {name} | {statistics.median(times):.1f} ms | {spread} |", flush=True)


if __name__ == "__main__":
    main()
