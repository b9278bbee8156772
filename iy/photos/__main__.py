from iy import stage


def run(params) -> None:
    from iy.photos.run import run  # heavy imports here: Ctrl-C during them is one line too
    from iy.tracking import stage_run

    with stage_run(params, "photos") as tracked:
        run(params, tracked.log_metrics)


if __name__ == "__main__":
    stage.main("photos", run)
