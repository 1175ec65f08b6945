"""The computed metrics of an experiment, and the marker that says of what they were computed.

Invariant: the marker carries the digest of the metrics, and the totals that they are of. One that outlived its metrics,
or trials that were added since, counts for nothing.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

from statevault.errors import CorruptStateError, ExperimentNotFoundError, FormatError, ObjectNotFoundError
from statevault.experiments.layout import METRICS_KEY, METRICS_MARKER_KEY
from statevault.experiments.pickles import PickledObjects
from statevault.experiments.records import ExperimentMetadata, MetricsMarker
from statevault.sealed import SealedFiles
from statevault.storage import Storage

__all__ = ["ComputedMetrics"]

_logger = logging.getLogger(__name__)
_VIEWS = "network_views"


class ComputedMetrics:
    """The metrics of one experiment.

    Args:
        storage: The folder of the experiment.
        pickles: What makes files of objects.
    """

    def __init__(self, storage: Storage, pickles: PickledObjects) -> None:
        self._storage = storage
        self._pickles = pickles

    def save(self, result: Any, metadata: ExperimentMetadata, *, leave_out_views: bool) -> None:
        """Store metrics, then the marker.

        Args:
            result: Any object. It is not changed.
            metadata: The totals that it is of.
            leave_out_views: Whether its field ``network_views`` can be rebuilt, and is left out.

        Raises:
            UnsupportedTypeError: Pickle can't take it.
            StorageError: The storage failed.
        """
        leave_out = leave_out_views and _has_views(result)
        stored = self._pickles.put(METRICS_KEY, _with_views(result, None) if leave_out else result, {"kind": "metrics"})
        marker = MetricsMarker(
            payload_digest=stored.digest,
            n_trials=metadata.n_trials,
            iterations=[algorithm.iterations for algorithm in metadata.algorithms],
            network_views_left_out=leave_out,
        )
        self._storage.put(METRICS_MARKER_KEY, marker.to_bytes())

    def marker(self, metadata: ExperimentMetadata) -> MetricsMarker | None:
        """The marker of metrics that are there and are of all that there is; None if there is no such.

        Raises:
            StorageError: The storage failed.
        """
        where = f"{METRICS_MARKER_KEY} in {self._storage.url}"
        try:
            marker = MetricsMarker.from_bytes(self._storage.get(METRICS_MARKER_KEY), where=where)
            stored = SealedFiles(self._storage).look(METRICS_KEY)
        except ObjectNotFoundError:
            return None
        except (FormatError, CorruptStateError) as error:
            _logger.warning("%s; the metrics are taken for not computed", error)
            return None
        if stored.digest != marker.payload_digest:
            _logger.warning("%s is not of the metrics that lie beside it: they are taken for not computed", where)
            return None
        totals = (metadata.n_trials, [algorithm.iterations for algorithm in metadata.algorithms])
        return marker if totals == (marker.n_trials, marker.iterations) else None

    def load(self, metadata: ExperimentMetadata, rebuild_views: Callable[[], Any] | None) -> Any:
        """Load the metrics.

        **This runs code that the file names.**

        Args:
            metadata: The totals that they must be of.
            rebuild_views: Makes the field that was left out; None to leave it out.

        Raises:
            ExperimentNotFoundError: They are not computed, or not of all trials.
            CorruptStateError: They are damaged.
            StorageError: The storage failed.
        """
        marker = self.marker(metadata)
        if marker is None:
            raise ExperimentNotFoundError(f"the metrics of {self._storage.url} are not computed, or not of all trials")
        result = self._pickles.get(METRICS_KEY)
        if rebuild_views is None:
            return _with_views(result, None) if _has_views(result) else result
        return _with_views(result, rebuild_views()) if marker.network_views_left_out else result

    def forget(self) -> None:
        """Let the metrics count for nothing.

        Raises:
            StorageError: The storage failed.
        """
        self._storage.delete([METRICS_MARKER_KEY])


def _has_views(result: Any) -> bool:
    return _VIEWS in result if isinstance(result, Mapping) else getattr(result, _VIEWS, None) is not None


def _with_views(result: Any, views: Any) -> Any:
    """A shallow copy with another value of the field; the field of a frozen dataclass too."""
    if isinstance(result, Mapping):
        return {**result, _VIEWS: views}
    if hasattr(result, "_replace"):  # a named tuple
        return result._replace(**{_VIEWS: views})
    changed = copy.copy(result)
    object.__setattr__(changed, _VIEWS, views)
    return changed
