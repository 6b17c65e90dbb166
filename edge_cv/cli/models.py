"""Commands on model files: convert, compress, debug, check and web."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from converters.errors import InputError
from edge_cv.cli.exits import BROKEN, fail, say
from edge_cv.cli.options import (
    Augment,
    Channels,
    Import,
    InputSize,
    Json,
    Labels,
    Mean,
    Output,
    Resize,
    Std,
    Unsafe,
    declaration_of,
    file_to_write,
    fine_tuned,
    folder_to_write,
    import_files,
    label_file,
    preprocessing_fields,
)
from edge_cv.cli.tables import conversion_row, print_compressed, print_json, print_rows

commands = typer.Typer(rich_markup_mode=None)


@commands.command(epilog="Example: edge-cv convert model.keras --calibration photos --labels labels.txt")
def convert(
    model: Annotated[
        str,
        typer.Argument(help="A .keras, .h5 or float .tflite file, a SavedModel folder, or a name of `edge-cv models`."),
    ],
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, float16, dynamic_int8, int8, int16x8 or mixed; can be repeated. "
            "Default: int8, or none with --onnx."
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Folder of photos like those the model will see; none takes sample photos of packages."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the files.", callback=folder_to_write)] = Path("."),
    labels: Annotated[Path | None, typer.Option(help="Text file of class names, one per line.")] = None,
    io: Annotated[str, typer.Option(help="Input and output of integer schemes: int8, uint8 or float32.")] = "int8",
    effort: Annotated[
        str, typer.Option(help="Of int8: normal; or high, minutes for the most accurate file of hard models.")
    ] = "normal",
    weights: Annotated[
        str | None,
        typer.Option(help="Scales of int8 weights: per_channel, per_tensor or per_tensor_pow2. Default: the target's."),
    ] = None,
    min_sqnr: Annotated[float, typer.Option(help="Smallest SQNR of the logits for the scheme mixed, in dB.")] = 30.0,
    target: Annotated[
        str | None,
        typer.Option(help="A target of `edge-cv check --help`: sets suitable input and output, and checks the file."),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write an ONNX file (float32).")] = False,
    onnx_int8: Annotated[bool, typer.Option("--onnx-int8", help="Also write an ONNX file of int8 (QDQ).")] = False,
    batch: Annotated[str, typer.Option(help="Images of one call of the ONNX files: 1, or free for servers.")] = "1",
    opset: Annotated[int | None, typer.Option(help="Operator set of the ONNX files, 13 or later. Default: 17.")] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    input_size: InputSize = None,
    output: Output = None,
    architecture: Annotated[
        str | None, typer.Option(help="The name of `edge-cv models` whose weights a .weights.h5 file holds.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="The width multiplier of --architecture.")] = 1.0,
    unsafe: Unsafe = False,
    imports: Import = None,
    as_json: Json = False,
) -> int:
    """Convert a model to TFLite and ONNX. Each file is compared with the model before it is written."""
    from edge_cv.pipeline.convert import NO_PHOTOS, ConversionRequest, convert_model
    from edge_cv.progress import shown

    import_files(imports)
    request = ConversionRequest(
        model,
        scheme or ([] if onnx or onnx_int8 else ["int8"]),
        onnx=[*(["float32"] if onnx else []), *(["int8"] if onnx_int8 else [])],
        calibration=calibration,
        labels=label_file(labels),
        io=io,
        effort=effort,
        weights=weights,
        min_sqnr_db=min_sqnr,
        target=target,
        preprocessing=preprocessing_fields(resize, mean, std),
        unsafe=unsafe,
        architecture=architecture,
        alpha=alpha,
        input_size=input_size,
        output=output,
        batch=batch,
        opset=opset,
    )
    converted = convert_model(request, out, progress=shown)
    if calibration == NO_PHOTOS:
        say(
            "calibrated on sample photos: about 100 photos of the model's own task make a more accurate file",
            error=True,
        )
    print_rows([conversion_row(file) for file in converted], as_json)
    missed = [file.best_sqnr_db for file in converted if file.best_sqnr_db is not None]
    for best in missed:
        fail(f"mixed must have {min_sqnr:g} dB. The best file found has {best:.1f} dB; it was written", BROKEN)
    return BROKEN if missed else 0


@commands.command(epilog="Example: edge-cv compress model.keras --data photos --sparsity 0.75 --qat --out compressed")
def compress(
    model: Annotated[str, typer.Argument(help="A .keras or .h5 file whose model takes pixels 0..255.")],
    data: Annotated[str, typer.Option(help="Labelled photos to fine-tune and to measure on, or `digits`.")],
    out: Annotated[
        Path, typer.Option(help="Folder for models and files; a second run resumes there.", callback=folder_to_write)
    ],
    channels: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Remove channels until this share of the MACs is left.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Set this share of the weights to zero.")
    ] = None,
    allocation: Annotated[
        str, typer.Option(help="Of zeros to layers: lamp, fewer where each weight matters more; or uniform.")
    ] = "lamp",
    clusters: Annotated[int | None, typer.Option(help="Number of different weights in a layer.")] = None,
    qat: Annotated[bool, typer.Option("--qat", help="Quantization-aware training for int8.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning in each stage.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of fine-tuning in each stage. Default: by the stage and the number of photos."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate of fine-tuning; --clusters and --qat use a tenth of it.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    augment: Augment = None,
    resize: Resize = None,
    input_size: InputSize = None,
    output: Output = None,
    unsafe: Unsafe = False,
    imports: Import = None,
    yes: Annotated[bool, typer.Option("--yes", help="Without a stage: do what the plan says.")] = False,
    as_json: Json = False,
) -> int:
    """Compress a trained model: fewer channels, zeros, few different weights, quantization-aware training.

    Without a stage the model is measured and a plan is printed: which stages fit it, and why.

    The stages run in this order. Each one is fine-tuned with the dense model as its teacher, on crops of at least 70 %
    of a photo and without flips unless --augment changes that. Each stage writes a .keras and an int8 file, which is
    evaluated beside the dense model on photos that were not used for training; a warning names each stage that costs
    more accuracy than it should.
    """
    from edge_cv import recipe as recipes
    from edge_cv.pipeline.compress import Compressed, compress_file
    from edge_cv.pipeline.compression_plan import plan
    from edge_cv.progress import shown

    stages: dict[str, Any] = {
        "channel_prune": None if channels is None else recipes.ChannelPrune(channels),
        "prune": None if sparsity is None else recipes.Prune(sparsity, allocation=allocation),
        "cluster": None if clusters is None else recipes.WeightClustering(clusters),
        "qat": recipes.Qat() if qat else None,
    }
    import_files(imports)
    gentle = recipes.Augment(crop_scale=(0.7, 1.0), flip=0.0)
    fit = recipes.Fit(batch_size=batch_size, augment=recipes.with_settings(gentle, augment or ()))

    def compressed(wanted: dict[str, Any]) -> Compressed:
        parts = {n: fine_tuned(part, epochs, steps, learning_rate) for n, part in wanted.items() if part is not None}
        return compress_file(
            model,
            data,
            out,
            parts,
            fit,
            preprocessing=preprocessing_fields(resize, None, None),
            input_size=input_size,
            output=output,
            unsafe=unsafe,
            progress=shown,
        )

    planned = None
    if not any(stages.values()):
        dense = compressed({})
        planned = plan(dense.rows)
        stages = {stage.field: stage.part for stage in planned}
    if planned is None or (yes and any(stages.values())):
        print_compressed(compressed(stages), out, as_json, planned)
    else:
        print_compressed(dense, out, as_json, planned)
    return 0


@commands.command(
    epilog="Example: edge-cv debug model_float32.tflite model_int8.tflite --data photos --plot layers.png"
)
def debug(
    reference: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float .tflite file.")],
    artifact: Annotated[Path, typer.Argument(metavar="INT8", help="A .tflite file converted from the same model.")],
    data: Annotated[str, typer.Option(help="Folder of photos, or `sample`.")],
    limit: Annotated[int, typer.Option(min=1, help="Largest number of photos.")] = 16,
    worst: Annotated[int, typer.Option(min=1, help="Number of layers to print, lowest SQNR first.")] = 10,
    below: Annotated[float, typer.Option(help="Report the first layer with an SQNR below this, in dB.")] = 20.0,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    labels: Labels = None,
    plot: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Picture of all layers: a .png, .svg or .pdf file.", callback=file_to_write),
    ] = Path("layers.png"),
    as_json: Json = False,
) -> int:
    """Show in which layers a quantized model deviates from its float model.

    Prints the SQNR of each layer's output and weights; saturated: the share of float values outside the integer range;
    unused: the share of integers that no value uses. Start with the first layer below --below. --json prints all.
    """
    from converters.tflite.layers import first_departing
    from converters.tflite.layers import worst as lowest
    from edge_cv.pipeline.debug import compare_layers
    from edge_cv.progress import shown
    from edge_cv.report.layer_plot import check_path, draw

    check_path(plot)
    declaration = declaration_of(resize, mean, std, channels, labels)
    compared = compare_layers(reference, artifact, data, limit=limit, declaration=declaration, progress=shown)
    errors, title = compared.errors, f"{artifact.name} against {reference.name}, {compared.images} photos"
    draw(errors, plot, title=title, below_db=below)
    say(f"picture: {plot}", error=True)
    print_rows([dataclasses.asdict(error) for error in (errors if as_json else lowest(errors, worst))], as_json)
    first = first_departing(errors, below)
    layer = "none" if first is None else f"{first.layer} ({first.operator}, {first.sqnr_db:.1f} dB)"
    say(f"first layer below {below:g} dB: {layer}", error=as_json)
    return 0


@commands.command(
    epilog="Targets: cpu, nnapi, edgetpu, ethos_u, micro, stm32mp25, artpec8, a311d, k210, mediapipe, gpu, and "
    "tflite-2.3, the runtime of that release. "
    "Example: edge-cv check model_int8.tflite --target edgetpu"
)
def check(
    artifact: Annotated[Path, typer.Argument(help="A .tflite file, of edge-cv or of another converter.")],
    target: Annotated[list[str], typer.Option(help="The target; can be repeated.")],
    as_json: Json = False,
) -> int:
    """List what a device's runtime, delegate or compiler refuses or runs slowly, with the remedy.

    For the target micro, also print the memory that the file needs. The exit code is 1 if something is refused.
    """
    from converters.devices import micro, targets
    from converters.tflite.graph import read_graph

    if not artifact.is_file() or artifact.suffix != ".tflite":
        raise InputError(f"the artifact must be a .tflite file that exists. Received: {artifact}")
    content = artifact.read_bytes()
    read_graph(artifact, content)
    diagnostics = [(name, diagnostic) for name in target for diagnostic in targets.check(content, name)]
    rows = [{"target": name, **dataclasses.asdict(diagnostic)} for name, diagnostic in diagnostics]
    if as_json:
        print_json(rows)
    elif not rows:
        say(f"{artifact}: nothing found against {', '.join(target)}")
    else:
        for row in rows:
            more = f", and {len(row['layers']) - 3} more" if len(row["layers"]) > 3 else ""
            row["layers"] = ", ".join(row["layers"][:3]) + more
        print_rows(rows, as_json)
    if "micro" in target and not as_json:
        need = micro.memory(content)
        say(
            f"micro: {need.flash_bytes:,} bytes of flash, an arena of {need.arena_bytes:,} bytes "
            f"({need.activations_bytes:,} for activations, at their largest in {need.widest})"
        )
    return BROKEN if any(diagnostic.level == targets.ERROR for _, diagnostic in diagnostics) else 0


@commands.command(epilog="Example: edge-cv web runs/browser/efficientnet_lite0_int8.tflite --out page")
def web(
    artifact: Annotated[Path, typer.Argument(help="A .tflite file whose input and output are float32 or uint8.")],
    out: Annotated[Path, typer.Option(help="Folder for the page.", callback=folder_to_write)],
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    labels: Labels = None,
) -> int:
    """Write a page that classifies photos in the browser: a folder for any static web server.

    The first export fetches LiteRT.js through npm. The page itself needs no network: photos stay on the device.
    """
    from edge_cv.deploy.web import export
    from edge_cv.progress import shown

    with shown(f"writing the page of {artifact.name}"):
        page, *_ = export(artifact, out, declaration_of(resize, mean, std, channels, labels))
    say(page)
    return 0
