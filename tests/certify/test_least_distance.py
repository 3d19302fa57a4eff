"""The shortest steps into several half-spaces at once, against one programme a sample."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.certify.least_distance import shortest_steps
from robustbench_lite.certify.polytope import smallest_step
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.threat import Norm
from robustbench_lite.models.own import as_model
from tests.conftest import attack_with


def drawn(features: int, planes: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(features)
    normals = torch.randn(rows, planes, features, generator=generator, dtype=torch.float64)
    need = 0.4 * torch.randn(rows, planes, generator=generator, dtype=torch.float64)
    x = torch.rand(rows, features, generator=generator, dtype=torch.float64)
    x[:, ::3] = 0  # at the edge of the box
    return normals, need, x


@pytest.mark.parametrize(("features", "planes"), [(3, 2), (20, 9), (60, 12)])
def test_they_are_as_short_as_those_of_a_programme_a_sample(features: int, planes: int) -> None:
    normals, need, x = drawn(features, planes, 20)
    found, solved = shortest_steps(normals, need, -x, 1 - x)
    pixel, unit = np.arange(features), np.zeros(features)
    for row in range(len(x)):
        box = -x[row].numpy(), (1 - x[row]).numpy()
        step = smallest_step(normals[row].numpy(), need[row].numpy(), *box, Norm.L2, pixel, unit)
        assert bool(solved[row]) == (step is not None)
        if step is not None:
            assert float(found[row].norm()) == pytest.approx(float(np.linalg.norm(step)), rel=1e-9, abs=1e-12)
            assert bool((normals[row] @ found[row] >= need[row] - 1e-8).all())


def test_what_no_point_of_the_box_meets_is_told() -> None:
    normals = torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]]], dtype=torch.float64)
    need = torch.tensor([[2.5], [0.5]], dtype=torch.float64)
    zero = torch.zeros(2, 2, dtype=torch.float64)
    found, solved = shortest_steps(normals, need, zero, zero + 1)
    assert solved.tolist() == [False, True]
    assert found[1].tolist() == pytest.approx([0.25, 0.25])


def test_a_chain_of_affine_layers_is_solved_as_the_linear_model_it_is() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Dropout(), nn.Linear(20, 10))
    data = rb.load_data("digits", samples=40)
    model = as_model(module, data)
    with torch.no_grad():
        answers = module.eval()(data.x)
    assert torch.allclose(model.scores(data.x).float(), answers, atol=1e-5)
    y = answers.argmax(1)
    first, second = module[1], module[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    weight = (second.weight @ first.weight).detach().double()
    records = attack_with(model, data.x, y, "exact", "linf:min").records
    assert (records["bound_kind"] == "exact").all()
    # Without the box, the gap of scores over the l1 norm of the difference of weights is the least distance.
    gap = answers.double().gather(1, y[:, None]) - answers.double()
    size = (weight[:, None] - weight).abs().sum(2)[y]
    free = (gap / size.clamp_min(1e-12)).scatter(1, y[:, None], torch.inf).amin(1)
    assert (torch.tensor(records["distance"].to_numpy(float)) >= free - 1e-6).all()
    network = as_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)), data)
    with pytest.raises(Unsupported, match="structure access"):
        attack_with(network, data.x, y, "exact", "l2:min")
