"""The contract of a defense: how it makes a defended model of what it is put around, or trains one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import check_fields
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained
from robustbench_lite.models.zoo.networks import Recipe, recipe_named


@dataclass(frozen=True)
class Base:
    """What stands in a defense's brackets, as a model or as the recipe of one.

    Parameters
    ----------
    text : str
        Its name, such as `cnn` or `pgd_training(cnn)`.
    data : Data
        What it is for.
    train : Trained
        Seed, device and progress of whatever is trained.
    make : callable
        The model of a name.
    """

    text: str
    data: Data
    train: Trained
    make: Callable[[str], Model]

    def model(self) -> Model:
        """The model itself, trained or read, on the device of the training."""
        return self.make(self.text)

    def recipe(self) -> Recipe:
        """How the network it names is built and trained; raises `Unsupported` where it names none of ours."""
        return recipe_named(self.text, self.data)


@dataclass(frozen=True)
class Defense(ABC):
    """A defense's parameters in a frozen dataclass, with `defend`.

    Fields declare their ranges (`quality: Level = 75`), which are checked when the defense is made. `defend`
    returns a `Model` whose scores are the defended ones; its `gradient_scores` are what an attack that knows
    the defense differentiates, and its `undefended` what one that does not know it attacks. What does not fit
    is refused with `Unsupported` in one line that says what would.

    Attributes
    ----------
    name : str
        As in the registry.
    paper : str
        Its source.

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> @dataclass(frozen=True)
    ... class Nothing(Defense):
    ...     name = "nothing"
    ...
    ...     def defend(self, base):
    ...         return base.model()
    >>> digits = rb.load_data("digits")
    >>> defended(Nothing(), "linear", "nothing(linear)", digits, Trained(), rb.load_model).name
    'nothing(linear)'
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def parameters(self) -> str:
        """Every field and its value: of what is trained, a part of the key that it is kept under."""
        return ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    @abstractmethod
    def defend(self, base: Base) -> Model:
        """The defended model.

        Parameters
        ----------
        base : Base
            What stands in the brackets.

        Returns
        -------
        Model

        Raises
        ------
        Unsupported
            Where the defense does not fit the base or the data.
        """


def defended(
    defense: Defense, inner: str, text: str, data: Data, train: Trained, make: Callable[[str], Model]
) -> Model:
    """The model of a defense around what `inner` names, under the name `text`."""
    made = defense.defend(Base(inner, data, train, make))
    made.name, made.defense = text, defense.name
    return made
