"""Dark images with a bright square or disc in each, made when asked for."""

import torch
from torch.utils.data import Dataset

SIDE = 64


class Squares(Dataset):
    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        generator = torch.Generator().manual_seed(self.seed + index)
        label, size, x, y = torch.rand(4, generator=generator).tolist()
        size = 14 + int(12 * size)
        x, y = int(x * (SIDE - size)), int(y * (SIDE - size))
        image = 0.2 * torch.rand(3, SIDE, SIDE, generator=generator)
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        inside = (rows - size / 2) ** 2 + (columns - size / 2) ** 2 < size**2 / 4 if label < 0.5 else rows >= 0
        image[:, y : y + size, x : x + size] += 0.7 * inside
        boxes = torch.tensor([[x, y, x + size, y + size]], dtype=torch.float)
        return image, {"boxes": boxes, "labels": torch.tensor([int(label < 0.5)])}
