"""MobileNetV2 on ImageNet, trained as in its paper.

MobileNetV2, Sandler et al. 2018, section 6.1: RMSprop with decay and momentum 0.9, weight decay 4e-5, batch size 96 on
each of 16 GPUs, learning rate 0.045, times 0.98 per epoch. The crops are Inception's, as in the authors' code.

The paper's GPUs were asynchronous, so its learning rate is for a batch of 96; here one host uses 96 images per step.
With more GPUs, increase fit.batch_size, and fit.learning_rate by the square root of that factor.

    edge-cv run mobilenet_v2 --data IMAGENET --out runs/mobilenet_v2

Expected top-1: 72.0 % (the paper's table 4).
384 million training images in all: 43 hours at 2,500 images per second, a rate that is an
example and not measured. A run reports its own rate and the expected time of an epoch after its first steps.

Photos that are stored smaller are read faster. Write them once, and train with --data SHARDS:

    edge-cv data prepare IMAGENET SHARDS --short-side 320
"""

from edge_cv.recipe import Augment, Data, Fit, Limits, Model, Recipe

RECIPE = Recipe(
    name="mobilenet_v2",
    model=Model("mobilenet_v2", classes=1000),
    data=Data(measure="imagenet", calibrate=None),
    fit=Fit(
        epochs=300,
        batch_size=96,
        optimizer="rmsprop",
        momentum=0.9,
        weight_decay=4e-5,
        learning_rate=0.045,
        schedule="step",
        decay_rate=0.98,
        decay_epochs=1,
        ema=0.9999,
        precision="auto",
        augment=Augment(crop_scale=(0.08, 1.0), brightness=0.125, saturation=0.5),
    ),
    schemes=("float32", "int8"),
    onnx=("float32",),
    limits=(Limits("int8", max_top1_drop=0.01),),
)
