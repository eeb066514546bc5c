"""Beyond one solve: demands over a range, and calibration from measurements."""
