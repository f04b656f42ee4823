"""What every option of every axis is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Position = Literal["system", "last_user", "tail"]
Denominator = Literal["sampler", "trainer"]


class Option(BaseModel):
    """One option of one axis."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    whole_batch: ClassVar[bool] = False
    """Whether its function must see all tokens of the batch at once (`agentrl.losses.whole`)."""

    name: str

    @property
    def features(self) -> frozenset[str]:
        """What must be computed at each position for it: names in `agentrl.losses.features.FEATURES`. Those of version
        0 have `ref` in their names."""
        return frozenset()

    @property
    def params(self) -> dict[str, Any]:
        """The keyword arguments of the function registered under `name`."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}

    def __repr_name__(self) -> str:
        return self.name

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return list(self.params.items())

    @property
    def parts(self) -> tuple[Option, ...]:
        """The options that an option is made of; itself where it is one."""
        return (self,)


def named(value: Any) -> Any:
    """A bare name stands for the option with its defaults."""
    return {"name": value} if isinstance(value, str) else value


def listed(name: str, field: str) -> BeforeValidator:
    """Like NAMED; a list stands for the option `name`, which holds it in `field`."""
    return BeforeValidator(
        lambda value: {"name": name, field: value} if isinstance(value, list) else named(value)
    )


NAMED = BeforeValidator(named)
BY_NAME = Field(discriminator="name")
