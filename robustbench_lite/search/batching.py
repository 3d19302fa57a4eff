"""How much is attacked at once, and whether a faster copy of the model is worth making."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Effort, Model
from robustbench_lite.core.oracle import Oracle, saved_bytes_per_sample
from robustbench_lite.core.settings import Search
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import AnyAttack, Composite, Fitted

MANY = 500  # steps, about, of an attack that does not know them beforehand
LONG = 8  # steps: making a faster copy takes about as long as a few of them
ROWS = {"cpu": 1024, "cuda": 8192}  # beyond these a larger batch is no faster
QUEUE = 16  # batches of points made ahead by attacks that ask for many at once


def oracle_for(attack: AnyAttack, model: Model, threat: Threat, search: Search, samples: int) -> Oracle:
    """The model as this attack may ask it, with a copy to search with where making one repays itself."""
    plan, access = attack.schedule(model, threat), _used(attack, model)
    chunk = ROWS.get(model.device.type, 1024) // (1 if plan.points == 1 else 4)  # best without gradients
    steps = MANY if isinstance(attack, Composite | Fitted) else plan.steps
    effort = Effort(samples * plan.lanes, steps, search.compile)
    copy = scorer = None
    if access in (Access.SCORE, Access.GRADIENT) and steps >= LONG:
        copy = model.for_search(search.precision, effort)
    by_gradients_alone = attack.access is access is Access.GRADIENT
    if copy is not None and search.precision == "auto" and not by_gradients_alone:
        on_cuda = model.device.type == "cuda"  # TensorFloat-32 is of nowhere else
        scorer = (model.for_search("tf32", effort) if on_cuda else None) or model
    if access is Access.SCORE and scorer is not None:
        copy = scorer if scorer is not model else None
    return Oracle(model, copy, chunk, search.eot, scorer)


def batch_size(attack: AnyAttack, model: Model, threat: Threat, x: Tensor, lanes: int) -> int:
    """How many samples to attack at once: what fits in half of the free memory, at most `ROWS` rows."""
    device, points = model.device, attack.schedule(model, threat).points
    row = 16 * x[0].nbytes  # the points an attack keeps, and the float64 copies a projection makes
    if _used(attack, model) >= Access.GRADIENT:
        row += 2 * saved_bytes_per_sample(model, x.to(device))
    most = ROWS.get(device.type, 1024) * (1 if points == 1 else QUEUE)
    rows = min(most, _free_bytes(device) // 2 // row)
    return max(1, int(rows) // (lanes * points))


def _used(attack: AnyAttack, model: Model) -> Access:
    """The access that is made use of: a composite's attacks may use what the model has."""
    return min(model.access, Access.GRADIENT) if attack.any_access else attack.access


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 2 << 30
