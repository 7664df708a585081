"""docs/adapters/torchvision.md and its project run, train, and agree with this project's detector and one process."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapter_worker import assert_two_processes_equal_one
from documented import DOCS, image_and_target, names_of
from torch import Tensor, nn

pytest.importorskip("torchvision")
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detector.matcher import MaxIoUMatcher
from detector.objectives import MatchedObjective
from losses.alrp import ALRPLoss

PAGE = "adapters/torchvision.md"
IN_TURN = """
import os, runpy, sys
for project in sys.argv[1:]:
    os.chdir(project)
    sys.path[0] = project
    for name in [name for name in sys.modules if name.split(".")[0] in ("data", "engine")]:
        del sys.modules[name]
    runpy.run_path("train.py", run_name="__main__")
"""


def build(name: str) -> nn.Module:
    """The page's detector for images of 64 pixels. Normalisation is frozen, so that images do not see each other."""
    torch.manual_seed(0)
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(512, 256)}
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5, **levels)
    model = names_of(PAGE)[name](backbone, 2, steps_per_epoch=20)
    model.transform.min_size, model.transform.max_size = (64,), 64
    return model.train()


def build_double(name: str) -> nn.Module:
    """In float32 the rounding of convolutions, which depends on the batch size, passes 1e-5 behind many layers."""
    return build(name).double()


def losses(model: nn.Module, seeds: tuple[int, ...]) -> Tensor:
    """The ranking loss of the model: FCOS's centerness is torchvision's, and a mean of each process."""
    images, targets = zip(*map(image_and_target, seeds), strict=True)
    for target in targets:
        target["boxes"] = target["boxes"].double()
    parts = model([image.double() for image in images], list(targets))
    unranked = 0 * parts.get("bbox_ctrness", 0)  # DistributedDataParallel waits for its gradients
    return parts["classification"] + parts["bbox_regression"] + unranked


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_first_gradients_of_two_processes_equal_those_of_one(tmp_path, name):
    assert_two_processes_equal_one(tmp_path, build_double, losses, name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_the_classification_part_halves_in_50_steps(name, seed):
    torch.manual_seed(seed)
    backbone = nn.Sequential()  # of one level
    for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
        backbone.extend([nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.ReLU()])
    backbone.out_channels = 32
    model = names_of(PAGE)[name](backbone, 2, steps_per_epoch=20)
    shapes = (((12, 16, 20),), ((0.5, 1.0, 2.0),)) if name == "retinanet" else (((8,),), ((1.0,),))
    model.anchor_generator = AnchorGenerator(*shapes)
    model.transform.min_size, model.transform.max_size = (64,), 64
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    images, targets = zip(*map(image_and_target, range(4)), strict=True)
    history = []
    for _ in range(50):
        parts = model(list(images), list(targets))
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
        history.append(parts["classification"].item())
    assert history[-1] < history[0] / 2


def test_retinanet_agrees_with_this_projects_objective():
    model = build("retinanet")
    head, generator = model.head, torch.Generator().manual_seed(0)
    images, targets = zip(*(image_and_target(seed, 128) for seed in (3, 4)), strict=True)
    sizes = [torch.zeros(2, 1, -(-128 // s), -(-128 // s)) for s in (8, 16, 32, 64, 128)]
    anchors = model.anchor_generator(ImageList(torch.stack(images), [(128, 128)] * 2), sizes)
    logits = torch.randn(2, len(anchors[0]), 2, generator=generator)
    deltas = 0.3 * torch.randn(2, len(anchors[0]), 4, generator=generator)
    matches = [MaxIoUMatcher()([anchors[0]], target["boxes"]) for target in targets]
    outputs = {"cls_logits": logits, "bbox_regression": deltas}
    theirs = head.compute_loss(targets, outputs, anchors, matches)
    for target in targets:
        target["crowd"] = torch.zeros(len(target["boxes"]), dtype=torch.bool)
    stds = torch.tensor([0.1, 0.1, 0.2, 0.2])  # torchvision's coder divides by 1
    ours = MatchedObjective(MaxIoUMatcher(), ALRPLoss())(logits, deltas / stds, [anchors[0]], targets)
    assert theirs["classification"].item() == pytest.approx(ours["loss_cls"].item(), rel=1e-5)
    assert theirs["bbox_regression"].item() == pytest.approx(50 * ours["loss_loc"].item(), rel=1e-5)


class TestProject:
    @pytest.fixture
    def project(self, tmp_path) -> Path:
        """A copy of the project beside the installed losses."""
        (tmp_path / "alrp").symlink_to(DOCS.parent / "losses")
        return shutil.copytree(DOCS / "adapters/project", tmp_path / "project")

    def epochs(self, *projects: Path) -> list[list[tuple[float, float]]]:
        """Of each project the two losses of fewer and shorter epochs; one process imports PyTorch for all."""
        for main in (project / "train.py" for project in projects):
            main.write_text(main.read_text().replace("EPOCHS = 2, 8", "EPOCHS = 2, 3").replace("(160, 0)", "(64, 0)"))
        environment = os.environ | {"PYTHONPATH": str(projects[0].parent), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", IN_TURN, *map(str, projects)]
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        *outputs, rest = re.split(r"^found [01]\.\d\d$", run.stdout, flags=re.MULTILINE)
        assert len(outputs) == len(projects) and not rest.strip()
        pairs = [re.findall(r"classification (\S+) bbox_regression (\S+)", output) for output in outputs]
        return [[(float(classification), float(boxes)) for classification, boxes in found] for found in pairs]

    def test_ten_lines_take_it_from_focal_to_alrp_loss(self, project):
        lines = (project / "alrp.diff").read_text().splitlines()
        assert sum(line.startswith("+") and len(line) > 1 for line in lines[2:]) == 10
        before = shutil.copytree(project, project.with_name("focal"))
        subprocess.run(["git", "apply", "alrp.diff"], cwd=project, check=True)
        focal, alrp = self.epochs(before, project)
        assert len(focal) == len(alrp) == 3
        assert focal[0][0] > 1 > alrp[0][0] > alrp[-1][0]  # focal loss is not bounded by 1
        assert alrp[-1][0] < 0.8 and focal[-1][0] > 1
