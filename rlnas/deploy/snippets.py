"""How to run each form of an exported model where `rlnas` is not installed."""

from __future__ import annotations

from rlnas.deploy.files import FILES


def snippet(form: str, *, own_code: bool, takes_types: bool, is_regression: bool) -> str:
    """Python code, in Markdown, that runs two texts from within the folder.

    Args:
        form: One of `rlnas.deploy.forms.FORMS`.
        own_code: Whether the folder carries its own model file.
        takes_types: Whether the model takes token types.
        is_regression: Whether it gives a value instead of a class.
    """
    if form == "hf":
        code = _TRANSFORMERS_OWN if own_code else _TRANSFORMERS
    else:
        runtime = _TORCH if form == "torch" else _ONNX
        types = ' "token_type_ids": [one.type_ids for one in encoded],\n' if takes_types else ""
        result = _VALUE if is_regression else _CLASS
        code = runtime.replace("FILE", FILES[form]) + _ENCODE.replace("TYPES\n", types and f"   {types}")
        code += (_RUN_TORCH if form == "torch" else _RUN_ONNX) + result
    return f"```python\n{code}```"


_TRANSFORMERS = """\
from transformers import pipeline

classify = pipeline("text-classification", model=".")  # this folder
print(classify(["A text.", "A longer text than that."], truncation=True))
"""

_TRANSFORMERS_OWN = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

folder = "."  # this folder; trust_remote_code runs its modeling_subnet.py
classify = pipeline("text-classification", model=folder, trust_remote_code=True)
print(classify(["A text.", "A longer text than that."], truncation=True))

# or
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
"""

_ONNX = """\
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

model = onnxruntime.InferenceSession("FILE")
"""

_TORCH = """\
import json

import torch
from tokenizers import Tokenizer

model = torch.export.load("FILE").module()
"""

_ENCODE = """\
with open("config.json", encoding="utf-8") as file:
    config = json.load(file)
tokenizer = Tokenizer.from_file("tokenizer.json")  # which cuts long texts
tokenizer.enable_padding(pad_id=config["pad_token_id"])
encoded = tokenizer.encode_batch(["A text.", "A longer text than that."])
inputs = {
    "input_ids": [one.ids for one in encoded],
    "attention_mask": [one.attention_mask for one in encoded],
TYPES
}
"""

_RUN_ONNX = """\
(logits,) = model.run(["logits"], {name: np.array(value) for name, value in inputs.items()})
"""

_RUN_TORCH = """\
with torch.inference_mode():
    logits = model(**{name: torch.tensor(value) for name, value in inputs.items()}).numpy()
"""

_CLASS = """\
print([config["id2label"][str(index)] for index in logits.argmax(axis=1)])
"""

_VALUE = """\
print(logits[:, 0])
"""
