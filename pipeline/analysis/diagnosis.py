"""What was found to be wrong with a set's labels, and how to say it. Computes nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Matrix = tuple[tuple[float, ...], ...]

DECISIVE = math.log(20)  # nats of evidence: odds of 20 to 1
MAX_MISFIT = 0.1  # more than this is told with the verdict


@dataclass(frozen=True)
class KindEvidence:
    """How well one kind explains the counted labels; log-likelihoods in nats per label.

    `log_likelihood` is the marginal one, over all free parameters. `behind` is how much more the
    best kind has, and `error` that difference's standard error. `rate` is the likeliest
    share of wrong labels, None where the kind has none to fit. With a witness who is heard,
    what it calls the pictures is counted in.
    """

    kind: str
    rate: float | None
    log_likelihood: float
    behind: float
    error: float


@dataclass(frozen=True)
class ReferenceReport:
    """What a witness saw in the same pictures, and how that agrees.

    `kind`, `rate` (of wrong labels) and `matrix` are as in `Diagnosis`, but from the witness alone:
    by the class that it names in the more confident half of its answers. `distance` is the mean
    total variation between the two matrices' rows, from 0 to 1. `agreement` is the share of the
    counted pictures that the witness gives the name that the diagnosis gives their group. A witness
    that cannot name half of each group is not `heard`: it has no part in the verdict.
    """

    heard: bool
    agreement: float
    distance: float
    kind: str
    rate: float
    matrix: Matrix


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a set's labels, why, and what had to be assumed.

    `rate` is the share of labels that are wrong, with its 95 % interval `between` where it was
    fitted. `evidence` is the best kind's first, from so many `labels`. `matrix` is the estimate of
    p(given label | true class), true classes as rows, counted; `forward` is the verdict's own,
    exact zeros included, for a forward-corrected loss. In bits: `entropy` of a row of `matrix`, on
    average, and `information`, the mutual information between true class and given label. `strays`
    is the share of counted pictures that are hard or in the wrong group. `misfit` is the mean total
    variation between the counts and what the verdict predicts, strays included, beyond what chance
    explains. `detectable`, where labels are clean, is the least rate of symmetric noise, the
    hardest to see, that so many pictures, so legible, would have shown.
    """

    kind: str
    rate: float
    between: tuple[float, float] | None
    verdict: str
    assumption: str
    evidence: tuple[KindEvidence, ...]
    labels: int
    matrix: Matrix
    forward: Matrix
    entropy: float
    information: float
    strays: float
    misfit: float
    detectable: float | None
    witness: ReferenceReport | None


def describe_diagnosis(found: Diagnosis, classes: Sequence[str]) -> tuple[str, str]:
    """Return the verdict in a sentence or two, and what it assumes."""
    witness = found.witness
    heard = witness is not None and witness.heard
    share = f"{found.rate:.1%} of the labels"
    if found.between:
        share += " ({:.1%} to {:.1%})".format(*found.between)
    assumed = ["that part of each class is legible"]
    if heard:
        assumed.append("that the witness knows the names")
    match found.kind:
        case "clean":
            verdict = (
                "The labels are clean"
                if heard
                else "The labels are clean, or a fixed permutation of the names: both fit alike, "
                "and only a witness or a few trusted labels can tell them apart"
            )
            verdict += f"; noise below {found.detectable:.1%} might not have shown."
            if not heard:
                assumed.append("that the names are right")
        case "symmetric":
            verdict = f"{share} are wrong, each other class as likely."
            assumed.append("that the label a class bears most often is its own")
        case "pairs":
            verdict = f"{share} are those of the next class (after the last, the first)."
            if not heard:
                assumed.append(
                    f"that flips go to the next class ({1 - found.rate:.0%} going to the one "
                    "before, under names moved by one, fits alike)"
                )
        case "permutation":
            borne = [row.index(max(row)) for row in found.forward]
            names = [
                f"{name} is called {classes[label]}"
                for name, label in zip(classes, borne, strict=True)
                if name != classes[label]
            ]
            verdict = f"The names are exchanged: {', '.join(names)}."
        case "wrong":
            verdict = (
                "Every label is wrong, each other class as likely: complementary labels, which say "
                "what a picture is not."
            )
            assumed.append("that the label a class never bears is its own")
        case _:
            verdict = "The labels say nothing about the pictures."
            assumed = ["that the network learned what there was to learn"]
    rivals = [
        one.kind
        for one in found.evidence[1:]
        if one.behind * found.labels < DECISIVE
        and (heard or {one.kind, found.kind} != {"clean", "permutation"})
    ]
    if rivals:
        verdict += f" Not shown to be other than: {', '.join(rivals)}."
    if found.misfit > MAX_MISFIT:
        verdict += f" No kind fits well: {found.misfit:.0%} of the labels are where none puts them."
    if witness and witness.kind != found.kind and (heard or found.kind == "random"):
        verdict += f" By the witness's names alone they look {witness.kind}."
    return verdict, f"Assumed: {'; '.join(assumed)}."
