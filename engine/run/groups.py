"""The keys of an experiment with their defaults, units and ranges, in groups.

The groups `model` and `loss` belong to the detector and its losses and are defined there.
"""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from data.exif import Exif
from data.synthetic.shapes import IMAGE_SIZE, MIN_IMAGE_SIZE, NUM_IMAGES
from detector.contract import SIZE_DIVISOR

Folder = Annotated[str, AfterValidator(os.path.expanduser)]  # shells leave the ~ of KEY=~/folder alone


class Group(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class GenerateConfig(Group):
    """Size of the generated shapes data set that is written to `data.root` where it is missing."""

    train: int = Field(NUM_IMAGES["train"], ge=1)
    """Images of the training split."""
    val: int = Field(NUM_IMAGES["val"], ge=1)
    """Images of the validation split."""
    test: int = Field(NUM_IMAGES["test"], ge=1)
    """Images of the test split."""
    image_size: int = Field(IMAGE_SIZE, ge=MIN_IMAGE_SIZE)
    """Side of the square images, pixels."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of all that is random in the data set."""


class DataConfig(Group):
    root: Folder = "datasets/coco"
    """Folder of the data set: `annotations/instances_<split>.json` and `<split>/<file_name>` in it."""
    train_split: str = "train2017"
    """Name of the split to train on."""
    val_split: str = "val2017"
    """Name of the split that evaluations during training use."""
    test_split: str | None = None
    """Name of the split that `eval.py --split test` uses; null: none."""
    classes: list[str] | None = None
    """Category names to use; null: all."""
    generate: GenerateConfig | None = None
    """Shapes data set to write to `root` where it is missing; null: none."""
    image_size: int | list[int] = 512
    """Pixels: S for S×S, or [height, width]; training images are resized to it, or cut (augmentation crop)."""
    short_side: int | list[int] | None = None
    """In place of `image_size`, at the image's own aspect ratio: short side, pixels, or [lowest, highest] to draw
    it from for each image."""
    long_side: int | None = Field(None, ge=SIZE_DIVISOR)
    """Upper limit with `short_side`, pixels."""
    augmentation: Literal["ssd", "flip", "hvflip", "crop"] = "ssd"
    """Of training images: colours, expansion, crop and mirroring of SSD; or mirroring alone, left to right, or top to
    bottom as well; or nothing but a window of `image_size` anywhere in the image, at its own scale."""
    batch_size: int = Field(32, ge=1)
    """Images per optimizer step, over all processes; a multiple of processes × `accumulate`."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step and process."""
    workers: int = Field(4, ge=0)
    """Loader processes per training process."""
    cache: bool = False
    """Keep the training images' files, as they are stored, in the memory of each training process."""
    crowd: Literal["background", "ignore"] = "background"
    """Negative reference boxes on a crowd region: background, as in the paper, or ignored in the region's class."""
    on_error: Literal["stop", "skip"] = "stop"
    """At an unreadable image or unusable annotation: end with its name, or leave it out with a warning."""
    exif: Exif = "turn"
    """EXIF orientation. turn: pixels as viewers show them, unless the annotation's size fits only the image as stored;
    ignore: the reverse; legacy, of runs begun before this key: ignore in data sets, turn in prediction."""
    inside_only: bool = False
    """Refuse images outside of `root`; `--inside-only` sets it."""

    @field_validator("image_size")
    @classmethod
    def _two_sides(cls, value: int | list[int]) -> int | list[int]:
        sides = [value, value] if isinstance(value, int) else value
        if len(sides) != 2 or min(sides) < SIZE_DIVISOR:
            raise ValueError(f"must be one side or [height, width], each at least {SIZE_DIVISOR} pixels")
        return value

    @field_validator("short_side")
    @classmethod
    def _range_of_sides(cls, value: int | list[int] | None) -> int | list[int] | None:
        sides = value if isinstance(value, list) else [SIZE_DIVISOR if value is None else value] * 2
        if len(sides) != 2 or not SIZE_DIVISOR <= sides[0] <= sides[1]:
            raise ValueError(f"must be one side or [lowest, highest], each at least {SIZE_DIVISOR} pixels")
        return value

    @model_validator(mode="after")
    def _training_sides_together(self) -> "DataConfig":
        if (self.short_side is None) != (self.long_side is None):
            raise ValueError("short_side and long_side are given together or not at all")
        if self.short_sides is not None and self.long_side is not None and self.short_sides[1] > self.long_side:
            raise ValueError("short_side must not exceed long_side")
        if self.augmentation == "crop" and self.short_side is not None:
            raise ValueError("augmentation: crop cuts images at their own scale; leave out short_side and long_side")
        return self

    @field_validator("classes")
    @classmethod
    def _distinct_classes(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("must be distinct category names, or null for all")
        return value

    @property
    def train_size(self) -> tuple[int, int]:
        """(height, width) of training images."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size[0], self.image_size[1]

    @property
    def short_sides(self) -> tuple[int, int] | None:
        """(lowest, highest) short side of training images; None where image_size says their size."""
        if self.short_side is None or isinstance(self.short_side, int):
            return None if self.short_side is None else (self.short_side, self.short_side)
        return self.short_side[0], self.short_side[1]


class OptimizerConfig(Group):
    name: Literal["sgd", "adam", "adamw"] = "sgd"
    """The optimizer; the defaults are those of SGD, whose rates are some 100 times Adam's."""
    lr: float = Field(0.008, gt=0)
    """Learning rate for `base_batch_size` images per step."""
    base_batch_size: int = Field(32, ge=1)
    """Images per step that learning rate and warm-up are for."""
    scale_lr: bool = True
    """Scale learning rate and warm-up when `data.batch_size` differs from `base_batch_size`."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD; of Adam and AdamW the first beta."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """The second beta of Adam and AdamW; SGD has none."""
    weight_decay: float = Field(1e-4, ge=0)
    """Of all weights: added to the gradient, or with AdamW a share of the weights themselves, times the rate."""
    clip_grad_norm: float | None = Field(None, gt=0)
    """Largest norm of the gradient of all weights together; null: any."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of the exponential moving average of the weights, which evaluation uses; null: none."""

    @model_validator(mode="after")
    def _keys_of_the_optimizer(self) -> "OptimizerConfig":
        if self.name == "sgd" and self.beta2 != 0.999:
            raise ValueError("beta2 must be left out with name: sgd, which has none; adam and adamw have it")
        return self


class ScheduleConfig(Group):
    epochs: int = Field(100, ge=1)
    """Length of the schedule."""
    kind: Literal["step", "cosine"] = "step"
    """How the learning rate falls."""
    milestones: list[int] = [60, 80]
    """Epochs after which the step schedule multiplies the rate by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor at each milestone of the step schedule."""
    warmup_steps: int = Field(500, ge=0)
    """Steps in which the rate rises to its full value, for `base_batch_size`."""
    warmup_factor: float = Field(1e-3, gt=0, le=1)
    """Share of the rate that the warm-up begins with."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps in total; the schedule stays. null: at its end."""

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if any(late <= early for early, late in zip([0, *value], value, strict=False)):
            raise ValueError("must be epochs in ascending order, from 1 on")
        return value


class EvaluationConfig(Group):
    every: int = Field(1, ge=1)
    """Epochs between two evaluations; the last step is evaluated in any case."""
    batch_size: int = Field(8, ge=1)
    """Images per process."""
    train_images: int = Field(100, ge=0)
    """Training images, evenly spaced, to evaluate too, in training: `train_AP` tells overfitting; 0: none."""
    short_side: int | None = Field(None, ge=SIZE_DIVISOR)
    """Short side of the images, pixels; null: `data.image_size` exactly, or with `data.augmentation` crop their own
    size."""
    long_side: int | None = Field(None, ge=SIZE_DIVISOR)
    """Upper limit with `short_side`, pixels."""
    resize: Literal["paper", "torchvision"] = "paper"
    """torchvision: its rounding of sizes, and pixel values that are not rounded."""
    flip: bool = False
    """Test-time augmentation: the mirrored image too; detections on all are merged by NMS."""
    extra_short_sides: list[Annotated[int, Field(ge=SIZE_DIVISOR)]] = []
    """Test-time augmentation: the image at these short sides too; `long_side` grows along."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Also of predictions. bfloat16: faster on hardware that multiplies it, AP differs by some thousandths."""
    winograd: bool = False
    """On a CPU: wide 3×3 convolutions by Winograd's algorithm, which is faster; how many images a batch has then shows
    in more of the last digits of its detections."""

    @model_validator(mode="after")
    def _sides_together(self) -> "EvaluationConfig":
        if (self.short_side is None) != (self.long_side is None):
            raise ValueError("short_side and long_side are given together or not at all")
        if self.short_side is not None and self.long_side is not None and self.short_side > self.long_side:
            raise ValueError("short_side must not exceed long_side")
        if self.short_side is None and (self.extra_short_sides or self.resize == "torchvision"):
            raise ValueError("extra_short_sides and resize: torchvision need short_side and long_side")
        return self


class RunConfig(Group):
    dir: Folder = "runs"
    """Folder of the run folders."""
    name: str | None = Field(None, pattern=r"^[\w][\w.+=-]*$")
    """Name of the run folder; null: the config file's name."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of all that is random in a run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of training (of evaluation: `evaluation.precision`); auto: bfloat16 where the hardware multiplies it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of a process, on whose number the last digits depend; null: OMP_NUM_THREADS, else as many as affinity
    and quota allow. The run folder's config.yaml says how many there were."""
    compile: bool = False
    """torch.compile of the network; needs a C++ compiler, pays in long runs."""
    graphs: bool = True
    """On a GPU: the network as CUDA graphs, in training where batches have one size and no norm talks to other
    processes, in evaluation for small batches of shapes that come again."""
    winograd: bool = True
    """Training on a CPU: wide 3×3 convolutions in float32 by Winograd's algorithm, which is faster."""
    log_every: int = Field(10, ge=1)
    """Steps between TensorBoard points."""
    diagnose: bool = False
    """Watch for known causes of a run that does not converge: docs/diagnose.md."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; an epoch's end always writes one. null: only those."""
    checkpoint_minutes: float | None = Field(None, gt=0)
    """Minutes between checkpoints, beside the others; null: only those."""
    keep_checkpoints: int = Field(2, ge=1)
    """Last checkpoints to keep: last.pt and those before it, last.1.pt, …."""
    collective_minutes: float = Field(10.0, gt=0)
    """How long a process waits for the others before it gives up; evaluation's metrics take one process minutes."""
    max_bad_steps: int = Field(10, ge=1)
    """Steps in a row without a finite loss and gradient before giving up."""
