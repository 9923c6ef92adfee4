"""Names of the files in the folder of an exported model."""

from __future__ import annotations

from pathlib import Path

from rlnas.supernet import modeling_subnet

CONFIG_FILE = "subnet.json"
"""The `SubnetConfig` of an exported model."""

MODEL_FILE = Path(modeling_subnet.__file__)
"""The model file that travels with every model that is no plain one of its family."""

CARD_FILE = "README.md"
"""The model card; a hub shows it."""

CERTIFICATE_FILE = "certificate.json"
"""The certificate of a delivered model."""

DIGEST = "weights_sha256"
"""Key of a certificate: the digest of the weights, see `rlnas.deploy.weights_file`."""

FORMS_FILE = "forms.json"
"""What forms the folder holds, see `rlnas.deploy.forms.Form`."""

FILES = {
    "hf": "model.safetensors",
    "onnx": "model.onnx",
    "onnx-int8": "model_int8.onnx",
    "torch": "program.pt2",
}
"""The file of each form."""
