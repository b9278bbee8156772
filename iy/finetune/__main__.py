"""python -m iy.finetune --stage 1: train one of the four stages (studio profile on 2 CPU cores: minutes)."""

from iy.stage import main


def run(settings, stage):
    from iy.finetune.run import run as finetune

    finetune(settings, stage)


if __name__ == "__main__":
    main("finetune", run, **{"--stage": ["1", "2", "3", "4"]})
