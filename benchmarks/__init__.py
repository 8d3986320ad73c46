"""Measurements: of speed (`bench`), of how cost grows (`curves`), of coverage of the intervals (`coverage`)."""
