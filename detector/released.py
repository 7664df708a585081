"""Weights that others released, with the names of ours: what every family's conversion shares."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

BATCHNORM_EPS = 1e-5

# torchvision's 91 columns are COCO's category ids; these are the 80 that COCO uses
CATEGORIES: list[str] = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
COCO_IDS = [i for i, name in enumerate(CATEGORIES) if name not in ("__background__", "N/A")]
COCO_CLASSES = [CATEGORIES[i] for i in COCO_IDS]

Rename = tuple[str, str | Callable[[re.Match[str]], str]]  # pattern of their name, and ours


# of the backbone, the pyramid and the class head; up to torchvision 0.12 the pyramid's convolutions had no ".0"
TORCHVISION_NAMES: list[Rename] = [
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?(weight|bias)", r"fpn.lateral_convs.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?(weight|bias)", r"fpn.output_convs.\1.\2"),
    (r"backbone\.fpn\.extra_blocks\.(p[67])\.(.+)", r"fpn.\1.\2"),
    (r"head\.classification_head\.cls_logits\.(.+)", r"head.cls_logits.\1"),
]


class ReleasedError(ValueError):
    """Tensors that are of no released model; the message says why, who gave them adds the file."""

    exit_status = 2


class OtherFamilyError(ReleasedError):
    """Tensors that are clearly of another family."""


class Released(NamedTuple):
    """A released model: its weights under our names, the shipped config of its network, and how many classes it has."""

    weights: dict[str, Tensor]
    config: str
    num_classes: int


def named_tensors(state: object) -> dict[str, Tensor]:
    """A state dict without the prefix of a data-parallel wrapper. Raises ReleasedError."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ReleasedError("holds no state dict of a model; expected names with a tensor each")
    return {name.removeprefix("module."): value for name, value in state.items()}


def rows_of(state: Mapping[str, Tensor], name: str, axes: int = 4) -> int:
    """Outputs of a convolution, or of a fully connected layer, which has 2 axes. Raises OtherFamilyError where there is
    none of this name."""
    if name not in state or state[name].dim() != axes:
        raise OtherFamilyError(f"no tensor {name} of {axes} axes; give a released file, and its --from")
    return len(state[name])


def groups_of(state: Mapping[str, Tensor], name: str) -> int:
    """Of a convolution with as many input as output channels."""
    return state[name].shape[0] // state[name].shape[1] if name in state else 0


def renamed(state: Mapping[str, Tensor], names: list[Rename]) -> dict[str, Tensor]:
    """With our names; a name that no pattern knows is kept, and either is ours already or will not fit."""
    result = {}
    for name, value in state.items():
        for pattern, ours in names:
            match = re.fullmatch(pattern, name)
            if match:
                name = match.expand(ours) if isinstance(ours, str) else ours(match)
                break
        result[name] = value
    return result


def require_coco_columns(columns: float) -> None:
    """Raises ReleasedError unless a class head has torchvision's columns of COCO, for every anchor of a cell."""
    if columns != len(CATEGORIES):
        raise ReleasedError(
            f"{columns:g} class columns, expected torchvision's {len(CATEGORIES)} of COCO; a model of other classes "
            "says nothing of their names"
        )


def keep_coco_columns(weights: dict[str, Tensor], num_anchors: int) -> None:
    """Keep, in place, the columns of the class head that COCO uses, for every anchor of a cell."""
    for name in ("head.cls_logits.weight", "head.cls_logits.bias"):
        value = weights.get(name)
        if value is not None and len(value) == num_anchors * len(CATEGORIES):
            weights[name] = value.view(num_anchors, len(CATEGORIES), *value.shape[1:])[:, COCO_IDS].flatten(0, 1)


def replace_frozen_batchnorm(state: dict[str, Tensor], eps: float) -> None:
    """Make of torchvision's frozen BatchNorm (its ε, no batch counter), in place, the same function as ours.

    The weights keep their type: of float32 the function is the same to its last digits, of float64 to those.
    """
    for name in [name for name in state if name.endswith("running_var")]:
        prefix = name.removesuffix("running_var")
        if prefix + "num_batches_tracked" not in state and prefix + "weight" in state:
            state[prefix + "num_batches_tracked"] = torch.tensor(0)
            variance = state[name].double()
            scale = ((variance + BATCHNORM_EPS) / (variance + eps)).sqrt()
            weight = state[prefix + "weight"]
            state[prefix + "weight"] = (weight * scale).to(weight.dtype)
