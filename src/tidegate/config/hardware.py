"""The hardware under an endpoint and the model on it, as the configuration file declares them."""

from typing import Annotated

from msgspec import Meta, structs

from tidegate.config.problem import Problems, nearest
from tidegate.config.table import Table
from tidegate.core import facts
from tidegate.core.facts import ACCELERATORS, MODELS, PARAMETERS_MIN
from tidegate.core.hardware import Accelerator, Machine, Model, Setup
from tidegate.core.model import replace

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]  # of the parts of any model
_Size = Annotated[float, Meta(ge=PARAMETERS_MIN, le=1e14)]  # from the smallest that writes to a hundred of the largest

GB = 1e9
TERA = 1e12
_SHEET = ("memory_gb", "bandwidth_gb_per_s", "tflops")
"""What has to be written of an accelerator that has no name here."""


class HardwareTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine runs on. With its model, it makes the prior: what is written in `prior` overrules.

    Figures are those of data sheets, of one accelerator; that engines reach a share of them is reckoned with. Of what
    has no name here, write all three, as of a processor and its memory.
    """

    accelerator: Annotated[
        str,
        Meta(
            max_length=64,
            description="The accelerator, by name: " + ", ".join(f"`{name}`" for name in sorted(ACCELERATORS)) + ".",
        ),
    ] = ""
    count: Annotated[
        Annotated[int, Meta(ge=1, le=64)],
        Meta(description="Accelerators that share each layer of the model (tensor parallelism)."),
    ] = 1
    eager: Annotated[
        bool,
        Meta(
            description="Whether the engine starts each kernel by itself, as with vLLM's `--enforce-eager`. Engines "
            "replay captured graphs, if they can."
        ),
    ] = False
    memory_gb: Annotated[
        Annotated[float, Meta(ge=0.1, le=100_000)] | None,
        Meta(description="Its memory, in GB. That of the named one."),
    ] = None
    bandwidth_gb_per_s: Annotated[
        Annotated[float, Meta(ge=0.1, le=1e6)] | None,  # from a small board to wafer-scale hardware
        Meta(description="Bandwidth of that memory, in GB/s. That of the named one."),
    ] = None
    tflops: Annotated[
        Annotated[float, Meta(ge=0.001, le=1e6)] | None,  # as above
        Meta(description="Dense operations in 16 bits, in TFLOP/s, without sparsity. Those of the named one."),
    ] = None


class ModelFactsTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is made of. What is left out is as in the named one; of another, as is usual for `parameters`."""

    model: Annotated[
        str,
        Meta(
            max_length=256,  # as names of models are elsewhere
            description="A known model to begin with, by any name that it goes by, as in `Qwen/Qwen3-32B-AWQ`: "
            + ", ".join(f"`{name}`" for name in sorted(MODELS))
            + ".",
        ),
    ] = ""
    parameters: Annotated[_Size | None, Meta(description="All parameters. Required without a known model.")] = None
    active_parameters: Annotated[
        _Size | None, Meta(description="Those that a token needs, of a model of experts. All.")
    ] = None
    layers: Annotated[_Count | None, Meta(description="Its layers.")] = None
    hidden: Annotated[_Count | None, Meta(description="Width of a token between layers.")] = None
    heads: Annotated[_Count | None, Meta(description="Heads of attention.")] = None
    kv_heads: Annotated[_Count | None, Meta(description="Heads of keys and values, of which the KV cache is made.")] = (
        None
    )
    head_size: Annotated[_Count | None, Meta(description="Size of a head.")] = None
    vocabulary: Annotated[_Count | None, Meta(description="Tokens that it knows.")] = None
    experts: Annotated[_Count | None, Meta(description="Experts of a layer. None, of a dense model.")] = None
    experts_per_token: Annotated[
        _Count | None, Meta(description="How many of these a token takes. All: as a dense model.")
    ] = None
    bytes_per_weight: Annotated[
        Annotated[float, Meta(ge=0.1, le=8)] | None,
        Meta(description="2 is bf16, 1 is fp8, 0.6 four bits with their scales. As the name says, or 2."),
    ] = None
    bytes_per_kv: Annotated[
        Annotated[float, Meta(ge=0.1, le=8)] | None,
        Meta(description="Bytes of a value in the KV cache. 2, as engines have it unless told otherwise."),
    ] = None


