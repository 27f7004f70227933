"""What moves the atoms: force fields of RDKit and OpenMM, tight binding, and models, all as calculators of ASE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from sdas.data.frame import FloatArray
from sdas.data.units import KCAL_PER_MOL, KJ_PER_MOL
from sdas.errors import SimulationError
from sdas.simulate.molecule import Molecule, chemistry_of

AMBER = "amber14-all.xml"
ANG_PER_NM = 10.0


def make_engine(name: str, molecule: Molecule) -> Calculator:
    """The calculator ``mmff``, ``uff``, ``openmm``, ``tblite`` or ``model:RUN`` for a molecule.

    Raises :class:`SimulationError` if its program is missing, or has no parameters for the molecule.
    """
    if name in ("mmff", "uff"):
        return RDKitForceField(molecule, name)
    if name == "openmm":
        return AmberForceField(molecule)
    if name == "tblite":
        return _tight_binding(molecule)
    return _model(name.removeprefix("model:"), molecule)


class _ForceField(Calculator):
    """Energy in eV and forces in eV/Å of a molecule whose positions alone change."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE declares it so)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What changed since the last calculation. ASE compares all there is, which takes longer than the forces."""
        same = self.atoms is not None and np.array_equal(self.atoms.positions, atoms.positions)
        return [] if same else ["positions"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        energy, forces = self.energy_and_forces(self.atoms.positions)
        self.results = {"energy": energy, "forces": forces}

    def energy_and_forces(self, positions: FloatArray) -> tuple[float, FloatArray]:
        """Energy in eV and forces `[n, 3]` in eV/Å at positions `[n, 3]` in Å; each field has its own."""
        raise NotImplementedError


class RDKitForceField(_ForceField):
    """MMFF94 or UFF, as RDKit has them, without a cutoff."""

    def __init__(self, molecule: Molecule, name: str) -> None:
        super().__init__()
        chemistry = chemistry_of(molecule)
        from rdkit.Chem import rdForceFieldHelpers as fields

        if name == "mmff":
            parameters = fields.MMFFGetMoleculeProperties(chemistry)
            field = None if parameters is None else fields.MMFFGetMoleculeForceField(
                chemistry, parameters, nonBondedThresh=1e3, ignoreInterfragInteractions=False
            )  # fmt: skip
        else:
            known = fields.UFFHasAllMoleculeParams(chemistry)
            field = fields.UFFGetMoleculeForceField(chemistry, vdwThresh=1e3) if known else None
        if field is None:
            other = {"mmff": "uff or tblite", "uff": "tblite"}[name]
            raise SimulationError(f"{name} has no parameters for all atoms of {molecule.name}; try {other}")
        field.Initialize()
        self.field = field

    def energy_and_forces(self, positions: FloatArray) -> tuple[float, FloatArray]:
        """See :class:`_ForceField`."""
        places = positions.ravel().tolist()
        energy = self.field.CalcEnergy(places)  # first: RDKit's gradient uses the distances that its energy made
        gradient = np.array(self.field.CalcGrad(places)).reshape(-1, 3)
        return energy * KCAL_PER_MOL, -gradient * KCAL_PER_MOL


class AmberForceField(_ForceField):
    """Amber ff14SB of OpenMM, in vacuum and without a cutoff, for peptides given as sequences."""

    def __init__(self, molecule: Molecule) -> None:
        super().__init__()
        try:
            import openmm
            from openmm import app
        except ImportError:
            raise SimulationError("the engine openmm needs OpenMM: pip install 'sdas-kernels[label]'") from None
        if molecule.residues is None:
            raise SimulationError(
                f"the engine openmm knows amino acids, given by --sequence; for {molecule.name} use mmff or tblite"
            )
        topology, self.order = _topology(molecule, app)
        try:
            system = app.ForceField(AMBER).createSystem(topology, nonbondedMethod=app.NoCutoff, removeCMMotion=False)
        except ValueError as error:
            raise SimulationError(f"{AMBER} has no template for {molecule.name}: {error}") from None
        integrator = openmm.VerletIntegrator(0.001)  # never run: ASE moves the atoms
        self.context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))

    def energy_and_forces(self, positions: FloatArray) -> tuple[float, FloatArray]:
        """See :class:`_ForceField`."""
        self.context.setPositions(positions[self.order] / ANG_PER_NM)
        state = self.context.getState(getEnergy=True, getForces=True)
        energy = state.getPotentialEnergy()._value * KJ_PER_MOL  # kJ/mol, and kJ/mol/nm, by definition of the state
        forces = np.empty_like(positions)
        forces[self.order] = np.asarray(state.getForces(asNumpy=True)._value) * (KJ_PER_MOL / ANG_PER_NM)
        return energy, forces


def _topology(molecule: Molecule, app: Any) -> tuple[Any, list[int]]:
    """OpenMM's topology, and the indices of our atoms in its order, residue by residue.

    Templates are found by elements and bonds, so atoms may have any names.
    """
    assert molecule.residues is not None
    names, owners = molecule.residues
    order = sorted(range(len(owners)), key=lambda index: owners[index])
    topology = app.Topology()
    chain = topology.addChain()
    residues = [topology.addResidue(name, chain) for name in names]
    atoms = {}
    for index in order:
        element = app.Element.getByAtomicNumber(int(molecule.numbers[index]))
        atoms[index] = topology.addAtom(f"{element.symbol}{index}", element, residues[owners[index]])
    for i, j in molecule.bonds.tolist():
        topology.addBond(atoms[i], atoms[j])
    return topology, order


def _tight_binding(molecule: Molecule) -> Calculator:
    try:
        from tblite.ase import TBLite
    except ImportError:
        raise SimulationError("the engine tblite needs tblite: pip install 'sdas-kernels[label]'") from None
    calculator: Calculator = TBLite(method="GFN2-xTB", charge=molecule.charge, multiplicity=molecule.spin, verbosity=0)
    return calculator


def _model(run: str, molecule: Molecule) -> Calculator:
    from sdas.md import SDASCalculator

    calculator = SDASCalculator(run)
    calculator.check(molecule.atoms())
    return calculator
