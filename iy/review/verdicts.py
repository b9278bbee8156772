"""From several reviewers' judgements to one decision each, and how far they agree."""

import csv
import io
import itertools
from collections import Counter
from pathlib import Path

from iy.errors import UserError
from iy.review.log import Judgement
from iy.select.decisions import COLUMNS, read
from iy.storage import write_bytes

Judged = dict[str, dict[str, Judgement]]


def settled(judged: Judged) -> tuple[list[Judgement], list[str]]:
    """What the majority says of each id, with the names of all who say so.

    And the ids of ties, which nobody decides.
    """
    by_id: dict[str, list[Judgement]] = {}
    for own in judged.values():
        for one in own.values():
            by_id.setdefault(one.id, []).append(one)
    decided, tied = [], []
    for key, several in sorted(by_id.items()):
        first, *rest = Counter(one.verdict for one in several).most_common()
        if rest and rest[0][1] == first[1]:
            tied.append(key)
            continue
        winners = sorted((one for one in several if one.verdict == first[0]), key=lambda one: one.reviewer)
        reason = next((one.reason for one in winners if one.reason), "")
        decided.append(Judgement(key, first[0], ", ".join(one.reviewer for one in winners), reason))
    return decided, tied


def agreement(judged: Judged) -> list[dict]:
    """Per two reviewers: how many they both judged, the share judged alike, and Cohen's kappa.

    Kappa is None where it is undefined.
    """
    from sklearn.metrics import cohen_kappa_score

    rows = []
    for a, b in itertools.combinations(sorted(judged), 2):
        both = sorted(judged[a].keys() & judged[b].keys())
        first, second = ([judged[who][key].verdict for key in both] for who in (a, b))
        alike = sum(x == y for x, y in zip(first, second, strict=True))
        varied = len({*first, *second}) > 1
        rows.append(
            {
                "reviewers": [a, b],
                "both": len(both),
                "alike": alike / len(both) if both else None,
                "kappa": float(cohen_kappa_score(first, second)) if varied else None,
            }
        )
    return rows


def export(judged: Judged, path: Path) -> tuple[int, int]:
    """Write the file that `select.decisions` names; how many are decided, and how many are tied and left out."""
    if path.suffix != ".csv":
        raise UserError(f"{path} must end in .csv (or .json for Label Studio)")
    decided, tied = settled(judged)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([one.id, one.verdict, one.reviewer, one.reason] for one in decided)
    write_bytes(path, out.getvalue().encode())
    return len(decided), len(tied)


def load(path: Path) -> list[Judgement]:
    """The judgements in a file of decisions; of several reviewers' rows on one thing, one."""
    return [Judgement(key, one.verdict, one.reviewer, one.reason) for key, one in read(path).items()]
