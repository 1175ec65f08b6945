"""The newest of many states, and a list of them all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.grounds import WHERE
from benchmarks.options import Options
from benchmarks.place import Place
from benchmarks.trial import Contender, Recorder, Trial, run_trial
from statevault.format.keys import COMMITS, MARKER_PACK, commit_key, parse_state_keys
from statevault.format.marker_pack import PackedMarker, microseconds
from statevault.format.records import CommitRecord
from statevault.state_persistence import StateStore
from statevault.state_persistence.records.packed_markers import seal_pack
from statevault.storage import open_storage

__all__ = ["run"]

LATEST, ALL, AGAIN = "the newest", "all of them", "all of them again"

_THREADS = 16
_OURS = Contender("statevault", "listings", "StoreListing", (), is_ours=True)
_CONTENDERS = {
    "local": (_OURS, Contender("glob and stat", "listings", "FolderListing")),
    "s3": (
        _OURS,
        Contender("s3fs ls", "listings", "S3fsListing", ("s3fs",)),
        Contender("limit: boto3, list_objects_v2", "listings", "Boto3Listing", ("boto3",), is_limit=True),
    ),
}


def run(options: Options) -> Comparison:
    """Measure ``latest()`` and ``states()`` on a store that is made once for all methods."""
    count = options.effort.pick(10_000, 300, 20)
    rows: list[Standing] = []
    for where in WHERE:
        place = options.grounds.new(where)
        make_states(place, count)

        def measure(contender: Contender, counted: bool, where: str = where, place: Place = place) -> Trial:
            reached = place.through(options.grounds.proxy) if counted and where == "s3" else place
            return run_trial(options.grounds, look, contender, reached, count, counted=counted)

        for packed in (False, True):
            if packed:
                pack_markers(place)
            rows += contest(
                f"{count:,} states" + ", packed" * packed,
                WHERE[where],
                _CONTENDERS[where],
                measure,
                runs=options.runs,
                actions={LATEST: None, ALL: None, AGAIN: None},
                count=where == "s3",
            )
        options.grounds.clear(place)
    return Comparison(
        "listing",
        "the newest of many states, and all of them",
        rows,
        notes=(
            "The peers list the names, sizes and times of the same objects. statevault also reads what each "
            "commit marker says (metadata, sizes, writer), once in the life of a StateStore.",
            "Packed: a collection of garbage has put the markers into one object as well, for those who list them.",
        ),
    )


def make_states(place: Place, count: int) -> None:
    """Fill a store with states: one is saved, the others are commit markers like its own."""
    with StateStore(place.url, storage_options=place.storage_options) as store:
        store.save_state(name="00000.state", metadata={"reward": 231.5, "step": 40_000})
    storage = open_storage(place.url, place.storage_options)
    key = commit_key(1, "00000.state")
    first = CommitRecord.from_json(storage.get(key), where=key)

    def put(number: int) -> None:
        name = f"{number:05}.state"
        record = first.model_copy(update={"state": name, "sequence": number + 1})
        storage.put(commit_key(number + 1, name), record.to_json())

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(put, range(1, count)))
    storage.close()


def pack_markers(place: Place) -> None:
    """Put the pack that ``gc()`` would put as soon as the markers are an hour old."""
    storage = open_storage(place.url, place.storage_options)
    infos = {info.key: info for info in storage.list(COMMITS)}
    keys = parse_state_keys(infos, COMMITS)
    with ThreadPoolExecutor(_THREADS) as pool:
        contents = list(pool.map(lambda key: storage.get(commit_key(*key)), keys))
    markers = [
        PackedMarker(*key, len(content), microseconds(infos[commit_key(*key)].modified) or 0, content)
        for key, content in zip(keys, contents, strict=True)
    ]
    storage.put(MARKER_PACK, seal_pack(markers))
    storage.close()


def look(recorder: Recorder, contender: Contender, place: Place, count: int) -> None:
    """Ask for the newest state, for all, and for all again; runs in a process of its own."""
    subject = contender.load()(place)
    recorder.measure(LATEST, subject.latest)
    found: list[int] = []
    recorder.measure(ALL, lambda: found.append(subject.count()))
    recorder.measure(AGAIN, lambda: found.append(subject.count()))
    if found != [count, count]:
        raise ValueError(f"{found} states are listed where there are {count}")
    subject.close()
