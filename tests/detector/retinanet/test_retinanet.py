"""detector/retinanet/retinanet.py and build.py: the whole, in both modes."""

import copy
import logging

import pytest
import torch

from detector import build_detector
from detector.backbones.winograd import use_winograd
from detector.boxes import PAPER_CODING, TORCHVISION_CODING
from detector.matcher import ATSSMatcher, MaxIoUMatcher
from detector.monitor import Monitor
from detector.retinanet.config import RetinaNetConfig
from losses.focal import FocalLoss, FocalSettings


@pytest.fixture
def targets(make_target):
    return [make_target((10, 10, 60, 60), (30, 5, 90, 60), labels=(1, 2)), make_target()]


def test_raw_outputs_are_the_same_in_both_modes(make_detector):
    detector, images = make_detector(), torch.rand(2, 3, 64, 96)
    trained, evaluated = detector.train().raw_outputs(images), detector.eval().raw_outputs(images)
    cls_logits, box_deltas, anchors_per_level = trained
    num_anchors = 6 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1)
    assert cls_logits.shape == (2, num_anchors, 3) and box_deltas.shape == (2, num_anchors, 4)
    assert sum(len(anchors) for anchors in anchors_per_level) == num_anchors
    assert torch.equal(cls_logits, evaluated[0]) and torch.equal(box_deltas, evaluated[1])


def test_batched_equals_single(make_detector):
    detector = make_detector(score_thresh=0.0099, topk_candidates=50).eval()
    images, sizes = torch.rand(3, 3, 64, 96), [(64, 96), (50, 96), (64, 33)]
    together = detector(images, image_sizes=sizes)
    for i, detections in enumerate(together):
        (alone,) = detector(images[i : i + 1], image_sizes=sizes[i : i + 1])
        assert len(alone["scores"]) > 0
        torch.testing.assert_close(detections, alone, rtol=1e-4, atol=1e-4)


def test_boxes_are_clipped_to_the_whole_image_by_default(make_detector):
    (found,) = make_detector(score_thresh=0.0).eval()(torch.rand(1, 3, 64, 96))
    assert len(found["boxes"]) == 100
    assert found["boxes"].amin() >= 0 and found["boxes"].amax(dim=0)[2:].tolist() <= [96, 64]


@pytest.mark.parametrize("name", ["alrp", "ap", "focal"])
@pytest.mark.parametrize("empty", [False, True])
def test_every_parameter_gets_a_finite_gradient(make_detector, make_target, targets, name, empty):
    detector = make_detector(loss={"name": name})
    losses = detector(torch.rand(2, 3, 64, 96), [make_target()] * 2 if empty else targets)
    losses["loss"].backward()
    assert all(value.dim() == 0 and value.isfinite() for value in losses.values())
    for parameter_name, parameter in detector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("matcher", ["max_iou", "atss"])
def test_objects_that_no_anchor_matches_train_on(make_detector, make_target, matcher):
    # max IoU: no anchor overlaps the object; ATSS: no anchor has its centre inside
    box = (5000, 5000, 5010, 5010) if matcher == "max_iou" else (33, 33, 34, 34)
    detector = make_detector(matcher=matcher)
    monitor = Monitor()
    losses = detector(torch.rand(1, 3, 64, 64), [make_target(box)], monitor=monitor)
    losses["loss"].backward()
    assert monitor.values["num_positives"] == 0 and losses["loss"] == 0


def test_losses_stay_in_float32_under_autocast(make_detector, targets):
    detector, images = make_detector(), torch.rand(2, 3, 64, 96)
    reference = detector(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(images, targets)
        losses["loss"].backward()
        detections = detector.eval()(images)
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert all(detection["boxes"].dtype == torch.float32 for detection in detections)
    torch.testing.assert_close(losses["loss_cls"], reference["loss_cls"], rtol=0.02, atol=0.0)
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())


def test_channels_last_computes_the_same(make_detector, targets):
    detector, images = make_detector(), torch.rand(2, 3, 64, 96)
    reference = detector(images, targets)
    detector = detector.to(memory_format=torch.channels_last)
    losses = detector(images.to(memory_format=torch.channels_last), targets)
    for key, value in reference.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["alrp", pytest.param("rs", marks=pytest.mark.slow), "focal"])
def test_one_image_is_learned(make_detector, make_target, name):
    detector = make_detector(loss={"name": name})
    images = torch.rand(1, 3, 64, 64) * 0.1
    images[:, 0, 16:48, 16:48] = 1.0
    target = make_target((16, 16, 48, 48), labels=(1,))
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
    loss_cls = []
    for _ in range(20):
        losses = detector(images, [target])
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        loss_cls.append(losses["loss_cls"].item())
    assert loss_cls[-1] < 0.2 * loss_cls[0]
    (detection,) = detector.eval()(images)
    assert detection["labels"][0] == 1
    torch.testing.assert_close(detection["boxes"][0], target["boxes"][0], rtol=0.0, atol=4.0)


