"""The losses that a configuration can name."""

from .alrp import ALRPLoss
from .ap import APLoss
from .centernet import CenterNetLoss
from .cross_entropy import CELoss
from .dr import DRLoss
from .focal import FocalLoss
from .free_anchor import FreeAnchorLoss
from .loss import Loss, LossSettings
from .rank_sort import RankSortLoss

LOSSES: dict[str, type[Loss]] = {
    loss.Settings.name: loss
    for loss in (
        ALRPLoss,
        APLoss,
        CELoss,
        RankSortLoss,
        FocalLoss,
        DRLoss,
        FreeAnchorLoss,
        CenterNetLoss,
    )
}


def build_loss(settings: LossSettings) -> Loss:
    """The loss that the settings are of."""
    return LOSSES[settings.name](settings)
