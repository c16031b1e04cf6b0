"""`framewire dataset`: the images that a model is trained and tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError
from pipelines import console
from pipelines.verbs.options import Json

dataset = typer.Typer(
    name="dataset", help="Collect, import, split, check and export images with labels.", no_args_is_help=True
)
Folder = Annotated[str, typer.Argument(help="Project folder, for example gate.fwm")]
Classes = Annotated[str | None, typer.Option(help="Class names, separated by commas")]


def names_of(text: str | None) -> list[str]:
    """Return the names in a text.

    >>> names_of("person, car")
    ['person', 'car']
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]


@dataset.command(name="collect")
def collect_pictures(
    address: Annotated[str, typer.Argument(help="Address of a running engine's publisher: tcp://127.0.0.1:5555")],
    folder: Folder,
    when: Annotated[
        str, typer.Option(help="uncertain, new, empty, all, class:NAME or rule:NAME, joined by or")
    ] = "uncertain or new or empty",
    per_hour: Annotated[float, typer.Option(help="Images per camera and hour at most; 0: no limit")] = 200,
    doubt: Annotated[str, typer.Option(help="Scores between which a detection is uncertain: LOW:HIGH")] = "0.25:0.6",
    seconds: Annotated[float | None, typer.Option(help="Stop after this time; Ctrl-C stops too")] = None,
    pictures: Annotated[int | None, typer.Option(help="Stop after this many images")] = None,
    classes: Classes = None,
    server_key: Annotated[str | None, typer.Option(help="File NAME.key of an engine that encrypts")] = None,
    keys: Annotated[str | None, typer.Option(help="Your file NAME.key_secret")] = None,
    as_json: Json = False,
) -> None:
    """Collect images of a running engine that are worth labelling, without near-duplicates.

    The engine must publish images: --set publish.pictures.images_per_s=1. What it blurs stays blurred.
    """
    from pipelines.learning.dataset.choose import Chooser, parse_when
    from pipelines.learning.dataset.collect import Collector, collect
    from pipelines.learning.dataset.project import open_or_create
    from pipelines.verbs.options import client_keys

    low, _, high = doubt.partition(":")
    try:
        conditions = parse_when(when, (float(low), float(high)))
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"--doubt {doubt}: expected LOW:HIGH") from error
    if not (Path(folder) / "project.yaml").is_file() and not classes:
        raise ConfigError(f"{folder}: a new project: give the classes that you will label: --classes person,car")
    project = open_or_create(folder, names_of(classes))
    chooser = Chooser(conditions, per_hour, [origin.look for origin in project.origins().values()])
    collector = Collector(project, chooser)
    try:
        collect(
            address,
            collector,
            seconds=seconds,
            pictures=pictures,
            told=lambda done: console.say(f"kept {done.pictures} of {done.seen} images"),
            **client_keys(server_key, keys),
        )
    except KeyboardInterrupt:
        console.say("stopped")
    done = collector.collected
    facts = {"pictures": done.pictures, "seen": done.seen, "by_source": done.by_source}
    console.show({**facts, "why": dict(chooser.reasons), "refused": dict(chooser.refused)}, as_json=as_json)


