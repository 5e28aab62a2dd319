import numpy as np
import pytest

from edgestill.pipeline.training.exposure import exposure


def test_exposure_is_the_number_of_candidates_over_the_rank_in_bits():
    losses = np.arange(1024.0)
    assert exposure(losses, 0) == 10.0
    assert exposure(losses, 3) == 8.0
    assert exposure(losses, 1023) == 0.0


def test_a_model_that_knows_nothing_exposes_about_a_bit_and_bad_losses_are_refused():
    assert exposure(np.zeros(1023), 5) == pytest.approx(1.0, abs=0.01)
    for losses, canary in ((np.array([np.nan, 1.0]), 1), (np.zeros(3), 3)):
        with pytest.raises(ValueError, match="no rank"):
            exposure(losses, canary)
