"""EfficientNet-B0 on ImageNet, trained as in its paper.

EfficientNet, Tan and Le 2019, section 5.2: RMSprop with decay and momentum 0.9, weight decay 1e-5, learning rate 0.256,
times 0.97 every 2.4 epochs, batch size 4096, 350 epochs, stochastic depth, and an average of the weights. RandAugment
with two operations of magnitude 9 replaces AutoAugment.

The batch of 4096 is accumulated: fit.batch_size times fit.accumulate.

    edge-cv run efficientnet_b0 --data IMAGENET --out runs/efficientnet_b0

Expected top-1: 77.1 % (the paper's table 2).
448 million training images in all: 62 hours at 2,000 images per second, a rate that is an
example and not measured. A run reports its own rate and the expected time of an epoch after its first steps.

Photos that are stored smaller are read faster. Write them once, and train with --data SHARDS:

    edge-cv data prepare IMAGENET SHARDS --short-side 320
"""

from edge_cv.recipe import Augment, Data, Fit, Limits, Model, Recipe

RECIPE = Recipe(
    name="efficientnet_b0",
    model=Model("efficientnet_b0", classes=1000),
    data=Data(measure="imagenet", calibrate=None),
    fit=Fit(
        epochs=350,
        batch_size=512,
        accumulate=8,
        optimizer="rmsprop",
        momentum=0.9,
        weight_decay=1e-5,
        learning_rate=0.256,
        warmup_epochs=5,
        schedule="step",
        decay_rate=0.97,
        decay_epochs=2.4,
        ema=0.9999,
        precision="auto",
        augment=Augment(crop_scale=(0.08, 1.0), randaugment=2, magnitude=9.0, label_smoothing=0.1),
    ),
    schemes=("float32", "int8"),
    onnx=("float32",),
    limits=(Limits("int8", max_top1_drop=0.02),),
)