@dataset.command(name="import")
def import_pictures(
    given: Annotated[
        str, typer.Argument(help="COCO or Label Studio JSON, CVAT XML, a YOLO or VOC folder, images, or a clip")
    ],
    folder: Folder,
    classes: Classes = None,
    names: Annotated[
        str | None, typer.Option(help="Names of the class numbers, if there is no data.yaml; coco: the usual 80")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the images, if not next to the labels")] = None,
    camera: Annotated[str | None, typer.Option(help="Camera of all images, for split --by camera")] = None,
    every: Annotated[int, typer.Option(min=1, help="Take every n-th frame of a clip")] = 30,
    as_json: Json = False,
) -> None:
    """Import labelled or unlabelled images into a project, creating it if necessary."""
    from engine.detection.coco import COCO_NAMES
    from pipelines.learning.dataset.bring import bring

    numbered = list(COCO_NAMES) if names == "coco" else names_of(names)
    with console.progress_bar("images") as progress:
        done = bring(
            given,
            folder,
            classes=names_of(classes),
            images=images,
            names=numbered,
            camera=camera,
            every=every,
            progress=progress,
        )
    console.show(done.as_dict(), as_json=as_json)


@dataset.command(name="split")
def split_pictures(
    folder: Folder,
    train: Annotated[float, typer.Option(help="Share of the images")] = 0.7,
    val: Annotated[float, typer.Option(help="Share for model selection")] = 0.15,
    test: Annotated[float, typer.Option(help="Share for the final test; locked")] = 0.15,
    by: Annotated[str | None, typer.Option(help="What stays together: camera, day, clip, folder")] = None,
    seed: Annotated[int, typer.Option(help="Of the deal")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="Redistribute everything, including the locked test split")
    ] = False,
    as_json: Json = False,
) -> None:
    """Distribute the labelled images to train, val and test: groups stay together, and the test split is locked."""
    from pipelines.learning.dataset.project import Project
    from pipelines.learning.dataset.split import split

    shares = {"train": train, "val": val, "test": test}
    console.show(split(Project(folder), shares, names_of(by), seed, again=again), as_json=as_json)


@dataset.command(name="stats")
def show_stats(folder: Folder, as_json: Json = False) -> None:
    """Count images, objects per class and split, and sizes."""
    from pipelines.learning.dataset.look import stats
    from pipelines.learning.dataset.project import Project

    found = stats(Project(folder))
    if as_json:
        console.result_json(found)
        return
    rows = [{"class": name, **counts} for name, counts in found.pop("classes").items()]
    console.show_rows("Objects", rows)
    console.show(found, as_json=False)


@dataset.command(name="check")
def check_pictures(
    folder: Folder,
    fast: Annotated[bool, typer.Option("--fast", help="Do not read the images completely")] = False,
    as_json: Json = False,
) -> None:
    """Find broken labels and images, objects labelled twice, near-duplicates across splits, a changed test split."""
    from pipelines.learning.dataset.look import check
    from pipelines.learning.dataset.project import Project

    found = check(Project(folder), decode=not fast)
    if as_json:
        console.result_json(found)
    for row in found if not as_json else ():
        console.result(f"{row['kind']}: {row['place']}: {row['what']}")
    if found:
        console.say(f"{len(found)} findings")
        raise typer.Exit(1)
    console.say("nothing found")


@dataset.command(name="export")
def export_pictures(
    folder: Folder,
    form: Annotated[str, typer.Option("--as", help="coco, yolo, voc, cvat or label_studio")],
    out: Annotated[str | None, typer.Option(help="New folder; PROJECT-FORMAT by default")] = None,
    as_json: Json = False,
) -> None:
    """Write the labelled images in the format of another program."""
    from pipelines.learning.dataset.export import export
    from pipelines.learning.dataset.project import Project

    project = Project(folder)
    place = Path(out) if out else project.folder.with_name(f"{project.folder.stem}-{form}")
    with console.progress_bar("images") as progress:
        console.show(export(project, form, place, progress), as_json=as_json)


@dataset.command(name="augment")
def preview_augmented(
    folder: Folder,
    preview: Annotated[int, typer.Option(help="Number of pictures")] = 12,
    augment: Annotated[
        list[str] | None, typer.Option(help="As for train: flip=0.5 colour scale translate crop distort mosaic")
    ] = None,
    out: Annotated[str | None, typer.Option(help="File to write; augmented.png in the project by default")] = None,
    size: Annotated[int, typer.Option(min=32, max=2048, help="Rows and columns of each image")] = 320,
    seed: Annotated[int, typer.Option(help="Seed of the choice and the changes")] = 0,
    as_json: Json = False,
) -> None:
    """Draw training images with their boxes, changed at random as the training will see them."""
    from pipelines.learning.dataset.project import Project
    from pipelines.learning.train.preview import preview as draw
    from pipelines.verbs.learning.train import augment_of

    project = Project(folder)
    place = Path(out) if out else project.folder / "augmented.png"
    console.show(draw(project, augment_of(augment or []), place, count=preview, size=size, seed=seed), as_json=as_json)
