"""The loader: the same global batches for any set of ranks and from any point of resume."""
from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mltrain.data import loader as loading
from mltrain.data.dataset import open_dataset
from mltrain.data.loader import Loader, evaluation
from mltrain.data.order import SampleOrder
from mltrain.errors import ConfigError
from mltrain.progress import Progress


class Numbers:
    """A dataset whose sample i is i: what is delivered can be read off it."""

    schema, tokens_per_sample, fingerprint = {"id": "int64"}, 1, "numbers"

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def fetch(self, ids) -> dict[str, torch.Tensor]:
        return {"id": torch.from_numpy(np.asarray(ids))}


def steps(count: int, after: int = 0, n: int = 100, **how) -> list[dict[int, list[int]]]:
    """{micro-batch index: ids} of some steps."""
    loader = Loader(Numbers(n), **{"global_batch": 12, "micro_batch": 2, "seed": 3, "read_ahead": 0, **how})
    return [{index: batch["id"].tolist() for index, batch in step} for step in islice(loader.batches(Progress(samples=after)), count)]


def test_a_step_is_the_next_global_batch_cut_into_micro_batches():
    order = SampleOrder(100, 3)
    assert steps(2)[1] == {i: order.ids(12 + 2 * i, 14 + 2 * i).tolist() for i in range(6)}


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(0, 500))
def test_any_ranks_together_read_the_same_global_batches(owner, after):
    whole = steps(30, after)
    parts = [steps(30, after, indices=[i for i in range(6) if owner[i] == rank]) for rank in range(4)]
    assert [{k: v for part in parts for k, v in part[s].items()} for s in range(30)] == [dict(sorted(step.items())) for step in whole]


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(1, 40))
def test_a_resume_goes_on_exactly(done, more):
    assert steps(more, after=12 * done) == steps(done + more)[done:]


@pytest.mark.parametrize("read_ahead", [1, 2, 5])
def test_the_thread_changes_nothing(read_ahead):
    assert steps(50, read_ahead=read_ahead) == steps(50)


def test_a_step_past_one_block_of_ids_is_right_too():
    assert steps(3, after=12 * 1364, n=50_000) == steps(1367, n=50_000)[1364:]


def test_a_changed_batch_size_loses_and_repeats_nothing():
    first, second = steps(4), steps(2, after=48, global_batch=20)
    read = [i for step in first + second for ids in step.values() for i in ids]
    assert read == SampleOrder(100, 3).ids(0, 88).tolist()


def test_without_shuffle_it_is_the_order_of_the_dataset():
    assert steps(1, shuffle=False)[0][5] == [10, 11]


def test_samples_that_are_left_out_make_room_for_the_next():
    """Step 2's were given up: step 2 then has those of step 3, on any cut and from any point of resume."""
    loader = Loader(Numbers(100), global_batch=12, micro_batch=2, seed=3)
    given_up = loader.positions(12, 24)
    whole, left = steps(6), steps(5, skipped=given_up)
    assert given_up == [[12, 24]] and left == [whole[0], *whole[2:]]
    assert steps(3, after=24, skipped=given_up) == left[2:]
    again = Loader(Numbers(100), global_batch=12, micro_batch=2, seed=3, skipped=given_up)
    assert again.positions(6, 24) == [[6, 12], [24, 36]]


def test_the_epoch_ends_in_the_middle_of_a_batch():
    read = [i for step in steps(25) for ids in step.values() for i in ids]
    assert sorted(read) == sorted([*range(100)] * 3)


def test_a_rank_without_micro_batches_gets_empty_steps():
    assert steps(2, indices=[]) == [{}, {}]


@pytest.mark.parametrize("how, words", [({"global_batch": 10, "micro_batch": 4}, "not a multiple"), ({"micro_batch": 0}, "not a multiple"),
                                        ({"indices": [6]}, "below"), ({"indices": [-1]}, "below")])
def test_sizes_that_do_not_fit_are_refused(how, words):
    with pytest.raises(ConfigError, match=words):
        steps(1, **how)


def test_tokens_come_out_of_the_shards(prepared):
    train = open_dataset(prepared, "train", 32)
    step = next(Loader(train, global_batch=8, micro_batch=4, seed=1).batches(Progress()))
    ids = SampleOrder(len(train), 1).ids(0, 8)
    assert torch.equal(torch.cat([batch["tokens"] for _, batch in step]), train.fetch(ids)["tokens"])


def test_waited_says_how_long_the_last_step_took():
    loader = Loader(Numbers(10), global_batch=2, micro_batch=2, read_ahead=1)
    next(loader.batches(Progress()))
    assert 0 < loader.waited < 60


def test_pinned_buffers_are_used_again_but_not_while_they_are_valid(monkeypatch):
    """Pinning itself needs an accelerator; which memory is used when does not."""
    monkeypatch.setattr(loading, "_can_pin", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    batches = Loader(Numbers(100), global_batch=4, micro_batch=2, seed=3, read_ahead=2).batches(Progress())
    order, held, places = SampleOrder(100, 3), [], set()
    for step in range(40):
        held = [*held[-1:], (step, next(batches))]
        for number, micro_batches in held:
            read = torch.cat([batch["id"] for _, batch in micro_batches]).tolist()
            assert read == order.ids(4 * number, 4 * number + 4).tolist()
        places |= {batch["id"].data_ptr() for _, batch in held[-1][1]}
    assert len(places) == 2 * 5


def test_pinned_buffers_hold_tokens_too(prepared, monkeypatch):
    plain = islice(Loader(open_dataset(prepared, "train", 32), global_batch=4, micro_batch=2, read_ahead=0).batches(Progress()), 20)
    expected = [step[1][1]["tokens"].clone() for step in plain]
    monkeypatch.setattr(loading, "_can_pin", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    pinned = Loader(open_dataset(prepared, "train", 32), global_batch=4, micro_batch=2, read_ahead=0).batches(Progress())
    assert all(torch.equal(step[1][1]["tokens"], want) for step, want in zip(pinned, expected, strict=False))


@pytest.mark.gpu
def test_batches_are_pinned_where_there_is_an_accelerator(prepared):
    step = next(Loader(open_dataset(prepared, "train", 32), global_batch=4, micro_batch=2).batches(Progress()))
    assert all(batch["tokens"].is_pinned() for _, batch in step)


@pytest.mark.parametrize("n, sizes", [(10, [4, 4, 2]), (8, [4, 4]), (3, [3])])
def test_an_evaluation_reads_everything_once_in_order(n, sizes):
    held_out = evaluation(Numbers(n), 4)
    batches = [held_out.fetch(i)["id"].tolist() for i in range(len(held_out))]
    assert ([len(b) for b in batches], sum(batches, [])) == (sizes, [*range(n)])


def test_an_evaluation_has_an_end():
    with pytest.raises(IndexError):
        evaluation(Numbers(10), 4).fetch(3)
