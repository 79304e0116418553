"""Jester as a world: whoever rated everything visits, and the others are the past."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pay.dense import jester


def test_halves_share_no_visitor_and_new_jokes_are_not_in_the_past(tmp_path: Path) -> None:
    # 20 people have rated all 40 jokes, 10 others the even ones; 3 likes what 3 likes: jokes above its own number
    full = np.arange(30) < 20
    user, joke = np.nonzero(full[:, None] | (np.arange(40) % 2 == 0))
    rating = np.where(joke > user, 9.0, -3.0)
    columns = {"user_id": user, "item_id": joke, "rating": rating, "fully_observed_user": full[user]}
    (tmp_path / "jester5k").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "jester5k" / "ratings.parquet")

    even, odd = jester(tmp_path, "even", 0), jester(tmp_path, "odd", 1)
    assert even.visitors.tolist() == [*range(0, 20, 2)]
    assert odd.visitors.tolist() == [*range(1, 20, 2)]
    for world in (even, odd):
        assert len(world.newcomers) == 6
        assert world.past.log.item.max() < 34
        assert set(range(20, 30)) <= set(world.past.log.user.tolist())
        assert set(world.past.log.user.tolist()) - set(range(20, 30)) <= set(world.visitors[::2].tolist())
        assert world.likes[0].sum(axis=1).tolist() == [40 - visitor - 1 for visitor in world.visitors.tolist()]
        assert world.past.log.time.max() < world.moment
