"""From a supernet and a workload to a latency table of the device at hand."""

from rlnas.calibration.calibrate import calibrate, calibrate_timeable
from rlnas.calibration.design import block_options, choose_models, draw_models, probe_blocks
from rlnas.calibration.plan import Effort
from rlnas.calibration.precisions import calibrate_precisions

__all__ = [
    "Effort",
    "block_options",
    "calibrate",
    "calibrate_precisions",
    "calibrate_timeable",
    "choose_models",
    "draw_models",
    "probe_blocks",
]
