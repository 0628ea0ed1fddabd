import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beton import rng

numbers = st.integers(0, 2**31)


@given(
    numbers, numbers, st.lists(st.integers(0, 2**40), min_size=1, max_size=30), st.integers(1, 4)
)
def test_numbers_depend_on_the_sample_alone(
    seed: int, epoch: int, ids: list[int], count: int
) -> None:
    together = rng.uniform(seed, epoch, np.array(ids), rng.JITTER, count)
    alone = [rng.uniform(seed, epoch, np.array([i]), rng.JITTER, count + 1)[0, :count] for i in ids]
    assert np.array_equal(together, alone)
    assert ((together >= 0) & (together < 1)).all()


def test_numbers_are_pinned() -> None:
    # Files and trainings of other versions depend on the same numbers.
    numbers = rng.bits(1, 2, np.array([0, 3]), rng.AUGMENT, 2)
    assert [hex(int(number)) for number in numbers.reshape(-1)] == PINNED


def test_numbers_look_uniform_and_independent() -> None:
    ids = np.arange(20_000)
    columns = [
        rng.uniform(seed, epoch, ids, purpose)[:, 0]
        for seed in (0, 1)
        for epoch in (0, 1)
        for purpose in (rng.ORDER, rng.JITTER)
    ]
    table = np.stack([*columns, *rng.uniform(0, 0, ids, rng.ENCODE, 3).T])
    assert np.abs(table.mean(axis=1) - 0.5).max() < 0.01
    assert np.abs(table.std(axis=1) - 12**-0.5).max() < 0.01
    assert np.abs(np.corrcoef(table) - np.eye(len(table))).max() < 0.03
    successive = np.corrcoef(table[:, 1:].reshape(-1), table[:, :-1].reshape(-1))
    assert abs(successive[0, 1]) < 0.01


PINNED = ["0xf44d4b4ef0b59b45", "0x61faa1e12a079874", "0x1350a3f4f483ef1a", "0xe648e92c760ce671"]