def test_images_are_normalised_inside(make_detector):
    detector = make_detector().eval()
    seen = []
    detector.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1).expand(1, 3, 32, 32)
    detector(mean)
    detector(mean + torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 32, 32))
    assert not any("pixel" in name or "anchor" in name for name in detector.state_dict())


def test_what_cannot_work_is_refused(make_detector):
    detector = make_detector()
    with pytest.raises(ValueError, match="multiples of 32"):
        detector.eval()(torch.rand(1, 3, 64, 80))
    with pytest.raises(ValueError, match="needs targets"):
        detector.train()(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="num_classes"):
        build_detector({"model": {"weights": None}}, 0)
    with pytest.raises(ValueError, match=r"data\.crowd"):
        make_detector(data={"crowd": "drop"})


def test_config_reaches_the_parts(make_detector):
    detector = make_detector(
        loss={"name": "alrp", "loc_error": "diou", "delta": 0.5, "self_balance": False},
        data={"crowd": "ignore"},
        matcher="atss",
        anchor_ratios=(1.0,),
        p7_relu=True,
        nms_thresh=0.6,
    )
    assert isinstance(detector.objective.matcher, ATSSMatcher) and detector.objective.ignore_crowd
    settings = detector.objective.loss.settings
    assert (settings.loc_error, settings.delta) == ("diou", 0.5)
    assert detector.balances() == {} and detector.fpn.p7_relu and detector.postprocess.nms_thresh == 0.6
    assert detector.head.box_deltas.out_channels == 2 * 4
    assert isinstance(make_detector().objective.matcher, MaxIoUMatcher)


def test_config_may_be_an_object_of_validated_groups():
    class Config:
        model = RetinaNetConfig(backbone="resnet18", weights=None, norm="batch", frozen_stages=0)
        loss = FocalSettings()

    assert isinstance(build_detector(Config, 2).objective.loss, FocalLoss)


@pytest.mark.parametrize("model", [{"norm": "frozen_batch"}, {"norm": "batch", "frozen_stages": 2}])
def test_freezing_random_weights_warns_once(make_detector, caplog, model):
    with caplog.at_level(logging.WARNING):
        make_detector(**model)
    assert len(caplog.records) == 1 and "model.frozen_stages=0" in caplog.text


def test_nothing_to_warn_about(make_detector, caplog):
    make_detector(norm="batch")
    build_detector({"model": {"weights": None}}, 2, load_weights=False)
    assert not caplog.records


def test_a_copy_is_independent(make_detector):
    detector, images = make_detector().eval(), torch.rand(1, 3, 64, 64)
    duplicate = copy.deepcopy(detector)
    torch.nn.init.zeros_(detector.head.cls_logits.bias)
    assert not torch.equal(detector.raw_outputs(images)[0], duplicate.raw_outputs(images)[0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["alrp", "ap", "focal"])
def test_gpu_computes_what_the_cpu_computes(make_detector, targets, name):
    detector, images = make_detector(loss={"name": name}, score_thresh=0.0099), torch.rand(2, 3, 64, 96)
    losses, detections = detector(images, targets), detector.eval()(images)
    detector, images = detector.cuda(), images.cuda()
    targets = [{key: value.cuda() for key, value in target.items()} for target in targets]
    on_gpu = detector.train()(images, targets)
    on_gpu["loss"].backward()
    for key, value in losses.items():
        torch.testing.assert_close(on_gpu[key].cpu(), value, rtol=1e-2, atol=1e-4)
    assert len(detector.eval()(images)) == len(detections)
    with torch.autocast("cuda", torch.bfloat16):
        assert detector.train()(images, targets)["loss"].dtype == torch.float32


def test_detections_do_not_depend_on_how_many_images_are_in_a_batch(make_detector):
    # Bit for bit where one algorithm convolves all batches: PyTorch takes another for small maps of a single image, and
    # on one thread for 1×1 from 16 images on. Threads may share a sum in other pieces.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        detector = make_detector(fpn_channels=256, score_thresh=0.0099, topk_candidates=50).eval()
        images = torch.rand(4, 3, 128, 128).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            pair, alone = detector(images[:2]), detector(images[:1])
            for count in (3, 4):
                for expected, actual in zip(pair, detector(images[:count]), strict=False):
                    assert all(torch.equal(actual[name], value) for name, value in expected.items())
            torch.testing.assert_close(alone[0], pair[0], rtol=1e-4, atol=1e-4)
            use_winograd(detector, training=False, evaluation=True)  # which is in use from four images on
            assert not torch.equal(detector(images)[0]["boxes"], pair[0]["boxes"])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("convention", "coding"), [("torchvision", TORCHVISION_CODING), ("paper", PAPER_CODING)])
def test_boxes_are_learned_in_the_coding_that_they_are_read_in(make_detector, convention, coding):
    detector = make_detector(box_convention=convention, topk_candidates=40)
    assert detector.objective.coding == detector.postprocess.coding == coding
    assert detector.postprocess.topk_candidates == 40
