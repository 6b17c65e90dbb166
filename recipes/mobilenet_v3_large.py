"""MobileNetV3-Large on ImageNet, trained as in its paper.

Searching for MobileNetV3, Howard et al. 2019, section 6.1.1: RMSprop with momentum 0.9, learning rate 0.1 for a batch
of 4096, times 0.99 every 3 epochs, weight decay 1e-5, an average of the weights with decay 0.9999, Inception's crops.
Dropout is 0.2, as in the network published by Keras; the paper uses 0.8.

The batch of 4096 is accumulated: fit.batch_size times fit.accumulate.

    edge-cv run mobilenet_v3_large --data IMAGENET --out runs/mobilenet_v3_large

Expected top-1: 75.2 % (the paper's table 3).
769 million training images in all: 71 hours at 3,000 images per second, a rate that is an
example and not measured. A run reports its own rate and the expected time of an epoch after its first steps.

Photos that are stored smaller are read faster. Write them once, and train with --data SHARDS:

    edge-cv data prepare IMAGENET SHARDS --short-side 320
"""

from edge_cv.recipe import Augment, Data, Fit, Limits, Model, Recipe

RECIPE = Recipe(
    name="mobilenet_v3_large",
    model=Model("mobilenet_v3_large", classes=1000),
    data=Data(measure="imagenet", calibrate=None),
    fit=Fit(
        epochs=600,
        batch_size=512,
        accumulate=8,
        optimizer="rmsprop",
        momentum=0.9,
        weight_decay=1e-5,
        learning_rate=0.1,
        warmup_epochs=5,
        schedule="step",
        decay_rate=0.99,
        decay_epochs=3,
        ema=0.9999,
        precision="auto",
        augment=Augment(crop_scale=(0.08, 1.0), brightness=0.125, saturation=0.5),
    ),
    schemes=("float32", "int8"),
    onnx=("float32",),
    limits=(Limits("int8", max_top1_drop=0.02),),
)
