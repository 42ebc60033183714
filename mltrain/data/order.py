"""Which sample comes at which position: a pure function, so a loader's whole state is one integer.

Position: slot number in the endless stream of a run (0, 1, 2, ...); position // n is the epoch. Id: number of the sample in the dataset.

    SampleOrder(n, seed).ids(start, stop)     each epoch a full shuffle; costs the same at position 1e12 as at 0
    Sequential(n).ids(start, stop)            0, 1, 2, ..., for evaluation
    Without(order, [(8, 16)]).ids(0, 10)      positions 8 to 15 are left out: those of 0..7, 16, 17

The shuffle is a keyed Feistel network on a grid of a x b >= n cells, walked until the result is below n. Nothing of size n is built.
The key is a hash of (seed, epoch, n), never seed + epoch: that would make epoch 1 of seed 1 equal to epoch 0 of seed 2. Four rounds pass
every test that numpy's permutation passes, two fail (tests/unit/data/test_order.py); six leave a margin.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mltrain.errors import DataError

Ids = NDArray[np.int64]
_U64 = NDArray[np.uint64]

ROUNDS = 6
LARGEST = 1 << 52             # the grid's sides come from a float64 square root, exact up to here
_GOLDEN, _32 = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


class Order(Protocol):
    """n samples in some order, for ever."""

    n: int

    def at(self, positions: Ids) -> Ids:
        """Ids at these positions (any shape of [k], any order)."""

    def ids(self, start: int, stop: int) -> Ids:
        """Ids at positions start, start + 1, ..., stop - 1."""


class SampleOrder:
    """A full shuffle of n samples in each epoch."""

    def __init__(self, n: int, seed: int = 0, rounds: int = ROUNDS) -> None:
        _check_size(n)
        self.n, self.seed, self.rounds = n, seed, rounds

    def at(self, positions: Ids) -> Ids:
        epoch, x = np.divmod(positions, self.n)
        if not len(epoch):
            return x
        if epoch[0] == epoch[-1] and epoch.min() == epoch.max():
            return feistel(x, self.n, np.full(1, self.key(int(epoch[0])), np.uint64), self.rounds)
        epochs, which = np.unique(epoch, return_inverse=True)
        keys = np.array([self.key(int(e)) for e in epochs], np.uint64)
        return feistel(x, self.n, keys[which], self.rounds)

    def ids(self, start: int, stop: int) -> Ids:
        return self.at(np.arange(start, stop, dtype=np.int64))

    def key(self, epoch: int) -> int:
        digest = hashlib.blake2b(repr((self.seed, epoch, self.n)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")


class Sequential:
    """0, 1, ..., n - 1, and again."""

    def __init__(self, n: int) -> None:
        _check_size(n)
        self.n = n

    def at(self, positions: Ids) -> Ids:
        return np.mod(positions, self.n)

    def ids(self, start: int, stop: int) -> Ids:
        return self.at(np.arange(start, stop, dtype=np.int64))


class Without:
    """An order with ranges of its positions left out (samples that a roll-back gave up): what comes at position p here comes at the p-th of
    those that are left there. Ranges may overlap and repeat."""

    def __init__(self, order: Order, ranges: Iterable[Sequence[int]]) -> None:
        self.n, self.order = order.n, order
        self.ranges: list[tuple[int, int]] = []
        for begin, end in sorted((int(begin), int(end)) for begin, end in ranges):
            if self.ranges and begin <= self.ranges[-1][1]:
                begin, end = self.ranges[-1][0], max(end, self.ranges.pop()[1])
            self.ranges.append((begin, end))

    def at(self, positions: Ids) -> Ids:
        return self.order.at(self.places(positions))

    def ids(self, start: int, stop: int) -> Ids:
        return self.at(np.arange(start, stop, dtype=np.int64))

    def places(self, positions: Ids) -> Ids:
        """Positions in the order itself."""
        for begin, end in self.ranges:
            positions = positions + (end - begin) * (positions >= begin)
        return positions


def feistel(x: Ids, n: int, key: _U64, rounds: int = ROUNDS) -> Ids:
    """Permute range(n). x [k]: 0 <= x < n. key: [1], or [k] where each position has its own. Returns int64 [k]."""
    a = int(np.ceil(np.sqrt(float(n))))
    b = -(-n // a)                                # a * b exceeds n by less than a: one walk is nearly always enough
    size, state = np.uint64(n), x.astype(np.uint64)
    state = _rounds(state, np.uint64(a), np.uint64(b), key, rounds)
    outside = np.flatnonzero(state >= size)
    while len(outside):
        again = key if len(key) == 1 else key[outside]
        state[outside] = _rounds(state[outside], np.uint64(a), np.uint64(b), again, rounds)
        outside = outside[state[outside] >= size]
    return state.astype(np.int64)


def _rounds(x: _U64, a: np.uint64, b: np.uint64, key: _U64, rounds: int) -> _U64:
    """One pass over the grid: left in Z_a and right in Z_b take turns in being moved by a hash of the other."""
    left = x // b
    right = x - left * b
    for i in range(rounds):
        key = _mix(key + _GOLDEN)
        if i % 2:
            right = _add(right, _mix(left * _GOLDEN + key), b)
        else:
            left = _add(left, _mix(right * _GOLDEN + key), a)
    return left * b + right


def _add(value: _U64, random: _U64, modulus: np.uint64) -> _U64:
    """value + (a number below modulus), modulo modulus: where the sum is below modulus, taking it off wraps to a huge number."""
    moved = value + ((random >> _32) * modulus >> _32)
    return np.minimum(moved, moved - modulus)


def _mix(x: _U64) -> _U64:
    """Finaliser of splitmix64 (multiplications wrap around)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _check_size(n: int) -> None:
    if not 0 < n <= LARGEST:
        raise DataError(f"an order needs 1 to 2**52 samples, not {n}")
