"""Handwritten digits, from random weights to an int8 file in minutes on a laptop: training, pruning, QAT.

The data are scikit-learn's 1,797 real digits of 8 x 8 pixels; 360 of them are used for measurement only. The model is
MobileNetV2 with width 0.35 at 48 x 48 pixels: small, but with every kind of layer of the large networks.

    edge-cv run digits --out runs/digits
"""

from edge_cv.recipe import Analysis, Augment, Data, FineTuning, Fit, Limits, Measure, Model, Prune, Qat, Recipe

RECIPE = Recipe(
    name="digits",
    # the whole square of a digit, not only its centre
    model=Model("mobilenet_v2", image_size=48, alpha=0.35, preprocessing={"resize_to": None}),
    data=Data(measure="digits", calibrate=None, calibration_images=200),
    fit=Fit(
        epochs=40,
        batch_size=64,
        learning_rate=0.1,
        warmup_epochs=4,
        batch_norm_momentum=0.9,
        # slightly rotated, sheared or shifted digits too; a mirrored digit is another sign
        augment=Augment(
            crop_scale=(0.7, 1.0), crop_ratio=(0.9, 1.1), flip=0.0, randaugment=2, magnitude=6.0, label_smoothing=0.1
        ),
    ),
    # trained from random weights, so that batch normalization's statistics are trained in compression too
    prune=Prune(sparsity=0.75, fine_tuning=FineTuning(epochs=6, learning_rate=1e-3, freeze_statistics=False)),
    qat=Qat(weight_values=25, fine_tuning=FineTuning(epochs=8, learning_rate=5e-4, freeze_statistics=False)),
    schemes=("float32", "int8"),
    onnx=("float32",),
    measure=Measure(threads=(1, 2), runs=200),
    analysis=Analysis(grad_cam=9),
    limits=(
        Limits("int8", min_agreement=0.97, max_top1_drop=0.01, max_size_ratio=0.4),
        Limits("qat_int8", max_top1_drop=0.01),
    ),
    notes=("scikit-learn's handwritten digits: real, but small; the figures show the chain, not ImageNet.",),
)
