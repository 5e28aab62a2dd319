"""KD-AIF and the influence that it weights examples by."""
