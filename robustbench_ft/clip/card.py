"""The README.md of an exported model: what it is, where it comes from, and the code that makes it answer."""

from collections.abc import Mapping
from typing import Any

from robustbench_ft.embedded.network import NAME as EMBEDDED_TOWER

FRONT = "---\nlibrary_name: open_clip\npipeline_tag: image-classification\n{licence}---\n"
CODE = """\
{imports}import open_clip
import torch
from safetensors.torch import load_file

folder = "."  # this folder
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{{folder}}")
head = load_file(f"{{folder}}/head.safetensors")
images = torch.stack([preprocess(image) for image in pictures])  # pictures: PIL images
with torch.no_grad():
    features = model.eval().encode_image(images, normalize=True)
    logits = {logits}
"""
LOGITS = {
    "unit": 'model.logit_scale.exp() * features @ head["head"].T',
    "scaled": 'features @ head["head"].T + head["bias"]',
}
HEADS = {
    "unit": "`head` [K, D] holds a row per class, which is never normalised; logits are its products with unit image "
    "features, times the model's own scale `exp(logit_scale)`.",
    "scaled": "`head` [K, D] and `bias` [K] are a linear layer on unit image features; the scale is in the rows.",
}
OTHER_LICENCE = "that of the parent model; the data of the suite have terms of their own"
TOWER = (
    f"The image tower `{EMBEDDED_TOWER}` is no part of timm or open_clip: `pip install robustbench_ft`, and import "
    "`robustbench_ft.embedded.network` first, which registers it."
)
WORDS = (
    "Texts: `vocab.txt` holds one word per line, its line number is its id. `open_clip.get_tokenizer` does not read it "
    'and returns another vocabulary; `robustbench_ft.embedded.tokenizer.Words.load("vocab.txt")` does.'
)


def text(config: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Markdown for a folder whose open_clip_config.json holds `config`, with `own` as its part 'rbft'."""
    suite = f" on the suite `{own['suite']}`" if "suite" in own else ""
    parts = [
        FRONT.format(licence="license: mit\n" if is_embedded(config) else ""),
        f"# A CLIP with {len(own['classes'])} classes{suite}\n",
        f"Written by robustbench_ft: {_origin(own)}.\n",
        f"Licence: {licence(config)}.\n",
        *usage(config, own),
    ]
    return "\n".join(parts)


def is_embedded(config: Mapping[str, Any]) -> bool:
    """Whether the image tower is the one that this package brings."""
    return config["model_cfg"].get("vision_cfg", {}).get("timm_model_name") == EMBEDDED_TOWER


def licence(config: Mapping[str, Any]) -> str:
    """Under which terms a tuned model is, in words."""
    return "MIT, as its parent" if is_embedded(config) else OTHER_LICENCE


def usage(config: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Paragraphs from the classes to the code that makes the folder answer."""
    classes, kind, embedded = list(own["classes"]), str(own["head"]), is_embedded(config)
    imports = "import robustbench_ft.embedded.network  # registers the image tower\n" if embedded else ""
    named = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    return [
        f"Classes, in the order of the logits: {named} (`rbft.classes` in open_clip_config.json).\n",
        "## Use\n",
        *([f"{TOWER}\n"] if embedded else []),
        f"```python\n{CODE.format(imports=imports, logits=LOGITS[kind])}```\n",
        f"Head convention `{kind}`: {HEADS[kind]}\n",
        *([f"{WORDS}\n"] if own.get("tokenizer") == "words" else []),
        "With robustbench_ft: `rb.load_model(FOLDER).logits(images)`.\n",
    ]


def _origin(own: Mapping[str, Any]) -> str:
    """Parent, configuration and seed, as far as they are known."""
    named = {"parent_name": "model", "parent": "weights", "cell": "configuration", "seed": "seed"}
    words = [f"{word} `{own[key]}`" for key, word in named.items() if key in own]
    return f"fine-tuned from {', '.join(words)}" if words else "its parent was not noted"
