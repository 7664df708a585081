"""From a released COCO checkpoint to a detector of other classes, by the commands of docs/models.md."""

import json
import shutil

import pytest
import torch
from released_weights import rebuilt_checkpoint

from engine.run.checkpoint import load_checkpoint


@pytest.mark.slow
def test_fine_tuning_a_converted_checkpoint_on_blood_cells(shared, command, tmp_path):
    root = small_bccd(shared, tmp_path)
    torch.save(
        {"state_dict": rebuilt_checkpoint(shared / "golden/checkpoints/alrp_loss_retinanet_r50_fpn_100e_coco500.json")},
        tmp_path / "theirs.pth",
    )
    convert = ("scripts/convert_checkpoint.py", "--from", "alrp", tmp_path / "theirs.pth", tmp_path / "coco.pt")
    converted = command(*convert)
    assert converted.returncode == 0 and "configs/r50_alrp.yaml" in converted.stdout, converted.stderr
    settings = (f"data.root={root}", f"run.dir={tmp_path}/runs", "run.device=cpu", "data.batch_size=2")
    settings += ("data.workers=0", "data.image_size=[64, 96]", "evaluation.short_side=64", "evaluation.long_side=96")
    trained = command(
        *("train.py", "--config", "configs/bccd_r50_finetune.yaml", f"model.init_from={tmp_path}/coco.pt"),
        *(*settings, "schedule.epochs=1", "schedule.milestones=[]", "model.score_thresh=0.0"),
    )
    assert trained.returncode == 0, trained.stderr
    assert "and not of RBC, WBC, Platelets: it starts afresh" in trained.stderr
    coco = load_checkpoint(tmp_path / "coco.pt")
    tuned = load_checkpoint(tmp_path / "runs/bccd_r50_finetune/checkpoints/last.pt")
    assert (len(coco["classes"]), tuned["classes"], tuned["step"]) == (80, ["RBC", "WBC", "Platelets"], 2)
    before, after = coco["model"], tuned["model"]
    assert torch.equal(before["backbone.layer1.0.conv1.weight"], after["backbone.layer1.0.conv1.weight"])  # frozen
    start = before["backbone.layer4.2.conv3.weight"]
    change = (after["backbone.layer4.2.conv3.weight"] - start).norm() / start.norm()
    assert 0 < change < 0.1  # trained on, from there
    assert after["head.cls_logits.weight"].shape[0] == 6 * 3

    report = command(
        *("eval.py", "--ckpt", tmp_path / "runs/bccd_r50_finetune/checkpoints/last.pt", "--split", "test"),
        *(f"data.root={root}", "--json", tmp_path / "metrics.json"),
    )
    assert report.returncode == 0, report.stderr
    assert set(json.loads((tmp_path / "metrics.json").read_text())["per_class"]) == {"RBC", "WBC", "Platelets"}


def small_bccd(shared, tmp_path):
    """The first four images of each split."""
    root = tmp_path / "bccd"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        content = json.loads((shared / f"data/bccd/annotations/instances_{split}.json").read_text())
        content["images"] = content["images"][:4]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        (root / split).mkdir()
        for image in content["images"]:
            shutil.copy(shared / f"data/bccd/{split}" / image["file_name"], root / split)
    return root
