"""Commands on labelled images: data show, data prepare and data check."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from converters.errors import InputError
from converters.printable import printable
from edge_cv.cli.exits import BROKEN, say
from edge_cv.cli.options import (
    IMAGES_HELP,
    Augment,
    Json,
    Split,
    file_to_write,
    folder_to_write,
)
from edge_cv.cli.tables import print_json, print_rows

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check labelled images, show training batches, and write shards.",
    epilog="Example: edge-cv data check photos",
)

Source = Annotated[str, typer.Argument(help=IMAGES_HELP)]


@commands.command(epilog="Example: edge-cv data show photos --augment randaugment=2 --augment mixup=0.2")
def show(
    source: Source,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The picture, .png or .jpg.", callback=file_to_write)
    ] = Path("sheet.png"),
    augment: Augment = None,
    split: Split = None,
    size: Annotated[
        int, typer.Option(min=8, max=4096, help="Height and width of the batch's images, in pixels.")
    ] = 224,
    images: Annotated[int, typer.Option(min=1, max=1000, help="Number of images.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the choice of images and of the augmentation.")] = 0,
) -> int:
    """Draw one batch as it is used for training, with each image's target."""
    import numpy as np

    from converters.native_logs import import_tensorflow
    from edge_cv import recipe as recipes
    from edge_cv.data import open_samples
    from edge_cv.data.input_pipeline.batches import sample_batches
    from edge_cv.data.input_pipeline.sheet import draw_sheet

    part = recipes.with_settings(recipes.Augment(), augment or ())
    samples = open_samples(source, split=split)
    import_tensorflow()
    batches = sample_batches(samples, image_size=size, batch_size=images, seed=seed, augment=part)
    pixels, targets = next(iter(batches.epoch(0)))
    say(draw_sheet(np.asarray(pixels), np.asarray(targets), batches.classes, out))
    return 0


@commands.command(epilog="Example: edge-cv data prepare photos shards --max-side 512")
def prepare(
    source: Source,
    out: Annotated[Path | None, typer.Argument(help="Folder for the shards.", callback=folder_to_write)] = None,
    format: Annotated[str, typer.Option(help="tfrecord or array_record.")] = "tfrecord",
    shards: Annotated[int | None, typer.Option(help="Files of each split. Default: one per 256 MB.")] = None,
    split: Split = None,
    max_side: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Shrink images with a longer side, and store them as JPEG.")
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="Shrink images with a longer short side. ImageNet for 224 pixels: 320, or 256."
        ),
    ] = None,
    broken: Annotated[str, typer.Option(help="Broken images: skip them and name them, or refuse.")] = "skip",
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: check counts and checksums of the shards in SOURCE.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Write labelled images as shards that open at once, and verify them. The same command resumes if interrupted.

    Images without splits are divided into train and validation by a hash of their names.
    """
    from edge_cv.data import prepare as preparing
    from edge_cv.data.formats import prepared
    from edge_cv.progress import shown

    if verify:
        with shown(f"verifying {source}") as update:
            manifest = prepared.verify(Path(source), update)
    elif out is None:
        raise InputError(f"OUT must name the folder for the shards. Received: only the source {source}")
    else:
        options = preparing.ShardingOptions(format, shards, max_side, broken, short_side=short_side)
        manifest = preparing.prepare(source, out, options, split=split, progress=shown)
    for part in manifest.splits.values():
        for name, why in part.skipped:
            print(printable(f"skipped: {name}: {why}"), file=sys.stderr)
    rows = [
        {
            "split": name,
            "images": part.images,
            "classes": len(manifest.classes),
            "skipped": len(part.skipped),
            "shards": len(part.shards),
            "bytes": sum(shard.bytes for shard in part.shards),
        }
        for name, part in manifest.splits.items()
    ]
    print_rows(rows, as_json)
    return 0


@commands.command(epilog="Example: edge-cv data check photos/train --against photos/val")
def check(
    source: Source,
    against: Annotated[
        str | None, typer.Option(help="Images that must not occur in SOURCE, such as the test set.")
    ] = None,
    split: Split = None,
    as_json: Json = False,
) -> int:
    """Find broken and odd images, duplicates within and across splits, and classes with few or no images.

    The exit code is 1 if an issue harms training or evaluation.
    """
    from edge_cv.data.check import check as check_images
    from edge_cv.progress import shown

    checked = check_images(source, against, split=split, progress=shown)
    code = BROKEN if checked.harms else 0
    if as_json:
        print_json(dataclasses.asdict(checked))
        return code
    print_rows(list(checked.parts), as_json)
    print()
    rows = [
        {
            "": "harms" if issue.harms else "note",
            "split": issue.part,
            "count": issue.count,
            "what": issue.what,
            "such as": "\n".join(issue.examples),
        }
        for issue in checked.findings
    ]
    if rows:
        print_rows(rows, as_json)
    else:
        print("nothing found")
    return code
