"""The objective of CenterNet: where its keypoints are, and what the maps say there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from detector.centernet.head import Maps
from detector.centernet.targets import keypoint_targets
from detector.monitor import Monitor
from losses.centernet import CenterNetLoss, Keypoints
from losses.entries import positive_entries


class CenterNetObjective(nn.Module):
    """Draws the targets of the maps and compares.

    Args:
        loss: of keypoints.
        ignore_crowd: see `keypoint_targets`.
    """

    def __init__(self, loss: CenterNetLoss, ignore_crowd: bool) -> None:
        super().__init__()
        self.loss = loss
        self.ignore_crowd = ignore_crowd

    def forward(
        self,
        maps: Maps,
        image_size: tuple[int, int],
        targets: Sequence[dict[str, Any]],
        group: ProcessGroup | None = None,
        monitor: Monitor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, or of the batches of all processes in `group`, see `CenterNetLoss`.

        Args:
            maps: of the head, float32. image_size: (height, width), pixels.
            targets: see `keypoint_targets`.
            monitor: filled with statistics of this process's batch if given; their entries are the cells of all maps
                and classes, the positive ones those of keypoints.
        """
        num_classes, *map_size = maps.cls_logits.shape[2:]
        wanted = keypoint_targets(targets, num_classes, image_size, (map_size[0], map_size[1]), self.ignore_crowd)
        logits = maps.cls_logits.flatten()
        if monitor is not None:
            self._watch(monitor, logits, wanted.heat.flatten(), group)
        image, (columns, rows) = wanted.image, wanted.cells.unbind(-1)
        kind = torch.arange(3, device=image.device)
        keypoints = Keypoints(
            logits=logits.view_as(maps.cls_logits),
            heat=wanted.heat.to(logits.dtype),
            tags=maps.tags[image[:, None], kind[:2], rows[:, :2], columns[:, :2]],
            pred_offsets=maps.offsets[image[:, None], kind, :, rows, columns],
            offsets=wanted.offsets,
            image=image,
        )
        return self.loss.of_keypoints(keypoints, group)

    def _watch(self, monitor: Monitor, logits: Tensor, heat: Tensor, group: ProcessGroup | None) -> None:
        cls_targets = (heat == 1).to(torch.int8) - (heat < 0).to(torch.int8)
        monitor.watch_logits(logits, cls_targets, None)
        if monitor.detailed:
            entries = positive_entries(cls_targets)
            delta = self.loss.settings.step_half_width
            monitor.watch_ranks(logits, cls_targets, entries, delta, group)
