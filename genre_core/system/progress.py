"""Progress of long operations."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total), in the unit that the operation documents."""
