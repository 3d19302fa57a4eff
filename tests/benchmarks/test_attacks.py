"""Every attack on a model of each family: images a second, and the passes that they take.

`pytest tests/benchmarks/test_attacks.py -m benchmark --benchmark-json FILE`. How many passes an attack may
take is held in an untimed law (`every_pass_is_counted`).
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.registry import entries
from robustbench_lite.runs.bench import bench
from robustbench_lite.search.attack import Fitted
from robustbench_lite.testing.attacks import claimed
from tests.conftest import short

pytestmark = pytest.mark.benchmark
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.cpu),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
FAMILIES = ["cnn", "linear", "svm", "knn", "tree", "forest"]
ATTACKS = [
    name for name in entries("attacks")
    if "classification" in get_attack(short(name)).tasks and not isinstance(get_attack(short(name)), Fitted)
]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_on_a_family(benchmark: BenchmarkFixture, name: str, family: str, device: str) -> None:
    text = short(name)
    threat = next(iter(claimed(get_attack(text))))
    config = rb.Config(samples=200, models=(family,), attacks=(text,), threats=(str(threat),))
    try:
        table = benchmark.pedantic(lambda: bench(config, [device], 3, lambda w, f: None), rounds=1)
    except Unsupported as error:
        pytest.skip(str(error))
    row = table.iloc[0]
    benchmark.extra_info.update(
        images_per_second=row["images_per_second"],
        passes_per_image=row["passes_per_second"] / row["images_per_second"],
        over_bare=row["over_bare"],
    )
