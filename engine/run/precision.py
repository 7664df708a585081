"""The choice of precision: bfloat16 autocast where it pays."""

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 matrix units; elsewhere autocast is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = (
        "_is_amx_tile_supported",
        "_is_avx512_bf16_supported",
    )  # private in torch 2.11, absent in some builds
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "bfloat16" or "float32" for `run.precision`, whose `auto` asks the hardware."""
    if precision == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    return precision


def autocast(precision: str, device: torch.device, cache: bool = True) -> torch.autocast:
    """Context in which the network runs; the losses leave it again for float32.

    Args:
        cache: cast each weight once, and not in every use.
    """
    enabled = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=cache)
