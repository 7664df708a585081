"""TensorBoard pages of a run. Logging reads values and changes none; processes other than the main one log nothing."""

import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from engine.reporting.analysis import Analysis
from engine.reporting.drawing import CARD
from engine.reporting.figures import figure_pixels, lrp_figure, precision_recall_figure

# the page "Custom Scalars": group -> chart -> patterns of the tags that it draws together
LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "accuracy": {
        "AP": ("eval/AP", "eval/AP50", "eval/AP75"),
        "AP on val and on training images (far apart: overfitting)": ("eval/AP", "eval/train_AP"),
        "oLRP (an error: lower is better)": ("eval/oLRP",),
        "oLRP: localisation, false positives, misses": ("eval/oLRP_loc", "eval/oLRP_fp", "eval/oLRP_fn"),
        "AP by object size": ("eval/APs", "eval/APm", "eval/APl"),
    },
    "losses": {
        "parts, unweighted": ("train/loss_.+",),
        "total (rises with the weight of self-balance)": ("train/loss",),
    },
    "balance": {
        "weight of the localisation part": ("train/self_balance.*",),
        "gradient mass of positives and negatives": ("train/grad_mass_positive", "train/grad_mass_negative"),
        "positives and the negatives near them": ("train/num_positives", "train/num_relevant_negatives"),
    },
    "optimisation": {
        "learning rate": ("train/lr",),
        "gradient norm": ("train/grad_norm",),
        "images per second": ("perf/images_per_second",),
        "share of the time waiting for data": ("perf/data_wait",),
    },
}
DIAGNOSIS_LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "diagnosis": {
        "ranking: precision of the positives": ("train_diagnosis/precision",),
        "ranking: median rank of the positives": ("train_diagnosis/rank",),
        "scores: median positive, 99th percentile of the negatives": (
            "train_diagnosis/score_positive",
            "train_diagnosis/score_negative",
        ),
        "IoU of positives and of the best anchors with their objects": (
            "train_diagnosis/matched_iou",
            "train_diagnosis/anchor_iou",
        ),
        "positives of each level": ("train_diagnosis/positives_.+",),
        "length of an update relative to the weights": ("train/update_ratio",),
    }
}
CURVES_DPI = 100


class NullLogger:
    """The logger of every process but the main one."""

    def scalars(self, prefix: str, values: dict[str, float], step: int) -> None: ...

    def images(self, tag: str, images: list[Tensor], step: int) -> None: ...

    def histogram(self, tag: str, counts: Tensor, edges: Tensor, step: int) -> None: ...

    def curves(self, analysis: Analysis, step: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoardLogger(NullLogger):
    """Event files in the run folder.

    Args:
        folder: run folder.
        step: steps done so far; points after it, left by an interrupted run, are dropped from the curves.
        config: plain form of the run's configuration, shown as text and compared with other runs' as hyper-parameters.
    """

    def __init__(self, folder: Path, step: int, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported late: it takes seconds

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=30)
        self._describe(config)

    def scalars(self, prefix: str, values: dict[str, float], step: int) -> None:
        """One point per value, tagged prefix/name."""
        for name, value in values.items():
            self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def images(self, tag: str, images: list[Tensor], step: int) -> None:
        """(3, H, W) uint8 pictures, tagged tag/0, tag/1, …"""
        for index, image in enumerate(images):
            self._writer.add_image(f"{tag}/{index}", image, step)

    def histogram(self, tag: str, counts: Tensor, edges: Tensor, step: int) -> None:
        """Counts (n,) between ascending edges (n + 1,); none for empty ones."""
        filled = counts.nonzero().squeeze(1)
        if len(filled) == 0:
            return
        first, last = int(filled[0]), int(filled[-1]) + 1  # the page scales its axis to all bins that it is given
        counts, edges = counts[first:last].double(), edges[first : last + 1].double()
        middles = (edges[1:] + edges[:-1]) / 2
        self._writer.add_histogram_raw(
            tag,
            min=edges[0].item(),
            max=edges[-1].item(),
            num=int(counts.sum()),
            sum=(counts @ middles).item(),
            sum_squares=(counts @ middles.square()).item(),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )

    def curves(self, analysis: Analysis, step: int) -> None:
        """Pictures curves/precision_recall and curves/lrp (over the score threshold); none without ground truth."""
        if analysis.budget is not None:
            for name, draw in (("precision_recall", precision_recall_figure), ("lrp", lrp_figure)):
                self._writer.add_image(
                    f"curves/{name}", figure_pixels(draw(analysis, CARD / CURVES_DPI), CURVES_DPI), step
                )

    def _describe(self, config: dict[str, Any]) -> None:
        """Writes what never changes: the configuration, as text and as hyper-parameters, and the charts."""
        from torch.utils.tensorboard.summary import hparams

        lines = yaml.safe_dump(config, sort_keys=False).splitlines()
        self._writer.add_text("config", "\n".join("    " + line for line in lines))  # indented: shown verbatim
        charts = {
            group: {title: ["Multiline", [f"^{tag}$" for tag in tags]] for title, tags in content.items()}
            for group, content in (LAYOUT | (DIAGNOSIS_LAYOUT if config["run"]["diagnose"] else {})).items()
        }
        self._writer.add_custom_scalars(charts)
        settings = {f"{group}.{key}": value for group, keys in config.items() for key, value in keys.items()}
        plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
        # In this very run, where the final AP is: add_hparams would open another one. Without the summary of the
        # whole experiment TensorBoard makes its own from all runs, and puts first what differs between them.
        _, session, _ = hparams(plain, {})
        self._writer._get_file_writer().add_summary(session)

    def flush(self) -> None:
        """Writes out the points so far: a checkpoint must not be ahead of its curves."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of this process so far in GB: allocated on the GPU, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource  # POSIX alone has it
    except ImportError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def scalar_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation without its per-class part and without undefined ones (-1)."""
    return {name: value for name, value in metrics.items() if isinstance(value, float | int) and value >= 0}
