"""torchvision imports after its repair, whatever its build, and so do the libraries that import it."""

import pytest
import torch

from edgestill.pipeline.torchvision_compat import repair

repair()
pytest.importorskip("timm")


def test_torchvision_and_timm_import_after_the_repair():
    repair()
    import timm
    import torchvision

    assert torchvision.models.resnet18(num_classes=3).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert timm.create_model("resnet10t", num_classes=5).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
