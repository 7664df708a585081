import torch
from data import Squares
from engine import evaluate, train_one_epoch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

CLASSES, EPOCHS = 2, 8


def build_model():
    backbone = nn.Sequential()
    for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
        backbone.extend([nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(8, outputs), nn.ReLU()])
    backbone.out_channels = 32
    anchors = AnchorGenerator(sizes=((16, 20, 25),), aspect_ratios=((1.0,),))
    head = RetinaNetHead(backbone.out_channels, 3, CLASSES)
    return RetinaNet(backbone, CLASSES, 64, 64, anchor_generator=anchors, head=head)


def main():
    torch.manual_seed(0)
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train, test = (
        torch.utils.data.DataLoader(Squares(length, seed), batch_size=8, collate_fn=lambda batch: tuple(zip(*batch)))
        for length, seed in ((160, 0), (40, 1000))
    )
    for _ in range(EPOCHS):
        losses = train_one_epoch(model, optimizer, train)
        print(" ".join(f"{name} {loss:.4f}" for name, loss in losses.items()), flush=True)
    print(f"found {evaluate(model, test):.2f}")


if __name__ == "__main__":
    main()
