"""oLRP as a metric that takes batches, on one process or many, as those of torchmetrics."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .instances import Detections, GroundTruth, box_areas
from .lrp import evaluate_lrp
from .matching import TAU, match

try:
    from torchmetrics import Metric
except ImportError:
    from .plain_metric import Metric

# columns of the states: of each image its numbers of detections and objects; of a detection its corners, score and
# label; of an object its corners, label, crowd flag and area
STATES = {"counts": 2, "detections": 6, "objects": 7}
LABEL = {"preds": 5, "targets": 4}  # column of the labels
MAX_LABEL = 2**53  # from here on float64, which the states are, has not every integer


class OptimalLRP(Metric):
    """Optimal LRP with its components and the LRP-optimal score thresholds; lower is better.

    A subclass of torchmetrics.Metric where that is installed; else it has the same `update`, `compute`, `reset`,
    `sync` and `unsync`. With several processes `compute` is over the images of all, in the order of ranks. The values
    are those of the same boxes in COCO files: the 100 best detections of each image and class count, at IoU 0.5 or
    more. Where scores are equal, the order of the images decides.

    Args:
        kwargs: of torchmetrics.Metric; without torchmetrics `process_group` alone.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
        >>> metric = OptimalLRP()
        >>> metric.update(
        ...     [{"boxes": boxes[:1], "scores": torch.tensor([0.75]), "labels": torch.tensor([1])}],
        ...     [{"boxes": boxes, "labels": torch.tensor([1, 1])}],
        ... )
        >>> result = metric.compute()
        >>> result["oLRP"].item(), result["oLRP_loc"].item(), result["oLRP_fn"].item()
        (0.5, 0.0, 0.5)
        >>> result["per_class"][1]["lrp_threshold"]
        0.75
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    counts: list[Tensor]
    detections: list[Tensor]
    objects: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        for name in STATES:
            setattr(self, name, [])
        super().reset()
        for name, width in STATES.items():
            # a process without images then sends what has the same width and type
            getattr(self, name).append(torch.zeros(0, width, dtype=torch.float64, device=self.device))

    def update(self, preds: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]) -> None:
        """Adds a batch of images; none of them where it raises. On a GPU it waits once, where all lie there.

        Args:
            preds: of each image `boxes` (n, 4) x1, y1, x2, y2 in pixels, finite, x1 <= x2 and y1 <= y2, `scores` (n,)
                finite, `labels` (n,) integers below 2**53 in size.
            targets: of each image `boxes` (m, 4), `labels` (m,); and optionally `iscrowd` (m,), regions in which
                detections neither count nor fail, and `area` (m,) square pixels, by which an object is small, medium
                or large; the box's where it is missing or negative.
        Raises:
            ValueError: the lists differ in length, the tensors of an image do, or a box, score or label is none of
                those.
            KeyError: a required key is missing.
        """
        if len(preds) != len(targets):
            raise ValueError(f"{len(preds)} preds for {len(targets)} targets; give one of each for every image")
        if not preds:
            return
        tables = []
        for place, (pred, target) in enumerate(zip(preds, targets, strict=True)):
            found = self._table(f"preds[{place}]", pred, "boxes", "scores", "labels")
            boxes = target["boxes"]
            crowd = target.get("iscrowd", torch.zeros(len(boxes), device=boxes.device))
            area = target.get("area", torch.full((len(boxes),), -1.0, device=boxes.device))
            target = target | {"iscrowd": crowd, "area": area}
            objects = self._table(f"targets[{place}]", target, "boxes", "labels", "iscrowd", "area")
            counts = torch.tensor([[len(found), len(objects)]], dtype=torch.float64, device="cpu")
            tables.append((counts, found, objects))
        counts, found, objects = map(torch.cat, zip(*tables, strict=True))
        _refuse_unusable(counts, preds=found, targets=objects)
        self.counts.append(counts.to(self.device, non_blocking=True))
        self.detections.append(found)
        self.objects.append(objects)

    def compute(self) -> dict[str, Any]:
        """The metrics of all images since the last `reset`.

        Returns:
            `oLRP`, `oLRP_loc`, `oLRP_fp`, `oLRP_fn`, `oLRP_s`, `oLRP_m`, `oLRP_l`: float64 scalars on the CPU, means
            over the classes that have objects, `oLRP_loc` and `oLRP_fp` over those of them with a true positive, -1
            where there is none; and `per_class`: label -> {oLRP, oLRP_loc, oLRP_fp, oLRP_fn, lrp_threshold}, None where
            undefined (see `evaluate_lrp`), of the labels met so far.
        """
        counts, detections, objects = (_joined(getattr(self, name)) for name in STATES)
        category_ids = np.unique(np.concatenate([detections[:, 5], objects[:, 4]])).astype(np.int64)
        images = np.arange(len(counts))
        boxes = _xywh(objects)
        truth = GroundTruth(
            image_ids=images.tolist(),
            category_ids=category_ids.tolist(),
            class_names=list(map(str, category_ids)),
            images=np.repeat(images, counts[:, 1].astype(np.int64)),
            labels=np.searchsorted(category_ids, objects[:, 4]),
            boxes=boxes,
            areas=np.where(objects[:, 6] >= 0, objects[:, 6], box_areas(boxes)),
            crowd=objects[:, 5] != 0,
        )
        found = Detections(
            images=np.repeat(images, counts[:, 0].astype(np.int64)),
            labels=np.searchsorted(category_ids, detections[:, 5]),
            boxes=_xywh(detections),
            scores=detections[:, 4],
        )
        metrics = evaluate_lrp(match(truth, found, [TAU]))
        per_class = metrics.pop("per_class")
        scalars = {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
        return scalars | {"per_class": per_class}

    def _table(self, where: str, instances: dict[str, Tensor], *names: str) -> Tensor:
        """The boxes and the other columns of one image as (n, …) float64."""
        labels = instances["labels"]
        if labels.dtype.is_floating_point and labels.numel():
            raise ValueError(f"{where}: labels are {labels.dtype}; expected integers")
        boxes, *columns = (instances[name].detach().to(self.device, torch.float64) for name in names)
        if boxes.numel() == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.shape != (len(boxes), 4) or any(column.shape != (len(boxes),) for column in columns):
            shapes = ", ".join(f"{name} {tuple(instances[name].shape)}" for name in names)
            raise ValueError(f"{where}: {shapes}; expected boxes (n, 4) and one entry of the others for each")
        return torch.cat([boxes, *(column[:, None] for column in columns)], dim=1)


def _refuse_unusable(counts: Tensor, **tables: Tensor) -> None:
    """Raises ValueError that names the image and the row of what cannot be evaluated.

    Args:
        counts: (B, 2) on the CPU, detections and objects of each image.
        tables: (n, …) preds and (m, …) targets, of all images.
    """
    wrong = [_unusable(rows, LABEL[name]) for name, rows in tables.items()]
    if not torch.cat(wrong).any():  # the one wait
        return
    for (name, rows), is_wrong, lengths in zip(tables.items(), wrong, counts.unbind(dim=1), strict=True):
        for row in is_wrong.nonzero().flatten().tolist()[:1]:
            ends = lengths.cumsum(0)
            image = int(torch.searchsorted(ends, row, right=True))
            row_in_image = row - int(ends[image] - lengths[image])
            score = f", score {float(rows[row, 4])}" if name == "preds" else ""
            seen = f"box {rows[row, :4].tolist()}{score}, label {int(rows[row, LABEL[name]])}"
            raise ValueError(
                f"{name}[{image}], row {row_in_image}: {seen}; boxes must be finite x1, y1, x2, y2 with x1 <= x2 and "
                "y1 <= y2, scores finite, labels below 2**53 in size"
            )


def _unusable(rows: Tensor, label: int) -> Tensor:
    """(n,) bool, whether a box, score or label of a table cannot be evaluated."""
    in_order = (rows[:, 2:4] >= rows[:, :2]).all(dim=1)
    return ~(in_order & rows[:, :5].isfinite().all(dim=1) & (rows[:, label].abs() < MAX_LABEL))


def _joined(state: list[Tensor] | Tensor) -> np.ndarray:
    """A state as an array; synced by torchmetrics it is one tensor."""
    return (state if isinstance(state, Tensor) else torch.cat(state)).cpu().numpy()


def _xywh(instances: np.ndarray) -> np.ndarray:
    return np.concatenate([instances[:, :2], instances[:, 2:4] - instances[:, :2]], axis=1)