def check(path: str, hardware: HardwareTable | None, written: str | ModelFactsTable | None, problems: Problems) -> None:
    """Note what cannot be: unknown names, missing figures, a model without hardware or larger than it."""
    if written is not None and hardware is None:
        problems.add(f"{path}.model_facts", "there is no `hardware` for it to run on", "write it too, or remove this")
    if hardware is not None:
        _check_hardware(f"{path}.hardware", hardware, problems)
    model = None
    if written is not None:
        before = len(problems.found)
        _check_facts(f"{path}.model_facts", written, problems)
        model = _facts(written) if len(problems.found) == before else None
    if hardware is not None and hardware.accelerator in ACCELERATORS and model is not None:
        needed = model.parameters * model.weight_bytes
        there = hardware.count * _accelerator(hardware).memory_bytes
        if needed > there:
            problems.add(
                f"{path}.hardware",
                f"the weights need {needed / GB:.1f} GB, and there are {there / GB:.1f} GB",
                "raise `count`, or lower `bytes_per_weight` of `model_facts`",
            )


def machine(
    hardware: HardwareTable, written: str | ModelFactsTable | None, called: str, prior_written: tuple[str, ...]
) -> Machine:
    """What is known of hardware and model. `called` is the model's name where nothing is declared of it.

    `prior_written` are the fields of the prior that were written down.
    """
    return Machine(
        accelerator=_accelerator(hardware),
        setup=Setup(tensor_parallel=hardware.count, eager=hardware.eager),
        model=None if written is None else _facts(written),
        assumed=facts.known(called),
        written=prior_written,
    )


def _check_hardware(path: str, table: HardwareTable, problems: Problems) -> None:
    if table.accelerator and table.accelerator not in ACCELERATORS:
        problems.add(f"{path}.accelerator", "there is no such accelerator", nearest(table.accelerator, ACCELERATORS))
    elif not table.accelerator and (missing := [key for key in _SHEET if getattr(table, key) is None]):
        lacking = ", ".join(f"`{key}`" for key in missing)
        problems.add(path, f"without a name, {lacking} must be written", "write them, or name an `accelerator`")


def _check_facts(path: str, written: str | ModelFactsTable, problems: Problems) -> None:
    table = ModelFactsTable(model=written) if isinstance(written, str) else written
    if table.model and facts.known(table.model) is None:
        place = path if isinstance(written, str) else f"{path}.model"
        problems.add(place, "there is no such model", f"{nearest(table.model, MODELS)}; or write its `parameters`")
        return
    if not table.model and table.parameters is None:
        problems.add(path, "it says neither which `model` nor how many `parameters`", "write one of them")
        return
    model = _facts(table)
    if model.active_parameters > model.parameters:
        problems.add(f"{path}.active_parameters", "more than all `parameters`", "write what one token needs")
    if model.experts_per_token > model.experts:
        problems.add(f"{path}.experts_per_token", "more than there are `experts`", "write `experts` too")
    elif model.shared_parameters <= model.head:
        problems.add(path, "its parts are more than all `parameters`", "check them against the model's config.json")


def _accelerator(table: HardwareTable) -> Accelerator:
    given = {"memory_bytes": table.memory_gb, "bytes_per_s": table.bandwidth_gb_per_s, "flops": table.tflops}
    units = {"memory_bytes": GB, "bytes_per_s": GB, "flops": TERA}
    sheet = {key: value * units[key] for key, value in given.items() if value is not None}
    if table.accelerator:
        return replace(ACCELERATORS[table.accelerator], **sheet)
    return Accelerator(**sheet, link=facts.HOST)


def _facts(written: str | ModelFactsTable) -> Model:
    table = ModelFactsTable(model=written) if isinstance(written, str) else written
    model = facts.known(table.model)
    if model is None:
        assert table.parameters is not None, "`check` refuses a model of unknown size"
        model = facts.nominal(table.parameters, table.active_parameters)
    given = {key: value for key, value in structs.asdict(table).items() if value is not None and key != "model"}
    renamed = {"bytes_per_weight": "weight_bytes", "bytes_per_kv": "kv_bytes"}
    made = replace(model, **{renamed.get(key, key): value for key, value in given.items()})
    if made.experts and made.experts == made.experts_per_token:
        # Each token takes all of them: nothing is left that some read and others do not.
        made = replace(made, experts=0, experts_per_token=0)
    # A dense model of another size needs all of it for each token.
    return made if made.experts else replace(made, active_parameters=made.parameters)
