"""Runs in MLflow: one parent per pipeline, one child per stage."""

from iy.tracking.run import UNTRACKED, StageRun, Tell, pipeline_key, stage_run
from iy.tracking.store import alone, connect, experiment_id, fault, tracking_uri

__all__ = [
    "UNTRACKED",
    "StageRun",
    "Tell",
    "alone",
    "connect",
    "experiment_id",
    "fault",
    "pipeline_key",
    "stage_run",
    "tracking_uri",
]
