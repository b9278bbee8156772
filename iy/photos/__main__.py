from iy import stage


def run(params) -> None:
    from iy.photos.run import run  # heavy imports here: Ctrl-C during them is one line too

    run(params)


if __name__ == "__main__":
    stage.main("photos", run)
