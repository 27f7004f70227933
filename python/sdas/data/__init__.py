"""From files to frames: readers that convert units, checks, a memory-mapped cache, splits, and the shipped sample."""

from sdas.data.cache import FrameCache, write_cache
from sdas.data.errors import DataError
from sdas.data.frame import Frame, check_frame
from sdas.data.readers import read_frames
from sdas.data.samples import sample
from sdas.data.splits import Split
from sdas.data.units import Units

__all__ = ["DataError", "Frame", "FrameCache", "Split", "Units", "check_frame", "read_frames", "sample", "write_cache"]
