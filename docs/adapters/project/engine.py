import torch
from torchvision.ops import box_iou


def train_one_epoch(model, optimizer, loader):
    """Means of the losses, by name."""
    model.train()
    totals = {}
    for images, targets in loader:
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0.0) + loss.item() / len(loader)
    return totals


@torch.no_grad()
def evaluate(model, loader):
    """Fraction of the images whose best detection has the right class and an IoU of at least 0.5."""
    model.eval()
    found, count = 0, 0
    for images, targets in loader:
        for detections, target in zip(model(images), targets):
            count += 1
            if len(detections["labels"]) and detections["labels"][0] == target["labels"][0]:
                found += bool(box_iou(detections["boxes"][:1], target["boxes"]) >= 0.5)
    return found / count
