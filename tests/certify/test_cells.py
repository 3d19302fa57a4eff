"""Where points stand among the cells of a sum of trees: what is kept up is what a look at all leaves says."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

import robustbench_lite as rb
from robustbench_lite.certify.cells import Cells, Standing
from robustbench_lite.core.structure import Trees


def cells_of(kind: str) -> tuple[Cells, torch.Tensor]:
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.min(0)) / (x.max(0) - x.min(0))
    made = {
        "boosting": GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=0),
        "forest": RandomForestClassifier(n_estimators=8, random_state=0),
    }[kind]
    trees = rb.lift(made.fit(x, y), (x.shape[1],)).structure
    assert isinstance(trees, Trees)
    return Cells(trees, x.shape[1]), torch.tensor(x[::40], dtype=torch.float32)


@pytest.mark.parametrize("kind", ["boosting", "forest"])
def test_moves_say_what_the_trees_say_of_the_moved_points(kind: str) -> None:
    cells, x = cells_of(kind)
    feature = cells.table[0]
    value, possible = cells.points(x, torch.zeros_like(x), torch.ones_like(x))
    standing, generator = Standing.of(cells, x), torch.Generator().manual_seed(0)
    for _ in range(5):
        moved = standing.scores_of_moves()
        for row in range(0, len(x), 5):
            point = standing.point[row].repeat(len(feature), 1)
            point[torch.arange(len(feature)), feature] = value[row]
            some = possible[row]
            assert torch.allclose(moved[row, some], cells.scores(point)[some], atol=1e-10)
        for row in range(len(x)):  # two features of every row at once
            cells_there = possible[row].nonzero()[:, 0]
            cell = cells_there[torch.randperm(len(cells_there), generator=generator)[:2]]
            cell = cell if feature[cell[0]] != feature[cell[1]] else cell[:1]
            standing.move(torch.full_like(cell, row), feature[cell], cell, value[row, cell])
        afresh = Standing.of(cells, standing.point)
        assert torch.equal(standing.place, afresh.place)
        assert torch.equal(standing.away, afresh.away)
        assert torch.equal(standing.which, afresh.which)
        assert torch.allclose(standing.scores(), cells.scores(standing.point), atol=1e-10)
