"""Training: :func:`train` runs a configuration and leaves a run directory.

run_dir/
  config.yaml    the resolved configuration
  run.json       what the run was started with; a resume compares (sdas.run.continuation)
  split.json     which frames trained, validated and are left for tests
  metrics.csv    one row per validation
  checkpoints/   the last two training states
  model/         the averaged model at the end: sdas.run.checkpoint.load_model(run_dir / "model")
  summary.json   sizes, FLOPs, wall time, best validation, versions, machine
"""

from sdas.train.loop import RunResult, fit, train

__all__ = ["RunResult", "fit", "train"]
