"""Ray: the records of one process, from machines that come and go."""

import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import robustbench_lite as rb
from robustbench_lite.core.errors import RobustError
from robustbench_lite.records.folder import Folder
from robustbench_lite.runs.plan import Subject, plan
from robustbench_lite.runs.run import carry_out
from tests.conftest import run_with

UNLIKE = ["run", "memory_mib", "seconds", "certify_seconds", "fit_seconds", "artifact"]


def test_without_the_extra_ray_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(RobustError, match=r"pip install 'robustbench-lite\[ray\]'"):
        run_with("digits", ["linear"], ["noise"], ["linf:0.1"], 10, engine="ray")


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    pytest.importorskip("ray")
    with pytest.raises(RobustError, match=r"engine ray: 127\.0\.0\.1:1: .*refused"):
        run_with("digits", ["linear"], ["noise"], ["linf:0.1"], 10, engine="ray", ray_address="127.0.0.1:1")


def test_three_machines_of_which_one_is_lost(tmp_path: Path) -> None:
    """All records are there, none twice; a live model goes along, and so does what an attack learns."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    torch.manual_seed(0)
    live = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    config = rb.Config(
        samples=100, models=("tree", "live"), threats=("linf:0.1",), engine="ray", workers=3,
        attacks=("noise", "universal:steps=2", "square:steps=1500", "pgd:steps=100,restarts=5"),
    )  # fmt: skip
    made = plan(config, Subject(config.data, ("tree", live), config.cells))
    folder = Folder.create(tmp_path / "run")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    lost: list[str] = []

    def lose_one() -> None:
        while not list(folder.path.glob("records/[!.]*.parquet")):
            time.sleep(0.05)
        cluster.remove_node(nodes[1], allow_graceful=False)
        lost.append(f"with {len(list(folder.path.glob('records/[!.]*.parquet')))} jobs done")

    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    try:
        thread = threading.Thread(target=lose_one)
        thread.start()
        result = carry_out(made, config, folder)
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost
    assert not result.failures
    assert not result.records.duplicated(["job", "sample_id"]).any()
    alone = carry_out(made, config.model_copy(update={"engine": "local", "workers": 1}), None)
    one, two = (
        r.records.drop(columns=UNLIKE).sort_values(["job", "sample_id"]).reset_index(drop=True)
        for r in (result, alone)
    )
    pd.testing.assert_frame_equal(one, two)
    kinds = {
        kind: len(list((folder.path / kind).glob("[!.]*"))) for kind in ("records", "learnt", "pictures")
    }
    assert kinds["records"] == len(made.jobs) == 8
    assert kinds["learnt"] == 2
    assert kinds["pictures"] > 0
