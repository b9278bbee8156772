"""Runs in MLflow: one parent per pipeline, one child per stage."""

from iy.tracking.run import StageRun, pipeline_key, stage_run
from iy.tracking.store import connect, experiment_id, tracking_uri

__all__ = ["StageRun", "connect", "experiment_id", "pipeline_key", "stage_run", "tracking_uri"]
