"""Labels by real oracles: energies and forces by quantum chemistry or any calculator, kept in a store."""

from sdas.label.labelling import Labelling, label_frames
from sdas.label.oracle import Failure, Label, Oracle, make_oracle
from sdas.label.store import LabelStore, address

__all__ = ["Failure", "Label", "LabelStore", "Labelling", "Oracle", "address", "label_frames", "make_oracle"]
