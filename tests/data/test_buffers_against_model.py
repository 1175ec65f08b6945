"""Buffers compared, after any sequence of operations, with a deque and a list that do the same."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from statevault.data.columns import Column
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer
from statevault.data.impls.columnar_buffer import ColumnarBuffer


def array(seed: int) -> np.ndarray[Any, Any]:
    return np.full(40, seed, np.float32)


def tensor(seed: int) -> torch.Tensor:
    return torch.full((3,), seed, dtype=torch.bfloat16)


VALUES = st.one_of(
    st.integers(-5, 5),
    st.integers(2**63 - 2, 2**63 + 2),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.integers(0, 9).map(array),
    st.integers(0, 9).map(lambda i: np.full((2, 2), i)),
    st.integers(0, 9).map(tensor),
    st.integers(0, 9).map(np.int16),
    st.lists(st.integers(0, 3), max_size=2),
)
"""Values of all kinds, in random order: the columns change kind all the time."""


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


class SmallSegments:
    """Makes buffers whose segments hold few rows, so that short runs of operations cross many of them."""

    segment_bytes = 640

    def shrink(self, buffer: ColumnarBuffer[Any, Any]) -> ColumnarBuffer[Any, Any]:
        buffer._segment_bytes = self.segment_bytes
        buffer._columns = buffer._empty_columns()
        return buffer


class BufferMachine(RuleBasedStateMachine, SmallSegments):
    """What all machines do; `expected` is the model."""

    buffer: ColumnarBuffer[Any, Any]
    expected: Any

    def make(self) -> ColumnarBuffer[Any, Any]:
        raise NotImplementedError

    def model_add(self, value: Any) -> None:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.in_hand: list[tuple[list[Any], list[Any]]] = []

    @rule(value=VALUES)
    def add(self, value: Any) -> None:
        self.model_add(value)
        self.buffer.add(value)

    @rule(seed=st.integers(0, 9), count=st.integers(1, 40), of=st.sampled_from([array, tensor, float]))
    def add_many(self, seed: int, count: int, of: Any) -> None:
        for i in range(count):
            value = of(seed + i)
            self.model_add(value)
            self.buffer.add(value)

    @rule(runs=st.lists(st.tuples(st.integers(1, 40), st.sampled_from([array, tensor, float, int, str])), max_size=4))
    def extend(self, runs: list[tuple[int, Any]]) -> None:
        values = [of(i) for count, of in runs for i in range(count)]
        for value in values:
            self.model_add(value)
        self.buffer.extend(iter(values))

    @rule()
    def take_in_hand(self) -> None:
        self.in_hand.append((self.buffer.get_data(), list(self.expected)))

    @rule(seed=st.integers(0, 100))
    def draw(self, seed: int) -> None:
        if not self.expected:
            return
        picks = np.random.default_rng(seed).integers(0, len(self.expected), size=5)
        batch = self.buffer.sample(5, rng=seed)
        for got, pick in zip(batch, picks, strict=True):
            value = list(self.expected)[pick]
            if isinstance(value, np.ndarray):
                assert np.array_equal(got, value)
            elif isinstance(value, torch.Tensor):
                assert torch.equal(got, value)
            else:
                assert got == value

    @rule()
    def save_and_load(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.buffer.save_state(Path(folder, "b"))
            other = self.make()
            other.load_state(Path(folder, "b"))
        self.buffer = other

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        data = self.buffer.get_data()
        assert len(data) == len(self.buffer) == len(self.expected)
        assert all(map(same, data, self.expected))

    @invariant()
    def what_is_in_hand_never_changes(self) -> None:
        assert all(all(map(same, got, then)) for got, then in self.in_hand)


class SequentialMachine(BufferMachine):
    """Against a bounded deque."""

    @initialize(size=st.sampled_from([1, 2, 7, 30, 200]))
    def start(self, size: int) -> None:
        self.size = size
        self.buffer = self.make()
        self.expected = deque(maxlen=size)

    def make(self) -> ColumnarBuffer[Any, Any]:
        return self.shrink(SequentialBuffer[Any](self.size, seed=0))

    def model_add(self, value: Any) -> None:
        self.expected.append(value)


class RandomReplacementMachine(BufferMachine):
    """Against a list, with a copy of the random generator."""

    @initialize(size=st.sampled_from([1, 2, 7, 30]), probability=st.sampled_from([0.0, 0.3, 1.0]))
    def start(self, size: int, probability: float) -> None:
        self.size, self.probability = size, probability
        self.buffer = self.make()
        self.rng = np.random.default_rng(0)
        self.expected = []

    def make(self) -> ColumnarBuffer[Any, Any]:
        return self.shrink(RandomReplacementBuffer[Any](self.size, self.probability, seed=0))

    def model_add(self, value: Any) -> None:
        if len(self.expected) < self.size:
            self.expected.append(value)
        elif self.rng.random() < self.probability:
            self.expected[int(self.rng.integers(self.size))] = value


PROFILE = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSequentialBuffer = SequentialMachine.TestCase
TestSequentialBuffer.settings = PROFILE
TestRandomReplacementBuffer = RandomReplacementMachine.TestCase
TestRandomReplacementBuffer.settings = PROFILE


def test_the_small_segments_are_small() -> None:
    # Else the machines would test one segment only.
    column = Column(max_rows=16, segment_bytes=SmallSegments.segment_bytes)
    for i in range(40):
        column.append(array(i))
    assert len(column.record()["segments"]) == 10
