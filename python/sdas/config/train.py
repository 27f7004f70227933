"""The section ``train``: the recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sdas.config.section import Section

DEFAULT_MINUTES = 30.0
DEFAULT_BATCH_SIZE = 4
DEFAULT_RATES = {"muon": 1e-2, "adam": 5e-3, "adamw": 5e-3}
DEFAULT_ENERGY_WEIGHTS = {"norm": 0.4, "squared": 4.0, "huber": 4.0}
DEFAULT_TYPE = "Default"
"""Stands for frames of any config_type that has no weight of its own, or of none."""
BATCH_UNITS = ("size", "atoms", "edges")
REFERENCES = ("auto", "fit", "isolated")
"""Words for where energies of the elements come from."""


class TrainConfig(Section):
    """The training recipe. What the loss is stands in :mod:`sdas.train.loss`."""

    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Frames per step, over all processes; 4 where none of this, batch_atoms and batch_edges is given.",
    )
    batch_atoms: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="Most atoms per step, over all processes, in place of batch_size: for frames of many sizes.",
    )
    batch_edges: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Most directed pairs within the cutoff per step, in place of batch_size; the graphs of all frames "
        "are built before the first step.",
    )
    steps: int | None = Field(
        default=None, ge=1, le=10**12, description="Optimizer steps of the run, in place of minutes."
    )
    minutes: float | None = Field(
        default=None, gt=0, description="Wall time of the run in minutes; 30 where neither this nor steps is given."
    )
    optimizer: Literal["adam", "adamw", "muon"] = Field(
        default="muon",
        description="adam; adamw; muon: orthogonalized momentum for the matrices of the layers, adamw for the rest.",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay, adamw and muon only.")
    logit_decay: float = Field(
        default=0.1, ge=0, description="The same of what makes attention logits, besides weight_decay; muon only."
    )
    learning_rate: float = Field(
        default=DEFAULT_RATES["muon"], gt=0, description="Largest learning rate; 0.01 of muon, 0.005 of others."
    )
    adam_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="With muon: largest learning rate of weights that are no matrices; null: half of learning_rate.",
    )
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine",
        description="cosine: to zero at the end; constant.",
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps over which the rate rises linearly from zero.")
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="Decay per step of the averaged weights, which are validated and saved."
    )
    clip_norm: float = Field(default=10.0, gt=0, description="Gradients with a larger norm are scaled down to it.")
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Part of the hidden units of updates and readouts that a step leaves out, drawn by seed and step; "
        "for active.uncertainty dropout.",
    )
    loss: Literal["squared", "huber", "norm"] = Field(
        default="norm",
        description="Of an error: squared; huber: squared up to huber_delta and linear beyond; norm: the length of a "
        "force, the absolute energy, the Frobenius norm of a virial.",
    )
    huber_delta: float = Field(
        default=0.1,
        gt=0,
        description="With huber: where linear begins, in units of s, the RMS of the training forces in eV/Å, as all "
        "errors in the loss: 0.1 is 0.1·s eV/Å for forces and 0.1·s eV per atom for energies and virials.",
    )
    energy_per: Literal["atom", "sqrt_atom"] = Field(
        default="atom", description="Energy errors in the loss are divided by the number of atoms, or by its root."
    )
    energy_weight: float = Field(
        default=DEFAULT_ENERGY_WEIGHTS["norm"],
        ge=0,
        description="Weight of energy errors in the loss, dimensionless; 0.4 with the norm, 4 with others.",
    )
    forces_weight: float = Field(default=1.0, ge=0, description="Weight of force errors in the loss, dimensionless.")
    stress_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of errors of the virial per atom (stress times volume) in the loss, dimensionless. Frames "
        "without a stress do not feel it.",
    )
    energy_weight_late: float | None = Field(
        default=None, ge=0, description="The energy weight in the last part of the run; null: as before."
    )
    late_from: float = Field(
        default=0.75, gt=0, lt=1, description="Where that part begins: the fraction of the run that has passed."
    )
    config_type_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={},
        description="Factor on the weight of frames by their config_type, as {bulk: 1, surface: 5}; Default stands for "
        "all that is not named. Weights of single frames come from config_weight in the files.",
    )
    energy_reference: str | dict[str | int, float] = Field(
        default="auto",
        description="Energies of the elements, which the network need not learn. isolated: of the frames of one atom "
        "in open space; fit: to the training frames; auto: isolated if each element has one, else fit; a mapping such "
        "as {H: -13.6, O: -432.0}, eV; or a JSON or YAML file that holds one. All but a fit are of atoms alone, which "
        "the model gives exactly.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of weights and of the order of frames.")
    deterministic: bool = Field(
        default=False, description="Bitwise repeatable, also across a resume; an operation that cannot be is an error."
    )
    validate_every: int = Field(
        default=500,
        ge=1,
        description="Steps between validations; each writes a row of metrics.csv.",
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between checkpoints; the last two are kept.")
    checkpoint_minutes: float = Field(
        default=5.0, gt=0, description="Wall time in minutes after which there is a checkpoint in any case."
    )
    threads: int | None = Field(
        default=None, ge=1, le=4096, description="CPU threads of PyTorch; null leaves its choice."
    )
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, or auto: a GPU if there is one.")
    dtype: Literal["float32", "float64"] = Field(default="float32", description="float32 or float64.")
    tensorboard: bool = Field(default=False, description="Also write TensorBoard files; needs the package tensorboard.")

    @field_validator("energy_reference", mode="before")
    @classmethod
    def _words_or_mapping(cls, value: Any) -> Any:
        if not isinstance(value, (str, dict)):
            raise ValueError(f"must be {', '.join(REFERENCES)}, a file, or a mapping of elements to eV as {{H: -13.6}}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _some_duration(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("steps") is None and content.get("minutes") is None:
            return {**content, "minutes": DEFAULT_MINUTES}
        return content

    @model_validator(mode="before")
    @classmethod
    def _some_batch(cls, content: Any) -> Any:
        if isinstance(content, dict) and all(content.get(f"batch_{unit}") is None for unit in BATCH_UNITS):
            return {**content, "batch_size": DEFAULT_BATCH_SIZE}
        return content

    @model_validator(mode="before")
    @classmethod
    def _some_numbers(cls, content: Any) -> Any:
        if isinstance(content, dict):
            optimizer, loss = content.get("optimizer", "muon"), content.get("loss", "norm")
            if isinstance(optimizer, str) and optimizer in DEFAULT_RATES and "learning_rate" not in content:
                content = {**content, "learning_rate": DEFAULT_RATES[optimizer]}
            if isinstance(loss, str) and loss in DEFAULT_ENERGY_WEIGHTS and "energy_weight" not in content:
                content = {**content, "energy_weight": DEFAULT_ENERGY_WEIGHTS[loss]}
        return content

    @property
    def batch_budget(self) -> tuple[str, int]:
        """What limits a batch, and how much of it: ("size", frames), ("atoms", atoms) or ("edges", edges)."""
        budgets = ((unit, getattr(self, f"batch_{unit}")) for unit in BATCH_UNITS)
        return next((unit, most) for unit, most in budgets if most is not None)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        given = [f"batch_{unit}" for unit in BATCH_UNITS if getattr(self, f"batch_{unit}") is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, and null for the rest")
        if self.steps is not None and self.minutes is not None:
            raise ValueError("give one of steps and minutes, not both")
        energies = self.energy_weight or self.energy_weight_late
        if not (energies or self.forces_weight or self.stress_weight):
            raise ValueError("energy_weight, forces_weight and stress_weight are all 0: nothing to learn")
        if DEFAULT_TYPE in self.config_type_weights and not any(self.config_type_weights.values()):
            raise ValueError("config_type_weights are all 0: nothing to learn")
        if self.weight_decay and self.optimizer == "adam":
            raise ValueError("weight_decay needs 'optimizer: adamw' or 'optimizer: muon'")
        if self.adam_learning_rate is not None and self.optimizer != "muon":
            raise ValueError("adam_learning_rate needs 'optimizer: muon'")
        return self
