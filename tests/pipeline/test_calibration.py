"""Calibration of a classifier's confidence, against a closed form and another library."""

import numpy as np
import pytest

from edgestill.pipeline.torchvision_compat import repair
from edgestill.pipeline.training.calibration import calibration, softmax


def test_calibration_error_by_hand():
    """Two bins: 0.9 sure and right 3 of 4 times, 0.6 sure and right 1 of 2 times: (4 * 0.15 + 2 * 0.1) / 6."""
    sure, unsure = np.log([0.9, 0.1]), np.log([0.6, 0.4])
    logits = np.stack([sure] * 4 + [unsure] * 2)
    ece, confidence = calibration(logits, np.array([0, 0, 0, 1, 0, 1]))
    assert ece == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    assert confidence == pytest.approx((4 * 0.9 + 2 * 0.6) / 6)


def test_calibration_error_is_that_of_torchmetrics():
    torch = pytest.importorskip("torch")
    repair()
    errors = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(size=(1000, 5)) * 2, rng.integers(0, 5, 1000)
    found, _ = calibration(logits, targets)
    expected = errors.multiclass_calibration_error(
        torch.from_numpy(softmax(logits)), torch.from_numpy(targets), num_classes=5, n_bins=15
    )
    assert found == pytest.approx(float(expected), abs=1e-6)
