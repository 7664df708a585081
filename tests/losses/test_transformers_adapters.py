"""docs/adapters/transformers.md: small detectors of random weights, with ResNets of transformers' own; no download."""

import pytest
import torch
from adapter_worker import assert_two_processes_equal_one
from documented import image_and_target, names_of
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")
pytest.importorskip("scipy")  # matches

PAGE = "adapters/transformers.md"
SIZE = 64
WIDTHS = {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
SMALL = {"num_queries": 20, "d_model": 32, "decoder_layers": 2, "encoder_layers": 1, "num_labels": 2}


def deformable_detr(names: dict, denoising: int) -> nn.Module:
    backbone = transformers.ResNetConfig(**WIDTHS, out_features=["stage2", "stage3", "stage4"])
    config = transformers.DeformableDetrConfig(
        **SMALL,
        backbone_config=backbone,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        dropout=0.0,
        num_feature_levels=3,
        auxiliary_loss=True,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )
    return names["RankedDeformableDetr"](config)


def rt_detr(names: dict, denoising: int) -> nn.Module:
    backbone = transformers.RTDetrResNetConfig(**WIDTHS, out_features=["stage2", "stage3", "stage4"])
    config = transformers.RTDetrConfig(
        **SMALL | {"d_model": 64},
        backbone_config=backbone,
        encoder_in_channels=[16, 32, 64],
        decoder_in_channels=[32, 32, 32],
        encoder_hidden_dim=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_denoising=denoising,
        auxiliary_loss=True,
    )
    return names["RankedRTDetr"](config)


BUILDERS = {"deformable_detr": deformable_detr, "rt_detr": rt_detr}


def build(name: str, seed: int = 0, denoising: int = 0) -> nn.Module:
    """A model in training mode."""
    torch.manual_seed(seed)
    names = names_of(PAGE)
    return names["with_criterion"](BUILDERS[name](names, denoising), steps=10, layers=2).train()


def build_double(name: str) -> nn.Module:
    """In which images do not see each other, and rounding does not depend on the batch size."""
    model = build(name).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def outputs(model: nn.Module, seeds: tuple[int, ...], dtype: torch.dtype = torch.float32):
    images, targets = zip(*(image_and_target(seed, SIZE) for seed in seeds), strict=True)
    labels = []
    for target in targets:
        corner, other = (target["boxes"] / SIZE).to(dtype).split(2, dim=1)
        boxes = torch.cat([(corner + other) / 2, other - corner], 1)
        labels.append({"boxes": boxes, "class_labels": target["labels"]})
    return model(pixel_values=torch.stack(images).to(dtype), labels=labels)


def losses(model: nn.Module, seeds: tuple[int, ...]) -> Tensor:
    return outputs(model, seeds, torch.float64).loss


@pytest.mark.parametrize("name", BUILDERS)
def test_first_gradients_of_two_processes_equal_those_of_one(tmp_path, name):
    assert_two_processes_equal_one(tmp_path, build_double, losses, name)


@pytest.mark.parametrize("name, layers", [("deformable_detr", 2), ("rt_detr", 3), ("rt_detr with denoising", 5)])
def test_every_layer_is_ranked_by_itself(name, layers):
    denoising = 10 if "denoising" in name else 0
    model = build(name.split()[0], denoising=denoising)
    calls = []
    model.criterion.register_forward_hook(lambda module, inputs, parts: calls.append((inputs, parts)))
    result = outputs(model, (0, 1))
    assert len(calls) == layers and len(result.loss_dict) == 2 * layers
    assert result.loss.item() == pytest.approx(sum(sum(parts).item() for _, parts in calls), rel=1e-6)
    for (logits, classes, *_), _ in calls[: 2 if name == "deformable_detr" else 3]:
        assert logits.shape == (2, 20, 2) and (classes < 2).sum() == 4  # as many as there are objects
    assert model.criterion.balance.steps == layers and "criterion.balance.weight" in model.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_classification_part_halves_in_50_steps(name, seed):
    model = build(name, seed)  # without denoising queries, whose boxes and classes are drawn anew in every step
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(50):
        result = outputs(model, (0, 1, 2, 4))
        optimizer.zero_grad()
        result.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(sum(loss.item() for key, loss in result.loss_dict.items() if key.startswith("loss_ce")))
    assert history[-1] < history[0] / 2
