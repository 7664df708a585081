"""Batches to rank, drawn at random, and the balance that every ranking loss keeps."""

import pytest
import torch


def random_batch(num, num_positives, seed=0, scale=2.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(num, generator=generator) * scale).to(dtype)
    targets = torch.zeros(num)
    order = torch.randperm(num, generator=generator)
    targets[order[:num_positives]] = 1
    targets[order[num_positives : num_positives + num // 10]] = -1
    return logits, targets, torch.rand(num_positives, generator=generator).to(dtype)


def assert_balanced(gradient):
    gradient = gradient.double()
    total = gradient.abs().sum().item()
    assert gradient.sum().item() == pytest.approx(0, abs=2e-6 * total + 1e-12)
