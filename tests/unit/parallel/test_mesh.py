"""Integers of the mesh, and what it refuses."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrain.errors import ConfigError
from mltrain.parallel.mesh import Mesh, choose_reduction, count_micro_batches, share, solve


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))
def test_every_micro_batch_is_computed_once(replicas: int, shards: int, each: int) -> None:
    mesh, m = Mesh(replicas, shards), replicas * shards * each
    assert sorted(i for rank in range(mesh.world) for i in share(mesh, rank, m)) == list(range(m))


def test_shards_are_the_lowest_levels() -> None:
    assert [share(Mesh(2, 2), rank, 8) for rank in range(4)] == [[0, 2], [1, 3], [4, 6], [5, 7]]


@pytest.mark.parametrize("layout, world, replicate, mesh", [
    ("single", 1, None, (1, 1)), ("ddp", 4, None, (4, 1)), ("fsdp", 4, None, (1, 4)), ("hsdp", 8, 2, (2, 4)), ("hsdp", 8, 4, (4, 2))])
def test_layouts(layout: str, world: int, replicate: int | None, mesh: tuple[int, int]) -> None:
    assert solve(layout, world, replicate) == mesh  # type: ignore[arg-type]


@pytest.mark.parametrize("layout, world, replicate, says", [
    ("single", 2, None, "strategy=single"), ("hsdp", 6, 4, "strategy.replicate=4"), ("hsdp", 4, None, "strategy.replicate=None"),
    ("ddp", 2, 2, "strategy.replicate=2")])
def test_impossible_meshes_name_the_key(layout: str, world: int, replicate: int | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        solve(layout, world, replicate)  # type: ignore[arg-type]


def test_micro_batches_never_follow_from_ranks() -> None:
    assert [count_micro_batches(g, None) for g in (32, 12, 6, 7)] == [8, 4, 2, 1]


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="micro_batch=5 does not divide global_batch=32"):
        count_micro_batches(32, 5)
    with pytest.raises(ConfigError, match="6 micro-batches .* 4 workers"):
        share(Mesh(4, 1), 0, 6)


def test_auto_says_when_it_is_not_exact() -> None:
    assert choose_reduction("auto", Mesh(2, 2), 8) == ("exact", "")
    assert choose_reduction("auto", Mesh(3, 1), 6)[0] == "native"
    with pytest.raises(ConfigError, match="exact cannot hold: 6 micro-batches are no power of two"):
        choose_reduction("exact", Mesh(3, 1), 6)


def test_a_batch_without_end_is_refused_and_not_counted_through() -> None:
    with pytest.raises(ConfigError, match="500000000000 micro-batches"):
        count_micro_batches(10**12, 2)


def test_what_divides_a_large_batch_is_found_at_once() -> None:
    with pytest.raises(ConfigError, match=r"possible: 1 2 4 5 8 10 .* \.\.\."):
        count_micro_batches(10**12, 3)
