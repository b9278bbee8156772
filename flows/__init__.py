"""The Prefect side: a flow per stage and one for the whole, each task running `dvc repro` on one stage of dvc.yaml."""

from flows import environment

environment.prepare()  # before anything imports prefect: it reads its settings once, at import
