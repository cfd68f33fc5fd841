"""A model as clients ask for it: one name, and the endpoints that may stand behind it."""

from typing import Annotated

from msgspec import Meta

from tidegate.config.fingerprint import FingerprintTable
from tidegate.config.table import Table
from tidegate.core.model import Likeness

ModelName = Annotated[str, Meta(min_length=1, max_length=256)]  # repository paths of models have about 100 characters


class ModelTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group: a name that clients ask for, and which endpoints may serve it, each with how alike its model is.

    Only for names whose endpoints differ or that have aliases; `serves` at the endpoint does for the others.
    """

    endpoints: Annotated[
        dict[str, Likeness],
        Meta(
            min_length=1,
            max_length=1000,  # as many endpoints as a file has room for
            description="The endpoints by name, and what each one's model is to this name: `identical` (the same "
            "weights, or the same vendor's model), `same_family` (another size, quantisation or version of it), "
            "`substitute` (another model that may stand in).",
        ),
    ]
    aliases: Annotated[
        tuple[ModelName, ...],
        Meta(
            max_length=64,  # a list to read through
            description="Other names for it, such as those that existing clients send.",
        ),
    ] = ()
    likeness: Annotated[
        Likeness,
        Meta(
            description="The least alike endpoint that may serve a request which does not say itself "
            "(`x-tidegate-likeness`), nor its class. `identical`, so that nobody gets another model than the one asked "
            "for without having allowed it."
        ),
    ] = Likeness.IDENTICAL
    fingerprint: Annotated[
        FingerprintTable,
        Meta(
            description="What a model has to be to be `identical`. An endpoint that is known to be another counts as "
            "`same_family` for as long as it is. Left out, nothing is demanded but that endpoints stay what they are."
        ),
    ] = FingerprintTable()
