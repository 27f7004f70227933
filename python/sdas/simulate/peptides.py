"""Peptides from sequences: SMILES of capped chains of L amino acids, and which atom belongs to which residue.

Side chains carry the charges of Amber's standard residues, those in water at pH 7; histidine is neutral, with its
proton on N-epsilon.
"""

from __future__ import annotations

import re
from typing import Any

from sdas.errors import SimulationError

FIRST, LAST = {"ACE": "CC(=O)"}, {"NME": "NC"}
RESIDUES = {
    "ALA": "N[C@@H](C)C(=O)",
    "ARG": "N[C@@H](CCCNC(N)=[NH2+])C(=O)",
    "ASN": "N[C@@H](CC(N)=O)C(=O)",
    "ASP": "N[C@@H](CC([O-])=O)C(=O)",
    "CYS": "N[C@@H](CS)C(=O)",
    "GLN": "N[C@@H](CCC(N)=O)C(=O)",
    "GLU": "N[C@@H](CCC([O-])=O)C(=O)",
    "GLY": "NCC(=O)",
    "HIS": "N[C@@H](Cc1c[nH]cn1)C(=O)",
    "ILE": "N[C@@H]([C@@H](C)CC)C(=O)",
    "LEU": "N[C@@H](CC(C)C)C(=O)",
    "LYS": "N[C@@H](CCCC[NH3+])C(=O)",
    "MET": "N[C@@H](CCSC)C(=O)",
    "PHE": "N[C@@H](Cc1ccccc1)C(=O)",
    "PRO": "N1CCC[C@H]1C(=O)",
    "SER": "N[C@@H](CO)C(=O)",
    "THR": "N[C@@H]([C@@H](C)O)C(=O)",
    "TRP": "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)",
    "TYR": "N[C@@H](Cc1ccc(O)cc1)C(=O)",
    "VAL": "N[C@@H](C(C)C)C(=O)",
}
_HEAVY_ATOM = re.compile(r"\[[^\]]*\]|[CNOScno]")


def smiles_of_sequence(sequence: str) -> str:
    """SMILES of ``ACE-ALA-NME`` and the like; raises :class:`SimulationError` for a residue that is not known."""
    return "".join(_parts(sequence)[1])


def residues_of(sequence: str, molecule: Any) -> tuple[list[str], list[int]]:
    """Names of the residues, and the index of the residue of each atom of RDKit's molecule of that SMILES."""
    names, parts = _parts(sequence)
    heavy = [index for index, part in enumerate(parts) for _ in _HEAVY_ATOM.findall(part)]
    owners = []
    for atom in molecule.GetAtoms():  # heavy atoms come as in the SMILES, hydrogens after them
        owner = atom.GetNeighbors()[0] if atom.GetAtomicNum() == 1 else atom
        owners.append(heavy[owner.GetIdx()])
    return names, owners


def _parts(sequence: str) -> tuple[list[str], list[str]]:
    """Names of the residues, and their SMILES."""
    names = [name.strip().upper() for name in sequence.split("-")]
    if len(names) < 3 or names[0] not in FIRST or names[-1] not in LAST:
        raise SimulationError(
            f"the sequence {sequence!r} must read ACE-…-NME with amino acids between the caps, as ACE-ALA-NME"
        )
    for name in names[1:-1]:
        if name not in RESIDUES:
            raise SimulationError(f"the sequence {sequence!r} has a residue {name!r}; known are {', '.join(RESIDUES)}")
    return names, [FIRST[names[0]], *(RESIDUES[name] for name in names[1:-1]), LAST[names[-1]]]
