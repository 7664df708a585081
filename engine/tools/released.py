"""Released checkpoints of other repositories as checkpoints of this one.

The authors' models (MMDetection v2) and torchvision's RetinaNets are told apart by the names and shapes of their
tensors alone. Each becomes the model of a shipped config, which goes into the checkpoint: every tensor of theirs is
used and every one of ours is filled, or the conversion fails.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from detector import build_detector
from detector.state_file import StateFileError, read_state_file
from engine.run.checkpoint import CheckpointError
from engine.run.config import Config, load_config
from losses import SelfBalance

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BATCHNORM_EPS = 1e-5

# torchvision's 91 columns are COCO's category ids; these are the 80 that COCO uses
_CATEGORIES = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
COCO_IDS = [i for i, name in enumerate(_CATEGORIES) if name not in ("__background__", "N/A")]
COCO_CLASSES = [_CATEGORIES[i] for i in COCO_IDS]

# The authors' rows: (blocks of the third stage, groups, deformable, anchors per cell) to the config. AP Loss trains
# the first one's network too, so its checkpoints evaluate under that config.
ALRP_CONFIGS = {
    (6, 1, False, 6): "r50_alrp",
    (6, 1, False, 2): "r50_alrp_atss",
    (23, 1, False, 2): "r101_alrp_atss",
    (23, 1, False, 3): "r101_alrp_atss_800",
    (23, 64, False, 2): "x101_alrp_atss",
    (23, 64, False, 3): "x101_alrp_atss_800",
    (23, 64, True, 3): "x101_dcn_alrp_atss_800",
}

Rename = tuple[str, str | Callable[[re.Match], str]]  # pattern of their name, and ours

# a tower's convolutions alternate with ReLUs here
ALRP_NAMES: list[Rename] = [
    (r"neck\.lateral_convs\.(\d)\.conv\.(.+)", r"fpn.lateral_convs.\1.\2"),
    (r"neck\.fpn_convs\.([012])\.conv\.(.+)", r"fpn.output_convs.\1.\2"),
    (r"neck\.fpn_convs\.3\.conv\.(.+)", r"fpn.p6.\1"),
    (r"neck\.fpn_convs\.4\.conv\.(.+)", r"fpn.p7.\1"),
    (r"bbox_head\.cls_convs\.(\d)\.conv\.(.+)", lambda m: f"head.cls_tower.{2 * int(m[1])}.{m[2]}"),
    (r"bbox_head\.reg_convs\.(\d)\.conv\.(.+)", lambda m: f"head.box_tower.{2 * int(m[1])}.{m[2]}"),
    (r"bbox_head\.retina_cls\.(.+)", r"head.cls_logits.\1"),
    (r"bbox_head\.retina_reg\.(.+)", r"head.box_deltas.\1"),
]
TORCHVISION_NAMES: list[Rename] = [
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?(weight|bias)", r"fpn.lateral_convs.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?(weight|bias)", r"fpn.output_convs.\1.\2"),
    (r"backbone\.fpn\.extra_blocks\.(p[67])\.(.+)", r"fpn.\1.\2"),
    (r"head\.classification_head\.cls_logits\.(.+)", r"head.cls_logits.\1"),
    (r"head\.regression_head\.bbox_reg\.(.+)", r"head.box_deltas.\1"),
    # up to torchvision 0.12, of which the released v1 is, its towers were numbered as ours
    (r"head\.classification_head\.conv\.(\d\.[a-z]+)", r"head.cls_tower.\1"),
    (r"head\.regression_head\.conv\.(\d\.[a-z]+)", r"head.box_tower.\1"),
]
TOWERS = (("classification_head", "cls_tower"), ("regression_head", "box_tower"))


def read_released(path: str | Path, weights_key: str = "state_dict") -> Mapping[str, Any]:
    """The content of a checkpoint file, unpickled without running any code that it names.

    Args:
        weights_key: where such a file keeps its tensors, for the message that says how to take them out.
    Raises:
        CheckpointError: missing, damaged, or holding objects that torch refuses to unpickle.
    """
    path = Path(path)
    try:
        content = read_state_file(path)
    except StateFileError as error:
        if error.kind == "unsafe":
            raise CheckpointError(
                f"{path}: {error}, which torch refuses to unpickle because that can run code; "
                'if you trust the file, keep its tensors only: python -c "import torch; torch.save({'
                f"'{weights_key}': "
                f"torch.load('{path}', map_location='cpu', weights_only=False)['{weights_key}']}}, 'tensors.pth')\", "
                "and convert tensors.pth"
            ) from error
        remedy = "check the path" if error.kind == "unreadable" else "download it again"
        raise CheckpointError(f"{path}: {error}; {remedy}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; expected a checkpoint or a state dict")
    return content


def convert_alrp(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A checkpoint of ours from one of the authors' (MMDetection v2), of any of their eight RetinaNet rows.

    Args:
        content: their checkpoint, or its state dict alone.
        source: names it in messages.
    Raises:
        CheckpointError: a tensor is missing, left over or of another shape, or no shipped config has this network.
    """
    state = _tensors(content.get("state_dict", content), source)
    box_rows, cls_rows = (_rows(state, f"bbox_head.retina_{kind}.weight", source) for kind in ("reg", "cls"))
    num_anchors = max(1, box_rows // 4)
    network = (
        sum(bool(re.fullmatch(r"backbone\.layer3\.\d+\.conv1\.weight", name)) for name in state),
        _groups(state, "backbone.layer1.0.conv2.weight"),
        "backbone.layer4.0.conv2.conv_offset.weight" in state,
        num_anchors,
    )
    if network not in ALRP_CONFIGS:
        depth, groups, deformable, _ = network
        raise CheckpointError(
            f"{source}: no released model has {depth} blocks in layer3, {groups} groups, {num_anchors} anchors per cell"
            f" and {'' if deformable else 'no '}deformable convolutions; expected a checkpoint of one of the rows in "
            "docs/models.md"
        )
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    classes = _class_names(meta.get("CLASSES"), cls_rows // num_anchors, source)
    config = load_config(CONFIGS / f"{ALRP_CONFIGS[network]}.yaml")
    return _checkpoint(_renamed(state, ALRP_NAMES), config, classes, source, meta)


def convert_torchvision(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A checkpoint of ours from a state dict of torchvision's retinanet_resnet50_fpn or …_v2 with COCO's classes.

    Of the 91 class columns the 80 that COCO uses are kept. BatchNorm without batch counters is torchvision's frozen
    one, which its COCO_V1 weights expect with ε 0: ours has ε 1e-5, so the difference goes into its weight.

    Args, Raises: as `convert_alrp`.
    """
    state = _tensors(content.get("model", content), source)
    box_rows, cls_rows = (
        _rows(state, f"head.{name}.weight", source)
        for name in ("regression_head.bbox_reg", "classification_head.cls_logits")
    )
    num_anchors = max(1, box_rows // 4)
    columns = cls_rows / num_anchors
    if columns != len(_CATEGORIES):
        raise CheckpointError(
            f"{source}: {columns:g} class columns, expected torchvision's {len(_CATEGORIES)} of COCO; a model of other "
            "classes says nothing of their names"
        )
    has_norm = "head.classification_head.conv.0.1.weight" in state
    config = load_config(CONFIGS / f"torchvision_r50{'_v2' if has_norm else ''}.yaml")
    layers = 3 if has_norm else 2  # per convolution of our towers
    state = _renamed(state, [*TORCHVISION_NAMES, *(_tower_names(*tower, layers) for tower in TOWERS)])
    for name in ("head.cls_logits.weight", "head.cls_logits.bias"):
        value = state.get(name)
        if value is not None and len(value) == cls_rows:
            state[name] = value.view(num_anchors, len(_CATEGORIES), *value.shape[1:])[:, COCO_IDS].flatten(0, 1)
    _replace_frozen_batchnorm(state)
    return _checkpoint(state, config, COCO_CLASSES, source, content)


def _tower_names(theirs: str, ours: str, layers: int) -> Rename:
    """Convolution i is i.0 there, its GroupNorm i.1."""
    return rf"head\.{theirs}\.conv\.(\d)\.(\d)\.(.+)", lambda m: f"head.{ours}.{layers * int(m[1]) + int(m[2])}.{m[3]}"


def _replace_frozen_batchnorm(state: dict[str, Tensor]) -> None:
    """Make of torchvision's frozen BatchNorm (ε 0, no batch counter), in place, the same function as ours."""
    for name in [name for name in state if name.endswith("running_var")]:
        prefix = name.removesuffix("running_var")
        if prefix + "num_batches_tracked" not in state and prefix + "weight" in state:
            state[prefix + "num_batches_tracked"] = torch.tensor(0)
            variance = state[name].double()
            scale = ((variance + BATCHNORM_EPS) / variance).sqrt()
            state[prefix + "weight"] = (state[prefix + "weight"] * scale).float()


def _tensors(state: object, source: str) -> dict[str, Tensor]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{source}: holds no state dict of a model; expected names with a tensor each")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _rows(state: Mapping[str, Tensor], name: str, source: str) -> int:
    if name not in state or state[name].dim() != 4:
        raise CheckpointError(f"{source}: no tensor {name} of four axes; give the file of a RetinaNet and its --from")
    return len(state[name])


def _groups(state: Mapping[str, Tensor], name: str) -> int:
    """Of a convolution with as many input as output channels."""
    return state[name].shape[0] // state[name].shape[1] if name in state else 0


def _class_names(names: object, num_classes: int, source: str) -> list[str]:
    if isinstance(names, list | tuple) and len(names) == num_classes and all(isinstance(n, str) for n in names):
        return list(names)
    if num_classes == len(COCO_CLASSES):
        return COCO_CLASSES
    raise CheckpointError(f"{source}: {num_classes} classes and no names of them; expected COCO's 80, or meta.CLASSES")


def _renamed(state: Mapping[str, Tensor], names: list[Rename]) -> dict[str, Tensor]:
    """With our names; a name that no pattern knows is kept, and either is ours already or will not fit."""
    renamed = {}
    for name, value in state.items():
        for pattern, ours in names:
            match = re.fullmatch(pattern, name)
            if match:
                name = match.expand(ours) if isinstance(ours, str) else ours(match)
                break
        renamed[name] = value
    return renamed


def _checkpoint(
    state: dict[str, Tensor], config: Config, classes: list[str], source: str, meta: Mapping[str, Any]
) -> dict[str, Any]:
    with torch.device("meta"):  # names and shapes, at no cost
        own = build_detector(config, len(classes), load_weights=False).state_dict()
    # state of training that their files lack
    balance = {f"objective.loss.balance.{name}": value for name, value in SelfBalance().state_dict().items()}
    state = {name: value for name, value in balance.items() if name in own} | state
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [f"{name} is left over" for name in state if name not in own]
    faults += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise CheckpointError(f"{source}: does not fit {config.run.name}.yaml: {faults[0]}{more}; download it again")
    epoch, step = (meta.get(key) for key in ("epoch", "iter"))
    return {
        "model": {name: state[name].to(value.dtype).contiguous() for name, value in own.items()},
        "config": config.to_dict(),
        "epoch": epoch if isinstance(epoch, int) else 0,
        "step": step if isinstance(step, int) else 0,
        "classes": classes,
        "thresholds": None,
    }
