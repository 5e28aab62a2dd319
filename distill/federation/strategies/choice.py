"""A configuration's choice among the strategies."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator

from edgestill.distill.federation.strategies import STRATEGIES
from edgestill.pipeline.frozen import by_name

if TYPE_CHECKING:
    AnyStrategyConfig = Any
else:  # the union over the table
    _union = reduce(or_, (strategy.Config for strategy in STRATEGIES.values()))
    AnyStrategyConfig = Annotated[_union, Discriminator("name"), BeforeValidator(by_name)]
