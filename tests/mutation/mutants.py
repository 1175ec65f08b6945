"""Each step of the protocol, removed from the code or put in the wrong place.

A mutant is a piece of the source and what stands there instead; the tests that it is given must fail with it. The
pieces are looked up in the source exactly as they are here: a change of the code shows which mutants it concerns.
"""
# ruff: noqa: E501 - pieces of code as they stand

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]

_PRUNE = "state_persistence/pruning/prune.py"
_PROTECTION = "state_persistence/pruning/protection.py"
_REMOVAL = "state_persistence/pruning/removal.py"
_PINS = "state_persistence/pruning/pins.py"
_COMMIT = "state_persistence/publish/commit.py"
_ENDING = "state_persistence/publish/ending.py"
_GIVING_UP = "state_persistence/publish/giving_up.py"
_UPLOAD = "state_persistence/publish/upload.py"
_COLLECTION = "state_persistence/pruning/collection.py"
_CATALOG = "state_persistence/records/catalog.py"
_DEADLINE = "state_persistence/records/deadline.py"
_SHARED = "state_persistence/pruning/shared_objects.py"
_REUSE = "state_persistence/publish/reuse.py"
_PACKED = "state_persistence/records/packed_markers.py"
_PACKING = "state_persistence/records/packing.py"
_WIPED = ("test_wiped_store.py",)
_HIDDEN = ("test_hidden_stores.py",)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of the code that breaks the protocol.

    Attributes:
        name: What it does.
        module: The module, below the package.
        before: A piece of it.
        after: What stands there instead.
        tests: Files of ``tests/state_persistence`` of which one finds it, the likeliest first.
    """

    name: str
    module: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    # -- the numbers of saves
    Mutant(
        "all numbers count, whatever has them",
        _CATALOG,
        "(sequence for sequence in sequences if sequence <= MAX_UNREAD_SEQUENCE)",
        "sequences",
        ("test_numbers.py",),
    ),
    Mutant(
        "no number beyond the limit counts",
        _CATALOG,
        "        if listing.commits and listing.commits[-1].sequence > MAX_UNREAD_SEQUENCE:\n",
        "        if False:\n",
        ("test_numbers.py",),
    ),
    Mutant(
        "markers that can't be read count",
        _CATALOG,
        "for key in beyond if self._is_sound(key))",
        "for key in beyond)",
        ("test_numbers.py",),
    ),
    Mutant(
        "the dead count",
        _CATALOG,
        "            beyond = (key for key in reversed(listing.visible) if",
        "            beyond = (key for key in reversed(listing.commits + listing.tombstones) if",
        ("test_numbers.py",),
    ),
    Mutant(
        "numbers without an end",
        _CATALOG,
        "        return min(last + 1, MAX_SEQUENCE)\n",
        "        return last + 1\n",
        ("test_numbers.py",),
    ),
    # -- saving
    Mutant(
        "no session",
        _COMMIT,
        "    _put_session(storage, session)\n",
        "",
        ("test_crash_points.py",),
    ),
    Mutant(
        "the session after the look at the base",
        _COMMIT,
        "    _put_session(storage, session)\n"
        "    may_clash = request.name is not None or not names.are_fine\n"
        "    if may_clash:\n"
        "        try:\n"
        "            _check_still_free(storage, catalog, key, left_over, ids=listing.ids)\n"
        "        except Exception:\n"
        "            # Nothing else was put yet, and what lies there may be somebody's.\n"
        "            drop_session(storage, session)\n"
        "            raise\n"
        "    # Step 3: only after the session. A prune that did not see it has put the tombstone of the base before. (A marker\n"
        "    # goes only where there is a tombstone, which stays for longer than any writer lives.)\n"
        "    # Step 4: everything that the marker will name, durable and of the right size.\n"
        "    try:\n"
        "        content = upload_files(\n"
        "            storage,\n"
        "            key.state,\n"
        "            request.snapshot,\n"
        "            base,\n"
        "            base_is_gone=lambda: base is not None and catalog.is_tombstoned(base.key),\n",
        "    gone = base is not None and catalog.is_tombstoned(base.key)\n"
        "    _put_session(storage, session)\n"
        "    may_clash = True\n"
        "    try:\n"
        "        content = upload_files(\n"
        "            storage,\n"
        "            key.state,\n"
        "            request.snapshot,\n"
        "            base,\n"
        "            base_is_gone=lambda: gone,\n",
        ("test_crash_points.py",),
    ),
    Mutant(
        "no look at the base",
        _COMMIT,
        "            base_is_gone=lambda: base is not None and catalog.is_tombstoned(base.key),\n",
        "            base_is_gone=lambda: False,\n",
        ("test_incremental.py", "test_crash_points.py"),
    ),
    Mutant(
        "the session does not name the base",
        _COMMIT,
        "        base=None if base is None else base.key.state,\n",
        "        base=None,\n",
        ("test_incremental.py",),
    ),
    Mutant(
        "the marker before the manifest",
        _COMMIT,
        "    storage.put(manifest_key(key.state), stored)\n    record = ",
        "    record = ",
        ("test_store.py",),
    ),
    Mutant(
        "no look at the sizes of what was put",
        _COMMIT,
        "        return checked.result(), made\n",
        "        return {}, made\n",
        ("test_crash_points.py", "test_meddling.py"),
    ),
    Mutant(
        "no look at the objects of the base",
        _UPLOAD,
        "(chunk for chunk in wanted if chunk.object in intact)",
        "wanted",
        ("test_incremental.py",),
    ),
    Mutant(
        "a marker whose answer is lost is taken for put",
        _COMMIT,
        "            if isinstance(error, StorageError) and error.transient and _is_there(storage, commit_key(*key), marker):\n                return\n",
        "            if isinstance(error, StorageError) and error.transient:\n                return\n",
        ("test_crash_points.py",),
    ),
    Mutant(
        "a marker is taken for durable after any error",
        _COMMIT,
        "            if isinstance(error, StorageError) and error.transient and _is_there(",
        "            if _is_there(",
        ("test_meddling.py",),
    ),
    Mutant(
        "no look at the fences after the marker",
        _ENDING,
        "            check_fences(storage, key)\n",
        "            pass\n",
        ("test_prune.py",),
    ),
    Mutant(
        "the abort is no fence",
        _ENDING,
        "        found = _tried(partial(storage.exists, tombstone_key(*key))), _tried(look.result)\n",
        "        found = (_tried(partial(storage.exists, tombstone_key(*key))),)\n",
        ("test_prune.py",),
    ),
    Mutant(
        "the fences before the marker",
        _COMMIT,
        "    _put_marker(storage, key, marker)\n    end_save(storage, key, deadline, writer=request.writer)\n",
        "    from statevault.state_persistence.publish.ending import check_fences\n"
        "    check_fences(storage, key)\n"
        "    _put_marker(storage, key, marker)\n"
        "    storage.delete([session_key(key.state)])\n",
        ("test_prune.py",),
    ),
    Mutant(
        "a writer that stood still goes on",
        _DEADLINE,
        "        if self.elapsed_s >= STALE_AFTER.total_seconds():\n",
        "        if False:\n",
        ("test_prune.py",),
    ),
    Mutant(
        "a writer that stood still leaves its marker",
        _ENDING,
        '            put_tombstone(storage, key, by=writer, reason="its save took too long")\n',
        "            pass\n",
        ("test_prune.py",),
    ),
    Mutant(
        "a save that fails leaves no tombstone",
        _GIVING_UP,
        '        put_tombstone(storage, key, by=session.writer, reason=f"its save failed: {type(error).__name__}")\n',
        "",
        ("test_crash_points.py", "test_store.py", "test_meddling.py"),
    ),
    Mutant(
        "a given name is not looked at again behind the session",
        _COMMIT,
        "    may_clash = request.name is not None or not names.are_fine\n",
        "    may_clash = not names.are_fine\n",
        ("test_meddling.py",),
    ),
    Mutant(
        "a name from a coarse format is not looked at again behind the session",
        _COMMIT,
        "    may_clash = request.name is not None or not names.are_fine\n",
        "    may_clash = request.name is not None\n",
        ("test_meddling.py",),
    ),
    Mutant(
        "the loser of a name takes the winner's data away",
        _GIVING_UP,
        "    if isinstance(error, StateExistsError):\n        # What lies",
        "    if False:\n        # What lies",
        ("test_meddling.py",),
    ),
    Mutant(
        "a look at a name that fails takes the winner's data away",
        _COMMIT,
        "        except Exception:\n"
        "            # Nothing else was put yet, and what lies there may be somebody's.\n"
        "            drop_session(storage, session)\n",
        "        except Exception as error:\n            give_up(storage, session, request.snapshot, error)\n",
        ("test_meddling.py",),
    ),
    Mutant(
        "a session is over by its sequence as well",
        _REMOVAL,
        "        if key.state in over:\n",
        "        if key.state in over and key in {*listing.commits, *listing.tombstones}:\n",
        ("test_meddling.py",),
    ),
    Mutant(
        "dead bytes without a bound",
        _REUSE,
        "        if kept <= MAX_DEAD_RATIO * needed:\n",
        "        if True:\n",
        ("test_incremental.py",),
    ),
    Mutant(
        "folders without a bound",
        _REUSE,
        "    if len(folders) <= MAX_FOLDERS:\n",
        "    if True:\n",
        ("test_incremental.py",),
    ),
    # -- what is visible
    Mutant(
        "a tombstone hides nothing",
        _CATALOG,
        "        return [key for key in self.commits if key.state not in dead]\n",
        "        return list(self.commits)\n",
        ("test_prune.py",),
    ),
    # -- removing
    Mutant(
        "no intent",
        _REMOVAL,
        "    storage.put(intent_key(prune), intent.to_json())\n",
        "",
        ("test_pins.py",),
    ),
    Mutant(
        "the pins before the intent",
        _REMOVAL,
        "    storage.put(intent_key(prune), intent.to_json())\n"
        "    pinned = parse_pin_keys(info.key for info in storage.list(PINS))\n",
        "    pinned = parse_pin_keys(info.key for info in storage.list(PINS))\n"
        "    storage.put(intent_key(prune), intent.to_json())\n",
        ("test_pins.py",),
    ),
    Mutant(
        "the intent goes before the tombstones come",
        _REMOVAL,
        "    removed = [key for key in states if key.state not in pinned]\n",
        "    removed = [key for key in states if key.state not in pinned]\n    storage.delete([intent_key(prune)])\n",
        ("test_pins.py",),
    ),
    Mutant(
        "the intent goes although a tombstone has no answer",
        _REMOVAL,
        '    parallel_map(bury, removed, workers=_CONCURRENT_PUTS, name="statevault-remove")\n',
        "    try:\n"
        '        parallel_map(bury, removed, workers=_CONCURRENT_PUTS, name="statevault-remove")\n'
        "    except Exception:\n"
        "        storage.delete([intent_key(prune)])\n"
        "        raise\n",
        ("test_pins.py",),
    ),
    Mutant(
        "an abort without a look for the marker",
        _REMOVAL,
        "        if not storage.exists(commit_key(*key)):\n",
        "        if True:\n",
        ("test_prune.py",),
    ),
    Mutant(
        "no abort",
        _REMOVAL,
        "        storage.put(abort_key(key.state), AbortRecord(state=key.state, by=by, at=now).to_json())\n",
        "",
        ("test_prune.py", "test_crash_points.py"),
    ),
    Mutant(
        "an abort for a save that has ended well",
        _REMOVAL,
        "        if key.state in over:\n            continue\n",
        "",
        ("test_prune.py",),
    ),
    # -- pruning
    Mutant(
        "sessions before the tombstones",
        _PRUNE,
        "    listing = catalog.listing()\n"
        "    # The tombstones, and that markers are gone: another prune may have been killed before they were there to stay.\n"
        '    storage.settle("" if whole_store else VAULT)\n'
        "    dead = {key.state: key for key in listing.tombstones}\n"
        "    data = tuple(_data_of_the_dead(storage, catalog, listing, dead, whole_store=whole_store))\n"
        "    folders = {folder_of(info.key) for info in data}\n"
        "    doubtful = [key for key in {dead[state] for state in folders} - buried if not is_whole(storage, listing, key)]\n"
        "    seen = look_at_sessions(storage)\n",
        "    seen = look_at_sessions(storage)\n"
        "    listing = catalog.listing()\n"
        "    # The tombstones, and that markers are gone: another prune may have been killed before they were there to stay.\n"
        '    storage.settle("" if whole_store else VAULT)\n'
        "    dead = {key.state: key for key in listing.tombstones}\n"
        "    data = tuple(_data_of_the_dead(storage, catalog, listing, dead, whole_store=whole_store))\n"
        "    folders = {folder_of(info.key) for info in data}\n"
        "    doubtful = [key for key in {dead[state] for state in folders} - buried if not is_whole(storage, listing, key)]\n",
        ("test_prune.py",),
    ),
    Mutant(
        "live sessions shelter nothing",
        _PROTECTION,
        "    sheltered = _sheltered_folders(catalog, [key for key in commits if key.state in bases & dead.keys()])\n",
        "    sheltered: set[str] = set()\n",
        ("test_prune.py",),
    ),
    Mutant(
        "live sessions shelter the folder of their base alone",
        _PROTECTION,
        "        return {base.state for base in bases}.union(*(_record(catalog, base).reuses for base in bases))\n",
        "        return {base.state for base in bases}\n",
        ("test_prune.py",),
    ),
    Mutant(
        "the markers of what is sheltered go",
        _PRUNE,
        "    done = [key for key in listing.commits if key.state in dead.keys() - sheltered]\n",
        "    done = [key for key in listing.commits if key.state in dead]\n",
        ("test_prune.py",),
    ),
    Mutant(
        "what has gone protects nothing",
        _PROTECTION,
        "        shares = shared.of(",
        "        shares = shared.of_readable(",
        ("test_prune.py",),
    ),
    Mutant(
        "what can't be read is remembered as needing nothing",
        _SHARED,
        "        except StatePrunedError:\n            return ()\n        except CorruptStateError as error:\n",
        "        except (StatePrunedError, CorruptStateError) as error:\n"
        "            self._shares[StateKey(record.sequence, record.state)] = record, ()\n",
        ("test_retention_sizes.py",),
    ),
    Mutant(
        "a base that has gone shelters nothing",
        _PROTECTION,
        "        if catalog.is_tombstoned(key):\n            raise OutdatedError(str(gone)) from None\n",
        "        if catalog.is_tombstoned(key):\n"
        "            return CommitRecord.model_construct(state=key.state, sequence=key.sequence, reuses=[])\n",
        ("test_prune.py",),
    ),
    Mutant(
        "a lost marker protects nothing",
        _PROTECTION,
        "        raise StatePrunedError(\n"
        '            f"the commit marker of {key.state!r} has gone without a tombstone: nothing was deleted"\n'
        "        ) from None\n",
        "        return CommitRecord.model_construct(state=key.state, sequence=key.sequence, reuses=[])\n",
        ("test_meddling.py", "test_prune.py"),
    ),
    Mutant(
        "visible states protect nothing",
        _PROTECTION,
        "    needed = _needed(catalog, shared, visible, folders - sheltered)\n",
        "    needed: set[str] = set()\n",
        ("test_prune.py",),
    ),
    Mutant(
        "the folders that the removed states refer to are not looked at",
        _PRUNE,
        "            folders |= dead.keys() & set(record.reuses)\n",
        "            pass\n",
        ("test_collection.py",),
    ),
    Mutant(
        "any tombstone is believed",
        _PRUNE,
        "    kept = sheltered | foreign\n",
        "    kept = sheltered\n",
        ("test_meddling.py",),
    ),
    Mutant(
        "what other tools wrote goes as well",
        _PRUNE,
        '    return not any(segment.startswith(".") for segment in info.key.split("/"))\n',
        "    return True\n",
        ("test_meddling.py", "test_collection.py"),
    ),
    # -- pinning
    Mutant(
        "a pin without a look at what speaks against it",
        _PINS,
        "        _check_that_it_holds(storage, key)\n",
        "        pass\n",
        ("test_pins.py",),
    ),
    Mutant(
        "the tombstone before the intents",
        _PINS,
        "    intent = _intent(storage, key.state)\n    aborted = storage.exists(abort_key(key.state))\n"
        "    if storage.exists(tombstone_key(*key)) or",
        "    gone = storage.exists(tombstone_key(*key))\n"
        "    intent = _intent(storage, key.state)\n    aborted = storage.exists(abort_key(key.state))\n"
        "    if gone or",
        ("test_pins.py",),
    ),
    Mutant(
        "aborts do not matter to a pin",
        _PINS,
        "    if aborted:\n",
        "    if False:\n",
        ("test_pins.py",),
    ),
    Mutant(
        "a pin that fails stays",
        _PINS,
        "        storage.delete([own])\n",
        "        pass\n",
        ("test_pins.py",),
    ),
    Mutant(
        "the same key for all pins of a name",
        _PINS,
        "secrets.token_hex(4)",
        '"00000000"',
        ("test_pins.py",),
    ),
    # -- collecting
    Mutant(
        "tombstones go while something is left",
        _COLLECTION,
        "        if key.sequence != listing.last_sequence and key.state not in remains\n",
        "        if key.sequence != listing.last_sequence\n",
        ("test_collection.py",),
    ),
    Mutant(
        "the last tombstone goes",
        _COLLECTION,
        "        if key.sequence != listing.last_sequence and key.state not in remains\n",
        "        if key.state not in remains\n",
        ("test_collection.py",),
    ),
    Mutant(
        "young records go",
        _COLLECTION,
        "at is not None and _NO_CLOCK < at <= latest]",
        "at is not None and _NO_CLOCK < at]",
        ("test_collection.py",),
    ),
    Mutant(
        "a clock of 1970 is believed",
        _COLLECTION,
        "_NO_CLOCK < at <= latest]",
        "at <= latest]",
        ("test_collection.py",),
    ),
    # -- packing markers
    Mutant(
        "a prune believes the pack",
        _CATALOG,
        "        found = packed | self._read_all(key for key in keys if key not in packed)\n",
        "        found = packed | self._read_all(key for key in keys if key not in packed)\n"
        "        for key, record in packed.items():\n"
        "            self._markers[key] = _Marker(record, self._infos[commit_key(*key)], b'', None)\n",
        ("test_packed_markers.py",),
    ),
    Mutant(
        "what a manifest said to a plan answers for a prune",
        _SHARED,
        "            if known is None or not _lead_to_the_same(known[0], record):\n",
        "            if known is None:\n",
        ("test_packed_markers.py",),
    ),
    Mutant(
        "an entry holds whatever a list says",
        _PACKED,
        "        if info is None or (marker.size, marker.modified) != (info.size, microseconds(info.modified)):\n",
        "        if info is None:\n",
        ("test_packed_markers.py",),
    ),
    Mutant(
        "an entry that held once holds for good",
        _PACKED,
        "        return None if entry is None or objects.get(entry.info.key) != entry.info else entry\n",
        "        return entry\n",
        ("test_packed_markers.py",),
    ),
    Mutant(
        "markers of the last hour are packed",
        _PACKING,
        "        if info.modified <= clock - SETTLED_AFTER and 0 < info.size <= MAX_RECORD_SIZE:\n",
        "        if 0 < info.size <= MAX_RECORD_SIZE:\n",
        ("test_packing.py",),
    ),
    Mutant(
        "what was read early is packed late",
        _CATALOG,
        "        return known is not None and known.clock is not None and modified <= known.clock - SETTLED_AFTER\n",
        "        return known is not None\n",
        ("test_packing.py",),
    ),
    # -- which store it is
    Mutant(
        "no id is put",
        _CATALOG,
        "        if writer is not None and not ids:\n",
        "        if False:\n",
        _WIPED,
    ),
    Mutant(
        "what was listed before there was an id counts",
        _CATALOG,
        "            return self._listed(self._identify(writer), writer, generation)\n",
        "            ids = parse_ids(self._identify(writer))\n",
        _WIPED,
    ),
    Mutant(
        "any store is the one that was known",
        _CATALOG,
        "        return bool(self._ids) and self._ids.isdisjoint(ids)\n",
        "        return False\n",
        _WIPED,
    ),
    Mutant(
        "a marker that was read counts whatever a list shows",
        _CATALOG,
        "        return None if known is None or known.info != self._infos.get(commit_key(*key)) else known\n",
        "        return known\n",
        _WIPED,
    ),
    Mutant(
        "a removal goes on in another store",
        _CATALOG,
        "        if generation is not None and self.generation != generation:\n",
        "        if False:\n",
        _WIPED,
    ),
    Mutant(
        "a save does not look at the ids again",
        _COMMIT,
        "            same.result()\n",
        "            pass\n",
        _WIPED,
    ),
    Mutant(
        "tombstones are put in whatever store is there",
        _REMOVAL,
        "        check()\n    except StoreReplacedError:\n",
        "        pass\n    except StoreReplacedError:\n",
        _WIPED,
    ),
    Mutant(
        "data is deleted in whatever store is there",
        _PRUNE,
        "        catalog.check_same(listing)\n    except StoreReplacedError as replaced:\n",
        "        pass\n    except StoreReplacedError as replaced:\n",
        _WIPED,
    ),
    Mutant(
        "the base is one of whatever store",
        _REUSE,
        "        if self.ids and self.ids.isdisjoint(listing.ids):\n",
        "        if False:\n",
        _WIPED,
    ),
    Mutant(
        "the base's marker counts whatever a list shows",
        _REUSE,
        "        if self.marker is not None and listing.objects.get(commit_key(*self.key)) != self.marker:\n",
        "        if False:\n",
        _WIPED,
    ),
    Mutant(
        "the base's objects count whenever they were put",
        _REUSE,
        "            return self.seen[entry.key] == info\n",
        "            return True\n",
        _WIPED,
    ),
    # -- what is not listed, or is another's
    Mutant(
        "an empty list is an empty store",
        _CATALOG,
        "        if id_key(identity) not in infos:\n",
        "        if False:\n",
        _HIDDEN,
    ),
    Mutant(
        "the store is described before it is known to be empty",
        _CATALOG,
        "        if writer is not None and not ids:\n",
        "        if writer is not None and FORMAT_KEY not in infos:\n"
        "            self._storage.put(FORMAT_KEY, FormatRecord().to_json())\n"
        "        if writer is not None and not ids:\n",
        _HIDDEN,
    ),
    Mutant(
        "an empty folder is free although the session is not listed",
        _COMMIT,
        "    if key.state not in listing.sessions and not ids.isdisjoint(listing.ids):\n",
        "    if False:\n",
        _HIDDEN,
    ),
    Mutant(
        "the base's objects count whoever has put them since its commit",
        _REUSE,
        "        return committed is None or info.modified is None or info.modified <= committed\n",
        "        return True\n",
        ("test_copying.py",),
    ),
)
