"""What runs here and how fast: machine, versions, backends and a timing of every operator."""

from sdas.doctor.timing import Timing, time_ops
from sdas.doctor.timing_cases import CASES
from sdas.doctor.versions import describe_native, describe_versions
from sdas.run.machine import describe_machine, is_busy

__all__ = ["CASES", "Timing", "describe_machine", "describe_native", "describe_versions", "is_busy", "time_ops"]
