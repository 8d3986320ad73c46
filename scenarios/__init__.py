"""Scenarios that ship with fedsim; `fedsim list scenarios` names them, and `fedsim run NAME` runs one from anywhere."""
