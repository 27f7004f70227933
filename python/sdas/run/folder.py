"""The names in a run folder: who looks for a file there finds its name here."""

RUNS = "runs"  # folders of runs that were given none
CONFIG = "config.yaml"  # the configuration, with every key explained
RUN = "run.json"  # what the run was started with
SPLIT = "split.json"  # which frames train, validate and test
METRICS = "metrics.csv"  # a row per validation
SUMMARY = "summary.json"  # sizes, FLOPs, errors, versions, machine
CHECKPOINTS = "checkpoints"  # the last training states
MODEL = "model"  # the averaged model
FRAMES = "frames"  # the cache made of raw files
POOL = "pool"  # the cache of an adaptive run whose data can grow by those of another file
LEDGER = "ledger.jsonl"  # the acts of an adaptive run
SCALING = "scaling.json"  # what came of it
FOLDS = "folds"  # the short runs of a cross-validation
TRIALS = "trials"  # its trials, while they are made
ACTS = "rounds.jsonl"  # the acts of a run of active learning
LABELS = "labels"  # its store of labels
ROUNDS = "rounds"  # a folder per round: training frames, members of the ensemble
START = "start"  # the frames that it labeled to begin with, where it was given none
DYNAMICS = "md"  # a run of dynamics by the model
REPLICAS = "replicas"  # a run of many replicas at once
DIFFUSION = "diffusion"  # diffusion constants, of a run or a trajectory
INTERPRETATION = "interpret"  # what the model looks at
INTERPRETATION_NUMBERS, INTERPRETATION_PAGE = "interpret.json", "interpret.html"  # in that folder
VALIDATION, VALIDATION_NUMBERS = "validate", "validate.json"  # whether the model may be trusted
FREE_ENERGY = "free_energy"  # free energies along variables
LOCK = ".sdas-lock"  # held by the one process that writes

BEFORE_FIRST_CHECKPOINT = frozenset({CONFIG, RUN, SPLIT, METRICS, FRAMES, POOL, "tensorboard"})
