"""The section ``model``: the arguments of the network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sdas.config.section import Section


class ModelConfig(Section):
    """Arguments of sdas_kernels.nn.SDAS."""

    species: list[int] | None = Field(
        default=None,
        description="Atomic numbers the model knows; null takes those of the training frames.",
    )
    channels: int = Field(default=32, ge=1, description="Channels per atom and spherical component.")
    heads: int = Field(default=32, ge=1, description="Attention heads; divides channels.")
    lmax: int = Field(default=2, ge=0, le=8, description="Largest degree of the spherical harmonics.")
    layers: int = Field(default=2, ge=1, description="Message-passing layers.")
    cutoff: float = Field(default=5.0, gt=0, description="Å. Atoms closer than this see each other.")
    n_radial: int = Field(default=5, ge=1, description="Radial functions.")
    key_channels: int = Field(default=4, ge=1, description="Channels of query and key per head.")
    parity: bool = Field(default=True, description="true: E(3), inversion too; false: SE(3).")
    layer: Literal["default", "paper"] = Field(
        default="default", description="default: smooth at the cutoff; paper: as published."
    )
    node_product: bool = Field(
        default=True,
        description="true: features of an atom are multiplied with themselves; a tenth more FLOPs. Not in layer paper.",
    )
    charge_spin: bool = Field(
        default=False, description="true: energies depend on the total charge and the spin that frames state."
    )
    members: int = Field(
        default=1,
        ge=1,
        description="Readouts whose mean is the energy: a shallow ensemble. Each step trains another mixture of them.",
    )
    repulsion: Literal["zbl", "inner-cutoff"] | None = Field(
        default=None,
        description="zbl: nuclei closer than a covalent bond repel as Ziegler, Biersack and Littmark found, and the "
        "network learns the rest; inner-cutoff: atoms closer than in any training frame repel in place of what the "
        "network says; null: it says all.",
    )
    options: dict[str, Any] = Field(default={}, description="Switches of the default layer, by name.")

    @model_validator(mode="before")
    @classmethod
    def _no_product_in_the_paper(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("layer") == "paper" and "node_product" not in content:
            return {**content, "node_product": False}
        return content

    @model_validator(mode="after")
    def _heads_divide_channels(self) -> ModelConfig:
        if self.channels % self.heads:
            raise ValueError(f"heads must divide channels, got heads {self.heads} and channels {self.channels}")
        return self
