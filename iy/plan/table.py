"""The plan as people read it: a row a stage, the sums, and what to change where something does not fit."""

from iy import params
from iy.plan import stages
from iy.plan.counts import Counts, examples
from iy.plan.stages import Machine, Stage, Unit


def rows(planned: list[Stage]) -> list[str]:
    lines = [f"{'stage':<10} {'time':>9} {'disk':>10} {'GPU':>9} {'memory':>10}"]
    lines += [
        f"{one.name:<10} {duration(one.seconds):>9} {size(one.disk):>10} {size(one.gpu):>9} {size(one.host):>10}"
        for one in planned
    ]
    total = Stage("all", sum(one.seconds for one in planned), sum(one.disk for one in planned), 0, 0)
    most = total._replace(gpu=max(one.gpu for one in planned), host=max(one.host for one in planned))
    return [
        *lines,
        f"{'all':<10} {duration(most.seconds):>9} {size(most.disk):>10} {size(most.gpu):>9} {size(most.host):>10}",
    ]


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    if count == 0:
        return "–"
    return (
        f"{count / 1e6:.0f} MB"
        if count < 1e9
        else f"{count / 1e9:.1f} GB"
        if count < 1e12
        else f"{count / 1e12:.2f} TB"
    )


def advice(
    settings: params.Params, counts: Counts, unit: Unit, machine: Machine, planned: list[Stage], host: float
) -> list[str]:
    """Sentences, each with the setting to change; none where everything fits. host: bytes of memory of the machine."""
    lines = [
        f"{one.stage}: {size(one.total)} on a GPU of {card:.0f} GB: {one.setting}"
        for one in unit.held.values()
        if (card := machine.rates.memory or 0) and one.total > card * 1e9
    ]
    for one in planned:
        if one.host <= host:
            continue
        remedy = "workers.count lower" if one.name == "curate" else "fewer photos, or shorter captions (max_length)"
        lines.append(f"{one.name}: {size(one.host)} of memory, the machine has {size(host)}: {remedy}")
    if machine.gpus > 1 and settings.workers.map != "ray":
        lines.append(f"synpairs: one of {machine.gpus} GPUs draws: workers.map: ray shares the pairs among all")
    return lines + uncounted(settings, machine) + passes(settings, counts, machine)


def uncounted(settings: params.Params, machine: Machine) -> list[str]:
    """Models of others whose speed nobody has told."""
    named = {"curate": stages.of_photos(settings), "synpairs": stages.of_pairs(settings)}
    return [
        f"{stage}: the models of {setting} are not counted: their speed here is not known"
        for stage, kinds in named.items()
        for kind, (times, setting) in kinds.items()
        if times and kind not in machine.rates.seconds
    ]


def passes(settings: params.Params, counts: Counts, machine: Machine) -> list[str]:
    """How often a stage sees each example; steps are settings, and more GPUs show more pictures in as many."""
    training, lines = settings.finetune.training, []
    for number, stage in settings.finetune.stages.items():
        shown = stage.steps * training.batch * training.accumulate * machine.gpus
        times = shown / examples(settings, counts, stage)
        if times < 1:
            steps = round(stage.steps / times)
            lines.append(
                f"finetune{number}: sees {100 * times:.0f} % of its examples; all of them once: "
                f"finetune.stages.{number}.steps={steps}"
            )
    return lines
