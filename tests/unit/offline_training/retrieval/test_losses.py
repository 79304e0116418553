"""Losses by hand, against PyTorch's own, and as estimates of the softmax over everything."""

from math import exp, log

import numpy as np
import pytest
import torch

from offline_training.retrieval.losses import (
    StreamingFrequency,
    corrected_in_batch_softmax,
    full_softmax,
    in_batch_softmax,
)

ONES = torch.ones(3)
PAIRS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
NUMBERS = torch.tensor([5, 6, 5])


def test_in_batch_by_hand() -> None:
    q = {5: 2 / 3, 6: 1 / 3}
    log_q = torch.tensor([log(q[int(n)]) for n in NUMBERS])
    # Temperature .5: logits are 2 for the right item and 0 for the other. A row's own duplicate (item 5) is masked.
    first = -log((exp(2) / q[5]) / (exp(2) / q[5] + 1 / q[6]))
    second = -log((exp(2) / q[6]) / (exp(2) / q[6] + 2 / q[5]))
    loss = in_batch_softmax(PAIRS, PAIRS, NUMBERS, log_q, torch.tensor([1.0, 2.0, 1.0]), temperature=0.5)
    assert float(loss) == pytest.approx(first + 2 * second + first, rel=1e-6)


def test_corrected_by_hand() -> None:
    share = torch.tensor([0.5, 0.25, 0.5])  # of items 5 and 6; a fourth of the log is other items
    # Row 1: its negative is item 6, drawn with q' = .25 / (1 - .5) = .5, so s' = 0 - ln .5; P = e^2 / (e^2 + 2).
    first = 2 / (exp(2) + 2) * (log(2) - 2)
    # Row 2: item 5 twice, q' = .5 / .75: the sum is 2 * 1.5, their mean 1.5.
    second = 1.5 / (exp(2) + 1.5) * (log(3) - 2)
    loss = corrected_in_batch_softmax(PAIRS, PAIRS, NUMBERS, share, ONES, temperature=0.5)
    assert float(loss) == pytest.approx(first + second + first, rel=1e-6)


def test_a_batch_of_one_item_has_no_negatives_and_no_loss() -> None:
    same = torch.tensor([5, 5, 5])
    loss = corrected_in_batch_softmax(PAIRS, PAIRS, same, torch.full((3,), 0.5), ONES, temperature=0.5)
    assert float(loss) == 0


@pytest.mark.parametrize("n", [1, 5, 3000])
def test_full_softmax_is_weighted_cross_entropy(n: int) -> None:
    random = torch.Generator().manual_seed(n)
    users = torch.randn(n, 4, generator=random, requires_grad=True)
    items = torch.randn(7, 4, generator=random, requires_grad=True)
    positive, weight = torch.randint(0, 7, (n,), generator=random), torch.rand(n, generator=random)
    loss = full_softmax(users, items, positive, weight)
    each = torch.nn.functional.cross_entropy(users @ items.T, positive, reduction="none")
    expected = (weight * each).sum() / weight.sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found = torch.autograd.grad(3 * loss, [users, items])
    wanted = torch.autograd.grad(3 * expected, [users, items])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_full_softmax_in_bfloat16_is_near() -> None:
    random = torch.Generator().manual_seed(0)
    users, items = torch.randn(50, 8, generator=random), torch.randn(30, 8, generator=random)
    positive, weight = torch.randint(0, 30, (50,), generator=random), torch.ones(50)
    exact = full_softmax(users, items, positive, weight)
    assert float(full_softmax(users.bfloat16(), items, positive, weight)) == pytest.approx(float(exact), rel=0.01)


def test_huge_logits_stay_finite() -> None:
    users = torch.full((2, 1), 1e3, requires_grad=True)
    loss = full_softmax(users, torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1]), torch.ones(2))
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert users.grad is not None
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(users.grad).all())


def test_frequencies_come_from_the_stream() -> None:
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.3, 0.15, 0.05])
    frequency = StreamingFrequency(4)
    for _ in range(600):
        frequency(torch.from_numpy(rng.choice(4, 20, p=share)))
    assert frequency(torch.arange(4)).numpy() == pytest.approx(share, rel=0.35)


def test_the_correction_makes_the_batch_speak_for_the_catalogue() -> None:
    """Fitted scores are ln p up to a constant, as those of the full softmax; logQ alone leans to popular items, because
    the positive counts in its own denominator."""
    rng = np.random.default_rng(0)
    share = np.array([0.4, 0.3, 0.2, 0.1])
    users, weight = torch.ones(256, 1), torch.ones(256)
    found = []
    for corrected in (False, True):
        score = torch.zeros(4, 1, requires_grad=True)
        optimizer = torch.optim.Adam([score], lr=0.05)
        for _ in range(200):
            number = torch.from_numpy(rng.choice(4, 256, p=share))
            p = torch.from_numpy(share).float()[number]
            if corrected:
                loss = corrected_in_batch_softmax(users, score[number], number, p, weight, 1.0)
            else:
                loss = in_batch_softmax(users, score[number], number, p.log(), weight, 1.0)
            optimizer.zero_grad()
            (loss / 256).backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
        found.append(score.detach().flatten().softmax(0).numpy())
    assert found[1] == pytest.approx(share, abs=0.05)
    assert found[0][0] > share[0] + 0.1
