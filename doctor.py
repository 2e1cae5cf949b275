"""python doctor.py
python doctor.py --cpu --json cpu.json

Check in a minute whether the toolkit computes right on this machine, and how
fast. Include the file it writes when you report a problem.
"""

import os
import platform
import re
import textwrap
from dataclasses import dataclass

from toolkit.files.records import as_json
from toolkit.files.targets import METRICS, check_ending, mark
from toolkit.files.writing import write
from toolkit.options import option, path
from toolkit.shell import flags
from toolkit.shell.command import beside, command
from toolkit.shell.parser import parse

LARGEST_DIFFERENCE = 1e-4  # relative, between the two forms of a layer or of a model
WIDTH, NAMES = 80, 50  # of the table, and of its first column
REQUIREMENT = re.compile(r"^mlx\S*>=([\d.]+)", re.M)


@dataclass(frozen=True)
class DoctorOptions:
    json: str = option("doctor.json", "file for the results; - is stdout", "output", kind=path, common=True)


def options() -> tuple[type, ...]:
    """The dataclasses whose fields are this command's flags."""
    return DoctorOptions, flags.WriteOptions, flags.DeviceOptions


@command
def main(argv: list[str] | None = None) -> None:
    typed = parse(__doc__, argv, *options())
    target = typed.of(DoctorOptions).json
    flags.check_targets(typed.of(flags.WriteOptions), METRICS, [target])
    check_ending(target, (".json",))
    from toolkit.formats import checkpoint
    from toolkit.machine import device
    from toolkit.metrics import checkup
    from toolkit.shell.opening import INCLUDED, ROOT
    from toolkit.shell.origin import versions

    with beside(target):
        facts = {"made_by": mark(METRICS), "device": device.start(typed.of(flags.DeviceOptions).cpu)}
        facts["products"] = "float32" if device.has_full_precision() else "TF32"
        facts |= {"versions": versions("pillow", "tqdm", "scipy-openblas32"), "system": system()}
        print(f"Device: {facts['device']}")
        print(f"Products and convolutions: {facts['products']}")
        print(f"Versions: {', '.join(' '.join(pair) for pair in facts['versions'].items())}")
        print(f"System: {facts['system']}")
        facts["differences"] = checkup.layer_differences()
        for file in sorted((ROOT / INCLUDED).rglob("*.npz")):
            name = file.relative_to(ROOT / INCLUDED).with_suffix("").as_posix()
            facts["differences"][name] = checkup.model_difference(checkpoint.load(file).model)
        print("\nLargest relative difference between the textbook form and the CPU form:")
        for name, apart in facts["differences"].items():
            print_row(name, f"{apart:.0e}" if apart else "0")
        print("\nSpeed of the default model:")
        facts["speeds"] = {}
        for name, value, unit in checkup.speeds():
            print_row(name, f"{value:,.0f}", unit)
            facts["speeds"][name] = value
        needed = REQUIREMENT.search((ROOT / "requirements.txt").read_text())[1]
        facts["advice"] = list(advice(facts, needed))
        print()
        for line in facts["advice"] or ["Everything is as it should be."]:
            print(textwrap.fill(line, WIDTH))
        write(target, as_json(facts))
        print(f"Results: {target}")
    if any(not apart < LARGEST_DIFFERENCE for apart in facts["differences"].values()):
        raise SystemExit(1)


def print_row(name, value, unit=""):
    print(f"  {name:{NAMES}} {value:>9} {unit}".rstrip())


def system():
    """The operating system, the kind of processor, and its memory."""
    name = f"macOS {platform.mac_ver()[0]}" if platform.system() == "Darwin" else f"{platform.system()}"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{name}, {platform.machine()}, {memory:.0f} GiB of memory"


def advice(facts, needed):
    """What to do where something is off; `needed` is the lowest version of MLX."""
    device = facts["device"]
    if as_numbers(facts["versions"]["mlx"]) < as_numbers(needed):
        yield f"MLX is older than {needed}: pip install -U -r requirements.txt"
    if facts["products"] != "float32":
        yield "Products are rounded to TF32, and metrics with them: unset MLX_ENABLE_TF32, or set it to 0."
    if "reference BLAS" in device:
        yield "Matrix products are slow: pip install scipy-openblas32, or see docs/speed.md for the reason above."
    if platform.system() == "Darwin" and platform.machine() != "arm64":
        yield "This Python runs under Rosetta, without the GPU: install one for arm64."
    if device.startswith("CPU") and platform.system() == "Darwin" and platform.machine() == "arm64":
        yield "The GPU is not used: leave --cpu out."
    for name, apart in facts["differences"].items():
        if not apart < LARGEST_DIFFERENCE:
            yield f"{name} differs between the two forms: report it with this file, and use --cpu until it is mended."
    for name, value in facts["speeds"].items():
        if name.startswith("traces") and value > 1:
            yield f"{name}: {value} instead of 1 — report it with this file."


def as_numbers(words):
    """A version for comparison: `0.32.4` → [0, 32, 4]."""
    return [int(number) for number in re.findall(r"\d+", words)[:3]]


if __name__ == "__main__":
    main()
