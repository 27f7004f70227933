"""The section ``active``: how ``sdas active`` chooses the frames that are labeled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sdas.config.label import ResourcesConfig
from sdas.config.section import Section
from sdas.config.simulate import SimulationConfig

Rule = Literal["topk", "random", "maxdist", "lcmd"]
Source = Literal["ensemble", "shallow", "dropout", "last-layer"]
Measure = Literal["forces", "largest-force", "energy"]
HIDDEN = "hidden"
"""The oracle that uncovers the labels in the pool file, for studies in retrospect."""
ENSEMBLE, MEMBERS, DROPOUT = 3, 8, 0.05
"""Models of an ensemble, readouts of a shallow one, and the part of hidden units left out, where nothing is said."""


class ExplorationConfig(Section):
    """Dynamics of each round's ensemble, whose frames join the pool."""

    frames: int = Field(default=0, ge=0, description="Frames that each round adds to the pool; 0: none.")
    bias: float = Field(
        default=1.0, ge=0, description="κ: the dynamics lower the mean energy less κ σ; 0: the mean energy alone."
    )
    replicas: int = Field(default=8, ge=1, description="Systems that move at once.")
    temperature_k: float = Field(default=500.0, gt=0, description="Temperature, K.")
    interval_fs: float = Field(default=50.0, gt=0, description="Time between frames of a replica, fs.")
    timestep_fs: float = Field(default=0.5, gt=0, description="Time step, fs.")


class ActiveConfig(Section):
    """The pool, the oracle, what is selected, and how the ensemble learns it."""

    pool: str | None = Field(default=None, description="File or cache of the frames that may be labeled.")
    smiles: str | None = Field(default=None, description="A molecule, in place of a pool file, as CCO.")
    sequence: str | None = Field(default=None, description="A capped peptide likewise, as ACE-ALA-NME.")
    simulation: SimulationConfig = Field(
        default_factory=SimulationConfig, description="How frames of a molecule or peptide are made."
    )
    oracle: str | None = Field(
        default=None,
        description="pyscf:FUNCTIONAL/BASIS, tblite[:METHOD], ase:MODULE:CLASS, model:RUN, or hidden: the labels in "
        "the pool file, uncovered where they are asked for.",
    )
    oracle_settings: dict[str, Any] = Field(default={}, description="Settings of the oracle, as {dispersion: d4}.")
    start_labels: int = Field(
        default=50, ge=2, description="Frames of the pool that are labeled to begin with, where no data are given."
    )
    rounds: int = Field(default=2, ge=1, description="Rounds of selecting, labeling and training on the new labels.")
    labels_per_round: int = Field(default=25, ge=1, description="K, the frames that a round selects.")
    models: int = Field(
        default=ENSEMBLE,
        ge=1,
        description="M, the models that are trained, which differ by their seeds; 3 of an ensemble, else 1.",
    )
    select: Rule = Field(
        default="topk",
        description="topk: the K most uncertain frames, as published; random; maxdist: always the frame farthest from "
        "all that is chosen, by its features; lcmd: the farthest of the largest cluster.",
    )
    features: Literal["last-layer", "gradient"] = Field(
        default="last-layer",
        description="Of frames, by whose distances maxdist and lcmd select: scalars of the last layer, summed over the "
        "atoms of each element; or gradients of the energy by all weights, sketched to 512 numbers.",
    )
    uncertainty: Source = Field(
        default="ensemble",
        description="Whose disagreement makes a frame uncertain: ensemble, models of other seeds; shallow, readouts of "
        "one model (model.members); dropout, draws of its hidden units (train.dropout); or last-layer: how far the "
        "features of a frame are from those of the training frames.",
    )
    measure: Measure = Field(
        default="forces",
        description="What they disagree about, sigma² = 1/M Σ (f_m − mean)²: forces, the mean over atoms; "
        "largest-force, that of the most uncertain atom; energy, which alone a last layer tells.",
    )
    draws: int = Field(default=8, ge=2, description="Of hidden units of each model, with dropout.")
    learning: Literal["fine-tune", "scratch"] = Field(
        default="fine-tune",
        description="fine-tune: members go on from those of the round before, as published; scratch: they begin anew.",
    )
    scaling: Literal["none", "first", "every"] = Field(
        default="none",
        description="first: the first ensemble is trained by adaptive scaling, each member with the budget "
        "scaling.flops, and what it has grown to is fine-tuned; every: that of every round, from scratch.",
    )
    steps: int | None = Field(
        default=None, ge=1, description="S, steps of fine-tuning; null: a quarter of train.steps or train.minutes."
    )
    rate: float = Field(default=0.3, gt=0, le=1, description="Factor of train.learning_rate in fine-tuning.")
    replay: float | None = Field(
        default=None, ge=0, description="Old frames per new one that train along in fine-tuning; null: all of them."
    )
    duplicates: float = Field(
        default=0.02,
        ge=0,
        description="Å. Frames whose sorted distances differ by less in the root mean square are taken for the same.",
    )
    overlap: float = Field(
        default=0.5, ge=0, lt=1, description="Frames with atoms closer than this part of a bond are dropped."
    )
    processes: int | None = Field(
        default=None, ge=1, description="Members trained at once on this machine; null: as many as it has cores."
    )
    exploration: ExplorationConfig = Field(
        default_factory=ExplorationConfig, description="Frames by the ensemble's own dynamics."
    )
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="What labeling may use; its engine serves training too."
    )

    @model_validator(mode="after")
    def _one_pool(self) -> ActiveConfig:
        given = [name for name in ("pool", "smiles", "sequence") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given: one pool is enough")
        return self

    @model_validator(mode="after")
    def _labels_for_new_frames(self) -> ActiveConfig:
        if self.exploration.frames and self.oracle == HIDDEN:
            raise ValueError(
                "exploration makes new frames, of which the oracle hidden has no labels: set its frames to 0"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _some_source(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("uncertainty", "ensemble") != "ensemble":
            measure = {"measure": "energy"} if content["uncertainty"] == "last-layer" else {}
            return {"models": 1, **measure, **content}
        return content

    @model_validator(mode="after")
    def _consistent(self) -> ActiveConfig:
        if self.models < 2 and self.select == "topk" and self.uncertainty == "ensemble":
            raise ValueError(
                "models must be at least 2, since one alone differs from nothing; or set uncertainty to shallow, "
                "dropout or last-layer"
            )
        if self.scaling == "every" and self.learning != "scratch":
            raise ValueError("learning must be scratch where scaling is every; or set scaling to first")
        if self.uncertainty == "last-layer" and self.measure != "energy":
            raise ValueError(f"measure must be energy where uncertainty is last-layer, got {self.measure!r}")
        return self
