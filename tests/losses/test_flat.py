"""losses/flat.py: values of the positives or of all positions, where both are one shape."""

import pytest
import torch

from losses import ALRPLoss, RankSortLoss


class TestAsManyPositivesAsPositions:
    """IoUs of the positives 1 and 0.5; taken as those of the positions, both would be the first."""

    logits, targets = torch.zeros(2, 2), torch.tensor([[1, 1], [0, 0]])
    pred, gt = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10]]), torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])

    @pytest.fixture
    def criterion(self):
        return ALRPLoss(self_balance=False, loc_error="iou", box_weights="equal")

    def test_values_of_which_it_is_open_whose_they_are_are_refused(self, criterion):
        with pytest.raises(ValueError, match=r"^pred_boxes \(2, 4\) may be of the 2 positives .*logits\[None\]"):
            criterion(self.logits, self.targets, self.pred, self.gt)
        with pytest.raises(ValueError, match=r"^ious \(2,\) may be of the 2 positives .*\(1, 2\) of the positions"):
            RankSortLoss()(self.logits, self.targets, ious=torch.ones(2))

    def test_an_axis_more_says_whose_they_are(self, criterion):
        logits, targets = self.logits[None], self.targets[None]
        assert criterion(logits, targets, self.pred, self.gt)[1] == (0 + (1 - 0.5) / 0.5) / 2
        assert criterion(logits, targets, self.pred[None], self.gt[None])[1] == 0

    @pytest.mark.parametrize(
        "targets", [torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 1])], ids=["one-hot", "labels"]
    )
    def test_one_in_each_position_is_the_same_either_way(self, criterion, targets):
        assert criterion(self.logits, targets, self.pred, self.gt)[1] == 0.5

    def test_labels_and_flat_vectors_are_not_waited_for(self, criterion, monkeypatch):
        monkeypatch.setattr(torch, "equal", None)
        assert criterion(self.logits, torch.tensor([0, 1]), self.pred, self.gt)[1] == 0.5
        for shape in ((2,), (2, 1)):
            assert criterion(torch.zeros(shape), torch.ones(shape), self.pred, self.gt)[1] == 0.5
