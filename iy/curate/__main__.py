from iy import stage


def run(params) -> None:
    from iy.curate.run import run  # heavy imports here: Ctrl-C during them is one line too
    from iy.tracking import stage_run

    with stage_run(params, "curate") as tracked:
        tracked.log_dataset("photos", params.photos_dir / "photos.parquet")
        run(params, tracked.log_metrics)


if __name__ == "__main__":
    stage.main("curate", run)
