"""python -m iy.select: choose the photos of stage 3 and the pairs of stage 4. Seconds."""

from iy.stage import main


def run(settings):
    from iy.select.run import run as select

    select(settings)


if __name__ == "__main__":
    main("select", run)
